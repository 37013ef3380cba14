"""Evaluation of a language model: episodes on prompts of their own, greedy, or sampled several times each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ...envs import EnvSpec, TextEnvironments, episode_seed, own_generators, stream
from ..evaluation.result import Evaluation
from ..settings import RunSettings
from .episodes import play
from .policy import LanguagePolicy
from .sampling import Sampling

_ROWS = 32
"""Episodes that are played together; more make no forward pass cheaper."""


def play_texts(
    policy: LanguagePolicy,
    spec: EnvSpec,
    episodes: int,
    *,
    run_seed: int,
    deterministic: bool,
    settings: RunSettings,
    samples: int = 1,
    each_step: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Play `samples` episodes with each of `episodes` prompts; what `run_seed` decides. Of several samples, `pass_at`
    says how likely one of k is right."""
    rows = [(prompt, sample) for prompt in range(episodes) for sample in range(samples)]
    played = []
    sampling = Sampling(temperature=0.0 if deterministic else 1.0)
    size = min(_ROWS, len(rows))
    with own_generators(run_seed):
        environments = TextEnvironments(
            spec, size, run_seed=run_seed, check=settings.check, step_timeout=settings.step_timeout
        )
        try:
            for start in range(0, len(rows), size):
                part = rows[start : start + size]
                part += part[:1] * (size - len(part))  # a forward pass always has the same shape

                def noise(row: int, turn: int, part: Any = part) -> np.ndarray:
                    return stream(run_seed, "answers", *part[row], turn).random(policy.model.context)

                seeds = [episode_seed(run_seed, prompt, 0) for prompt, _ in part]
                with torch.inference_mode():
                    decoding = policy.decoding(size, sampling)
                    played.append(play(decoding, environments, seeds, noise=noise, each_turn=each_step))
        finally:
            environments.close()
    returns, lengths, solved = (
        np.concatenate([getattr(part, name) for part in played])[: len(rows)]
        for name in ("returns", "lengths", "solved")
    )
    return Evaluation(
        episodes=len(rows),
        episode_return_mean=float(returns.mean()),
        episode_return_std=float(returns.std()),
        episode_length_mean=float(lengths.mean()),
        returns=tuple(returns.tolist()),
        lengths=tuple(lengths.tolist()),
        pass_at=pass_at(solved.reshape(episodes, samples)),
    )


def pass_at(solved: np.ndarray) -> dict[int, float]:
    """How likely one of k answers to a prompt is right, k = 1, 2, 4 … and all: the mean over prompts of
    1 − C(n − c, k) / C(n, k), of which c of n samples were right (Chen et al., 2021, arXiv 2107.03374, equation 1).

    `solved` is [prompts, samples] bool."""
    n = solved.shape[1]
    right = solved.sum(1).tolist()
    ks = sorted({k for k in (1, 2, 4, 8, 16, 32, 64, 128) if k <= n} | {n})
    return {k: float(np.mean([1 - math.comb(n - c, k) / math.comb(n, k) for c in right])) for k in ks}
