"""Files of a run that have lines of each iteration beside its metrics, so that it can be followed.

schedule.jsonl     of an asynchronous training, which rollouts each iteration learned from
hashes.jsonl       of what each iteration was made of and led to (see `hashes`)
episodes.jsonl     each episode of training: where it began, and its actions
examples.jsonl     of a language model, some of what it was asked and said
"""

from __future__ import annotations

import binascii
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from ...envs import Episode, codec
from ..callbacks import IterationReport
from ..hashes import FILE as HASHES
from .metrics import IterationsFile, plain

SCHEDULE, EPISODES, EXAMPLES = "schedule.jsonl", "episodes.jsonl", "examples.jsonl"
LINE_FILES = (SCHEDULE, HASHES, EPISODES, EXAMPLES)


class RunLines:
    """The files, each opened where it first has something to hold; of a run that goes on, what it wrote after the
    checkpoint's iteration is cut at once."""

    def __init__(self, folder: Path, *, after_iteration: int | None = None) -> None:
        self._folder, self._kept = folder, after_iteration
        self._files: dict[str, IterationsFile] = {}
        if after_iteration is not None:
            for name in LINE_FILES:
                if (folder / name).exists():
                    self._open(name)

    def _open(self, name: str) -> IterationsFile:
        if name not in self._files:
            self._files[name] = IterationsFile(self._folder / name, after_iteration=self._kept)
        return self._files[name]

    def write(self, report: IterationReport) -> None:
        """Append the lines of one iteration."""
        when = {"iteration": report.iteration, "timesteps": report.timesteps}
        total = {"total_timesteps": report.total_timesteps}
        lines: dict[str, list[Mapping[str, Any]]] = {
            SCHEDULE: [] if report.schedule is None else [report.schedule],
            HASHES: [{**when, **total, **report.hashes}] if report.hashes else [],
            EXAMPLES: [{**when, **example} for example in report.examples],
        }
        for name, found in lines.items():
            if found:
                self._open(name).append(*found)
        episodes = [each for each in report.episodes if each.actions is not None]
        if episodes:
            begin = f'{{"iteration": {report.iteration}, "timesteps": {report.timesteps}'
            self._open(EPISODES).append_text("".join(line_of_episode(each, begin) for each in episodes))

    def close(self) -> None:
        """Close the files; harmless a second time."""
        with contextlib.ExitStack() as closing:  # each is closed, whatever the other's close raises
            for file in self._files.values():
                closing.callback(file.close)


def line_of_episode(episode: Episode, begin: str) -> str:
    """An episode as a line of `episodes.jsonl`, which begins so. It is JSON written by hand, in an eighth of the time:
    of short episodes a hundred end in an iteration."""
    assert episode.actions is not None
    return_ = "null" if plain(episode.return_) is None else repr(float(episode.return_))
    actions = binascii.b2a_base64(episode.actions, newline=False).decode()
    return (
        f'{begin}, "environment": {episode.environment}, "index": {episode.index}, "seed": {episode.seed}, '
        f'"return": {return_}, "length": {episode.length}, "actions": "{actions}"}}\n'
    )


def actions_of_line(line: Mapping[str, Any], space: gymnasium.Space) -> np.ndarray:
    """The actions of a line of `episodes.jsonl`, rows [length, …] of the action space's codec.

    Raises ValueError if they are not what was written."""
    kind = codec(space)
    rows = np.frombuffer(binascii.a2b_base64(line["actions"]), kind.smallest_dtype)
    return rows.reshape(line["length"], *kind.shape).astype(kind.dtype)
