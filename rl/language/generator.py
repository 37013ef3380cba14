"""The generator: an actor that lets the model answer the prompts of a group of rows, and writes down what it sampled.

    collect(group, progress, weights, …) → (samples, state, statistics)

Everything that decides the result is in the arguments: prompts come from episodes' seeds, noise from streams named by
rollout, prompt, sample and turn, one number for each token. So a call can be repeated anywhere, and gives the same
bytes. Between two rollouts nothing is left: every episode is played to its end.

This module doesn't import torch (see `lazy`): the driver imports it to name the class.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from ...envs import EnvSpec, Episode, GroupState, TextEnvironments, derive_seed, episode_seed, own_generators, stream
from ...runtime import method
from ..chaos import Death
from ..clock import Clock
from ..collect.channel import Channel
from ..collect.rollout_stats import RolloutStats
from ..collect.worker import GroupProgress
from ..data.batch import Batch
from ..hashes import digests_of
from ..lazy import load, torch
from ..models.spec import ModelSpec
from ..settings import RunSettings
from ..threads import limit_threads, limit_torch_threads
from .episodes import Played, play
from .samples import REWARD_OF, Samples

_TOLD = 2
"""Samples of a group's first prompt that a run keeps as texts."""


class Generator:
    """Actor class. `config` says how to sample, `spec` makes the environments, `model_spec` the model, `settings` are
    the run's; `channel` is the driver's other ear."""

    def __init__(
        self,
        algorithm: type[Any],
        config: Any,
        *,
        spec: EnvSpec,
        model_spec: ModelSpec,
        settings: RunSettings,
        channel: Channel,
    ) -> None:
        limit_threads(settings.threads)
        self._config, self._spec, self._model_spec = config, spec, model_spec
        self._settings, self._channel = settings, channel
        self._model: Any = None
        self._environments: TextEnvironments | None = None
        self._asked = time.monotonic()

    @method(num_returns=3)
    def collect(
        self,
        group: int,
        progress: GroupProgress,
        weights: np.ndarray,
        version: int,
        clock: Clock,
        *,
        death: Death | None = None,
    ) -> tuple[Samples, GroupState, RolloutStats]:
        """Play an episode in each row of group `group` under flat `weights` of a version; perhaps die after the first
        answers."""
        limit_torch_threads(self._settings.threads)
        model, settings = self._load(weights), self._settings
        size, samples, rollout = settings.environments_per_group, self._config.samples, progress.rollouts
        first = group * size
        prompts = (first + np.arange(size)) // samples
        seeds = [episode_seed(settings.seed, int(prompt), rollout) for prompt in prompts]

        tokens = min(self._config.max_new_tokens, model.context)

        def noise(row: int, turn: int) -> np.ndarray:
            place = rollout, int(prompts[row]), (first + row) % samples, turn
            return stream(settings.seed, "answers", *place).random(tokens)

        with (
            own_generators(derive_seed(settings.seed, "global generators", group, rollout)),
            torch.inference_mode(),
        ):
            decoding = load("Decoding")(model, size, load("Sampling")(**self._config.sampling))
            played = play(decoding, self._rows(), seeds, noise=noise, each_turn=self._ask)
        if death is not None:
            death.at(0)
        unique = rollout * (settings.n_envs // samples) + prompts
        sha256 = model.layout.sha256(weights)
        written = self._written(decoding, played, unique, version=version, group=group, sha256=sha256)
        stats = self._stats(played, first, rollout, seeds)
        if settings.records_hashes:
            stats = replace(stats, digests=digests_of(written))
        return written, self._state(first, rollout), stats

    def close(self) -> None:
        """Close all environments; the driver asks for it before it ends the actor."""
        if self._environments is not None:
            self._environments.close()

    def _load(self, weights: np.ndarray) -> Any:
        if self._model is None:
            self._model = load("build_model")(self._model_spec)
        self._model.set_weights(weights)
        return self._model

    def _rows(self) -> TextEnvironments:
        if self._environments is None:
            run = self._settings
            self._environments = TextEnvironments(
                self._spec,
                run.environments_per_group,
                run_seed=run.seed,
                check=run.check,
                step_timeout=run.step_timeout,
                samples=self._config.samples,
            )
        return self._environments

    def _ask(self) -> None:
        self._asked = self._channel.ask(self._asked, time.monotonic())

    def _written(
        self, decoding: Any, played: Played, prompts: np.ndarray, *, version: int, group: int, sha256: str
    ) -> Samples:
        length = int(decoding.lengths.max())
        columns = {
            name: getattr(decoding, name)[:, :length].cpu().numpy()
            for name in ("mask", "log_probs", "sampled_log_probs", "entropies")
        }
        steps = Batch(
            columns
            | {
                "tokens": decoding.tokens[:, :length].int().cpu().numpy(),
                "rewards": played.returns.astype(np.float32),
                "cut": played.cut,
                "solved": played.solved,
                "prompts": prompts.astype(np.int64),
            }
            | {REWARD_OF + name: values.astype(np.float32) for name, values in played.parts.items()}
        )
        return Samples(steps, Batch({}), version, group=group, weights_sha256=sha256)

    def _state(self, first: int, rollout: int) -> GroupState:
        nothing = np.zeros(self._settings.environments_per_group, np.int64)
        return GroupState(
            environment_id=self._spec.id,
            run_seed=self._settings.seed,
            first_index=first,
            size=len(nothing),
            steps=rollout + 1,
            recovery="restart",
            replayable=False,
            observations=nothing,
            episodes=nothing,
            seeds=nothing,
            lengths=nothing,
            returns=nothing.astype(np.float64),
            actions=np.zeros((0, len(nothing)), np.int64),
        )

    def _stats(self, played: Played, first: int, rollout: int, seeds: list[int]) -> RolloutStats:
        episodes = [
            Episode(first + row, rollout, float(return_), int(length), seed, rollout + 1)
            for row, (return_, length, seed) in enumerate(zip(played.returns, played.lengths, seeds, strict=True))
        ]
        told = [
            {
                "prompt": played.prompts[row],
                "answers": played.answers[row],
                "reward": float(played.returns[row]),
                "cut": bool(played.cut[row]),
                **(
                    {"rewards": {name: float(each[row]) for name, each in played.parts.items()}} if played.parts else {}
                ),
            }
            for row in range(min(_TOLD, self._config.samples, len(seeds)))
        ]
        seconds = played.seconds
        return RolloutStats(episodes, seconds["environment"], seconds["inference"], 0.0, examples=tuple(told))
