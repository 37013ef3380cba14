"""Minari's datasets of recorded episodes, a step or an episode a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..blocks import column_of
from ..errors import BadRows
from .minari_format import episode_lengths, open_storage, read_episodes
from .source import Piece

_STEPS = 4_096
"""Of a piece, as long as an episode is not longer."""


@dataclass(frozen=True)
class MinariSource:
    """Episodes in the dataset's order.

    Args:
        path: folder of its files (`minari_format.find_minari`).
        episodes: whether a row is an episode, instead of a step.
    """

    path: str
    episodes: bool = False

    def pieces(self) -> tuple[Piece, ...]:
        """Whole episodes of together about 4 096 steps; `place` is their range. Raises InputError for damaged files."""
        ends = np.cumsum(episode_lengths(open_storage(Path(self.path))))
        pieces, first, done = [], 0, 0
        while first < len(ends):
            last = max(first + 1, int(np.searchsorted(ends, done + _STEPS, side="right")))
            steps = int(ends[last - 1]) - done
            rows = last - first if self.episodes else steps
            if rows:
                pieces.append(Piece(self.path, (first, last), f"episodes {first} to {last - 1}", rows))
            first, done = last, done + steps
        return tuple(pieces)

    def read(self, piece: Piece, bad: BadRows) -> Iterator[pa.Table]:
        """As `Source.read`; an episode whose columns do not belong together counts as one bad row."""
        storage = open_storage(Path(self.path))
        tables = []
        for index in range(*piece.place):
            try:
                (episode,) = read_episodes(storage, [index])
            except (OSError, ValueError, KeyError) as error:
                bad.add(f"episode {index}", str(error))
                continue
            tables.append(table_of_episode(episode) if self.episodes else table_of_steps(episode))
        if tables:
            yield pa.concat_tables(tables)


def table_of_steps(episode: Mapping[str, Any]) -> pa.Table:
    """An episode as a table of its T steps: its columns, `next_observations`, and before them `episode` and `step`."""
    steps = len(episode["rewards"])
    columns: dict[str, pa.Array] = {
        "episode": pa.array(np.full(steps, episode["episode"])),
        "step": pa.array(np.arange(steps)),
    }
    for name, values in episode.items():
        if name.partition("/")[0] == "observations":
            columns[name] = column_of(values[:-1])
            columns[f"next_{name}"] = column_of(values[1:])
        elif name != "episode":
            columns[name] = column_of(values)
    return pa.table(columns)


def table_of_episode(episode: Mapping[str, Any]) -> pa.Table:
    """An episode as a table of one row: `episode`, `steps`, and a list for each of its columns, T or T + 1 long."""
    steps = len(episode["rewards"])
    columns = {"episode": pa.array([episode["episode"]]), "steps": pa.array([steps])}
    for name, values in episode.items():
        if name != "episode":
            items = pa.array(np.asarray(values).reshape(-1))
            for size in reversed(np.shape(values)[1:]):
                items = pa.FixedSizeListArray.from_arrays(items, size)
            columns[name] = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), items)
    return pa.table(columns)
