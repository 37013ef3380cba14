"""Hashes of what an iteration was made of, as a run notes them down: where they part, two runs part.

`hashes.jsonl` has a line an iteration:

    {"iteration": 7, "timesteps": 4096, "total_timesteps": 500000, "random": "9f…", "observations": "04…",
     "actions": …, "rewards": …, …, "weights": "e1…"}

Each but `weights` is the first 64 bits of a SHA-256 over all simulation groups, in their order: `random` of the noise
that actions were drawn with, the others of the columns of the rollout. `weights` are those after the update, their
whole `weights_sha256`. They are in the order of causes: what is different first is where to look.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .data.tree import leaves

FILE = "hashes.jsonl"
WEIGHTS = "weights"
_FIRST = ("random", "observations", "actions", "rewards")
_LAST = WEIGHTS
_NOT_HASHES = {"iteration", "timesteps", "total_timesteps"}

_MOST_BYTES = 4_000_000
"""Of a column that are hashed: of one that is larger, such as pictures, only every so many-th step. At 2 GB/s that is
2 ms of a rollout."""
_MOST_WEIGHTS = 1_000_000
"""Weights that are hashed after each iteration (2 ms); of more, after every so many-th."""

Digests = Mapping[str, bytes]
"""By quantity."""


def digest_of(arrays: Iterable[np.ndarray]) -> bytes:
    """SHA-256 of arrays one after another; of large ones, of so many rows that it takes no time."""
    every = list(arrays)
    if len(every) == 1:  # most are; of rollouts of a few steps thousands are hashed in a second
        only = every[0]
        if only.nbytes < _MOST_BYTES and only.flags.c_contiguous and not only.dtype.hasobject:
            return hashlib.sha256(only.data).digest()
    digest = hashlib.sha256()
    for array in every:
        if not array.size:  # a rollout in which no turn was over
            continue
        step = 1 + array.nbytes // _MOST_BYTES
        part = array if step == 1 else array[::step]
        digest.update(
            repr(part.tolist()).encode() if part.dtype.hasobject else np.ascontiguousarray(part).data.cast("B")
        )
    return digest.digest()


def digests_of(rollout: Any, noise: Sequence[np.ndarray] = ()) -> dict[str, bytes]:
    """Those of a rollout of one group, or of one for each policy by name; `noise` is what its actions were drawn
    with."""
    parts = rollout if isinstance(rollout, dict) else {"": rollout}
    found = {"random": digest_of(noise)} if noise else {}
    for policy, part in parts.items():
        before = f"{policy}/" if policy else ""
        for name, column in part.steps.items():
            parts_of = [column] if isinstance(column, np.ndarray) else (leaf for _, leaf in leaves(column))
            found[before + name] = digest_of(parts_of)
        found[before + "finals"] = digest_of(leaf for _, leaf in leaves(dict(part.finals)))
    return found


def of_all(groups: Iterable[Digests]) -> dict[str, bytes]:
    """Those of several groups together, in the order given; of one its own."""
    every: list[Digests] = list(groups)
    found: dict[str, Any] = {}
    if len(every) == 1:
        return dict(every[0])
    for digests in every:
        for name, digest in digests.items():
            found.setdefault(name, hashlib.sha256()).update(digest)
    return {name: digest.digest() for name, digest in found.items()}


def weights_are_due(size: int, iteration: int) -> bool:
    """Whether so many weights are hashed after an iteration."""
    return iteration % (1 + size // _MOST_WEIGHTS) == 0


def line_of(digests: Digests, weights: str | None) -> dict[str, str]:
    """The quantities of a line, in the order of causes."""
    short = {name: digests[name].hex()[:16] for name in sorted(digests, key=_place)}
    return short if weights is None else {**short, WEIGHTS: weights}


def _place(name: str) -> tuple[int, str]:
    own = name.rpartition("/")[2]
    return (_FIRST.index(own) if own in _FIRST else len(_FIRST), name) if own != _LAST else (len(_FIRST) + 1, name)


@dataclass(frozen=True)
class Parting:
    """Where two records part."""

    iteration: int
    """The first that is not the same."""
    quantities: tuple[str, ...]
    """What is not, in the order of causes."""

    @property
    def first(self) -> str:
        """In words, what is different first."""
        name = self.quantities[0]
        words = {"random": "the random stream of the actions", WEIGHTS: "the weights after the update"}
        return words.get(name, f"{name} of the rollouts")


def parting(one: Iterable[Mapping[str, Any]], other: Iterable[Mapping[str, Any]]) -> Parting | None:
    """Where lines of two records part, of those iterations that both have; None: nowhere.

    What only one of them has, such as weights that are too many to be hashed each time, is not compared."""
    others = {line["iteration"]: line for line in other}
    for line in one:
        beside = others.get(line["iteration"], line)
        names = [name for name in line if name not in _NOT_HASHES]
        differing = tuple(name for name in names if name in beside and line[name] != beside[name])
        if differing:
            return Parting(line["iteration"], differing)
    return None
