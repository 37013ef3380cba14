"""Rollouts cut into the sequences that a memory is unrolled over."""

from __future__ import annotations

import numpy as np

from .rollout import Rollout


def in_sequences(values: np.ndarray, length: int) -> np.ndarray:
    """[T, N, …] as [S · L, …]: S = ⌈T / L⌉ · N sequences of `length` steps, of all environments side by side and then
    of the next steps; zeros fill the last ones."""
    steps, size = values.shape[:2]
    chunks = -(-steps // length)
    padded = np.zeros((chunks * length, *values.shape[1:]), values.dtype)
    padded[:steps] = values
    apart = padded.reshape(chunks, length, *values.shape[1:]).swapaxes(1, 2)
    return np.ascontiguousarray(apart).reshape(chunks * size * length, *values.shape[2:])


def steps_of_sequences(steps: int, size: int, *, length: int) -> np.ndarray:
    """[M] int64: rows of `in_sequences` that are steps, not padding."""
    return np.flatnonzero(in_sequences(np.ones((steps, size), np.bool_), length))


def episode_starts(rollout: Rollout, length: int) -> np.ndarray:
    """[S, L] bool: where an episode begins within a sequence. At a sequence's first step nothing needs to be forgotten:
    the memory before it is recorded as it was then."""
    steps, size = rollout.shape
    starts = np.zeros((steps, size), np.bool_)
    starts[1:] = (rollout.steps["terminations"] | rollout.steps["truncations"])[:-1]
    starts[::length] = False
    return in_sequences(starts, length).reshape(-1, length)
