"""Minari's datasets of recorded episodes, a step or an episode a row."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..blocks import column_of
from ..errors import BadRows
from .minari_format import bytes_of_step, episode_lengths, open_storage, read_episodes
from .source import Piece

_STEPS = 4_096
_BYTES = 8 << 20
"""Of the steps of a piece."""


@dataclass(frozen=True)
class MinariSource:
    """Episodes in the order of the datasets.

    Args:
        paths: folders of their files (`minari_format.find_minari`).
        episodes: whether a row is an episode, instead of a step.
        steps: of a piece, as long as an episode is not longer; None: 4,096, or as many as take 8 MB.
    """

    paths: tuple[str, ...]
    episodes: bool = False
    steps: int | None = None

    def pieces(self) -> tuple[Piece, ...]:
        """Whole episodes; `place` is their range. Raises InputError for damaged files."""
        return tuple(piece for path in self.paths for piece in self._pieces(path))

    def _pieces(self, path: str) -> Iterator[Piece]:
        storage = open_storage(Path(path))
        step_bytes = bytes_of_step(storage)
        most = self.steps or max(1, min(_STEPS, _BYTES // step_bytes))
        ends = np.cumsum(episode_lengths(storage))
        first = done = 0
        while first < len(ends):
            last = max(first + 1, int(np.searchsorted(ends, done + most, side="right")))
            steps = int(ends[last - 1]) - done
            rows = last - first if self.episodes else steps
            if rows:
                where = f"episodes {first} to {last - 1}"
                yield Piece(path, (first, last), where, rows, steps * step_bytes)
            first, done = last, done + steps

    def read(self, piece: Piece, bad: BadRows) -> Iterator[pa.Table]:
        """As `Source.read`; an episode whose columns do not belong together counts as one bad row."""
        episodes = list(_sound(open_storage(Path(piece.path)), range(*piece.place), bad))
        if episodes:
            yield table_of_episodes(episodes) if self.episodes else table_of_steps(episodes)


def _sound(storage: Any, indices: Iterable[int], bad: BadRows) -> Iterator[Mapping[str, Any]]:
    """The episodes that can be read. The file is opened once for all of them, and again behind a bad one."""
    left = deque(indices)
    while left:
        try:
            for episode in read_episodes(storage, tuple(left)):
                left.popleft()
                yield episode
        except (OSError, ValueError, KeyError) as error:
            bad.add(f"episode {left.popleft()}", str(error))


def table_of_steps(episodes: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A row for each step: columns of episodes, `next_observations`, and before them `episode` and `step`."""
    steps = [len(episode["rewards"]) for episode in episodes]
    columns: dict[str, Any] = {
        "episode": np.repeat([episode["episode"] for episode in episodes], steps),
        "step": np.concatenate([np.arange(count) for count in steps]),
    }
    for name in episodes[0]:
        parts = [episode[name] for episode in episodes]
        if name.partition("/")[0] == "observations":
            columns[name] = _one_after_the_other([part[:-1] for part in parts])
            columns[f"next_{name}"] = _one_after_the_other([part[1:] for part in parts])
        elif name != "episode":
            columns[name] = _one_after_the_other(parts)
    return pa.table({name: column_of(values) for name, values in columns.items()})


def table_of_episodes(episodes: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A row for each episode: `episode`, `steps`, and a list for each of its columns, T or T + 1 long."""
    columns: dict[str, Any] = {
        "episode": [episode["episode"] for episode in episodes],
        "steps": [len(episode["rewards"]) for episode in episodes],
    }
    for name in episodes[0]:
        if name != "episode":
            values = _one_after_the_other([episode[name] for episode in episodes])
            ends = np.cumsum([0, *(len(episode[name]) for episode in episodes)])
            items = pa.array(np.asarray(values).reshape(-1))
            for size in reversed(np.shape(values)[1:]):
                items = pa.FixedSizeListArray.from_arrays(items, size)
            columns[name] = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), items)
    return pa.table(columns)


def _one_after_the_other(parts: Sequence[Any]) -> Any:
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    return [value for part in parts for value in part]
