"""Playing episodes: the model and the environments of all rows answer each other in turns.

This module doesn't import torch (see `lazy`): the generator, which the driver names, needs it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...envs import TextEnvironments
from ..lazy import torch


@dataclass
class Played:
    """The episodes of all rows, so far."""

    prompts: list[str]
    answers: list[list[str]]
    returns: np.ndarray
    lengths: np.ndarray
    """Turns."""
    cut: np.ndarray
    """[R] bool: an answer was cut off."""
    alive: np.ndarray
    solved: np.ndarray
    """[R] bool: the environment says so in `info["solved"]`; where it doesn't, the return is at least 1."""
    parts: dict[str, np.ndarray] = field(default_factory=dict)
    """[R] of each reward in `info["rewards"]`, summed over turns."""
    seconds: dict[str, float] = field(default_factory=lambda: {"environment": 0.0, "inference": 0.0})


def play(
    decoding: Any,
    environments: TextEnvironments,
    seeds: Sequence[int],
    *,
    noise: Callable[[int, int], np.ndarray],
    each_turn: Callable[[], None],
) -> Played:
    """Play an episode in each row, from `seeds`: all rows that are still alive answer, then their environments do.

    `noise(row, turn)` gives [N] numbers in [0, 1) for at most so many tokens; `each_turn` is called before each turn.
    An episode whose next observation has no room in the context ends, and counts as cut off.
    """
    began, size = time.perf_counter(), len(seeds)
    seen: list[str | None] = [environments.reset(row, seed) for row, seed in enumerate(seeds)]
    prompts = [str(text) for text in seen]
    played = Played(
        prompts,
        [[] for _ in seeds],
        np.zeros(size),
        np.zeros(size, np.int64),
        np.zeros(size, np.bool_),
        np.ones(size, np.bool_),
        np.zeros(size, np.bool_),
    )
    played.seconds["environment"] += time.perf_counter() - began
    turn = 0
    while played.alive.any():
        each_turn()
        began = time.perf_counter()
        _read(decoding, seen, played, first=turn == 0)
        if not played.alive.any():
            break
        drawn = np.stack([noise(row, turn) for row in range(size)])
        said = decoding.answer(torch.from_numpy(drawn).to(decoding.tokens.device), played.alive.copy())
        answered = time.perf_counter()
        played.seconds["inference"] += answered - began
        played.cut |= played.alive & ~said.ended
        answers = {row: decoding.vocabulary.decode(said.ids[row]) for row in np.flatnonzero(played.alive).tolist()}
        seen = _answer(environments, answers, played)
        played.seconds["environment"] += time.perf_counter() - answered
        turn += 1
    return played


def _answer(environments: TextEnvironments, answers: dict[int, str], played: Played) -> list[str | None]:
    """Step the environments of these rows; what they say."""
    seen: list[str | None] = [None] * len(played.alive)
    environments.anticipate(answers)
    for row, answer in answers.items():
        seen[row], reward, terminated, truncated, info = environments.step(row, answer)
        played.answers[row].append(answer)
        played.returns[row] += reward
        played.lengths[row] += 1
        played.alive[row] = not (terminated or truncated)
        played.solved[row] = bool(info.get("solved", played.returns[row] >= 1))
        for name, value in info.get("rewards", {}).items():
            played.parts.setdefault(name, np.zeros(len(seen)))[row] += value
    return seen


def _read(decoding: Any, seen: list[str | None], played: Played, *, first: bool) -> None:
    """Let the rows that are alive read what they see; ValueError if a prompt has no room."""
    texts: list[list[int] | None] = [None] * len(seen)
    for row in np.flatnonzero(played.alive).tolist():
        text = seen[row] or ""
        ids = decoding.vocabulary.encode(text)
        if first:
            decoding.check_prompt(text, ids)
        if decoding.fits(row, ids):
            texts[row] = ids
        else:
            played.alive[row], played.cut[row] = False, True
    if played.alive.any():
        decoding.read(texts)
