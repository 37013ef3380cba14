"""Where the numbers of a run go: `metrics.jsonl`, one line an iteration, `evaluations.jsonl`, one line an evaluation
during training, and TensorBoard events.

Both carry Stable-Baselines3's tags (`rollout/ep_rew_mean`, `time/fps`, `train/approx_kl` …); the x-axis is
environment steps.
"""

import json
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ...runtime import InputError
from ..callbacks import EvaluationReport, IterationReport
from .files import reading, write_whole

#: Seconds between two writes of TensorBoard events: the library is loaded at the first of them, not at the start.
_TENSORBOARD_INTERVAL = 5.0


def plain(value: Any) -> Any:
    """Return a number as JSON can hold it: numpy scalars as Python's, NaN and the infinities as None."""
    if isinstance(value, bool | str) or value is None:
        return value
    number = value.item() if hasattr(value, "item") else value
    return None if isinstance(number, float) and not math.isfinite(number) else number


class IterationsFile:
    """A file of one JSON object an iteration, on disk as soon as the iteration is over. Each has `iteration` and
    `timesteps`."""

    def __init__(self, path: Path, *, after_iteration: int | None = None) -> None:
        """Open the file for writing.

        Args:
            path: the file.
            after_iteration: continue an older file, keeping its lines up to this iteration (a run that was killed may
                have written more than its last checkpoint knows); None begins a new file.
        """
        kept = [] if after_iteration is None else [r for r in read_metrics(path) if r["iteration"] <= after_iteration]
        write_whole(path, "".join(_line(record) for record in kept).encode())
        self._file = path.open("a", encoding="utf-8")

    def append(self, *records: Mapping[str, Any]) -> None:
        """Append lines of one iteration and flush them."""
        self.append_text("".join(map(_line, records)))

    def append_text(self, lines: str) -> None:
        """Append whole lines of one iteration and flush them."""
        self._file.write(lines)
        self._file.flush()

    def close(self) -> None:
        """Close the file; harmless a second time."""
        self._file.close()


class MetricsFile(IterationsFile):
    """`metrics.jsonl`: what was measured in each iteration.

    Each line holds `iteration`, `timesteps`, `elapsed_seconds`, `episode_return_mean` (mean of the last 100 episodes,
    null before there is one), the metrics under their tags, and `episode_returns` and `episode_lengths` of the
    episodes that ended in this iteration, in order.
    """

    def write(self, report: IterationReport) -> None:
        """Append the line of one iteration and flush it."""
        self.append(record_of(report))


def record_of(report: IterationReport) -> dict[str, Any]:
    """What is written down of an iteration."""
    return {
        "iteration": report.iteration,
        "timesteps": report.timesteps,
        "elapsed_seconds": round(report.elapsed_seconds, 6),
        "episode_return_mean": plain(report.episode_return_mean),
        **{tag: plain(value) for tag, value in report.metrics.items()},
        "episode_returns": [plain(episode.return_) for episode in report.episodes],
        "episode_lengths": [plain(episode.length) for episode in report.episodes],
    }


_encode = json.JSONEncoder(allow_nan=False).encode  # `dumps` with an argument makes an encoder for each line


def _line(record: Mapping[str, Any]) -> str:
    return _encode(record) + "\n"


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a file of iterations; a last line cut short by a crash is left out, no file yields nothing.

    Raises InputError naming the line, if one before the last is damaged.
    """
    if not path.exists():
        return
    with reading(path), path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if line.endswith("\n"):
                yield _record(line, f"line {number} of '{path}'")


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
        if isinstance(record["iteration"], int) and isinstance(record["timesteps"], int):
            return dict(record)
    except (ValueError, TypeError, KeyError):
        record = None
    raise InputError(f"{where} is damaged: {line.strip()[:60]!r}. Restore it, or remove it and those after it")


class EvaluationsFile:
    """`evaluations.jsonl`: one JSON object for each evaluation during training: `index`, `timesteps` and `version` of
    the weights, `mean_return`, `std_return`, `mean_length`, `returns` and `lengths` of the episodes, and `best`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, report: EvaluationReport) -> None:
        """Add the line of one evaluation, in place of those that a run which was killed had written from there on."""
        names = ("index", "timesteps", "version", "mean_return", "std_return", "mean_length", "best")
        record = {name: plain(getattr(report, name)) for name in names}
        record |= {"returns": [plain(value) for value in report.returns], "lengths": list(report.lengths)}
        kept = [earlier for earlier in read_evaluations(self._path) if earlier["index"] < report.index]
        write_whole(self._path, "".join(_line(line) for line in [*kept, record]).encode())


def read_evaluations(path: Path) -> list[dict[str, Any]]:
    """The records of an `evaluations.jsonl`; none where there is no file. InputError if it is damaged."""
    if not path.exists():
        return []
    try:
        with reading(path):
            records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if all(isinstance(record["index"], int) and isinstance(record["timesteps"], int) for record in records):
            return records
    except InputError:
        raise
    except (ValueError, TypeError, KeyError):
        pass
    raise InputError(f"'{path}' is damaged. Restore it, or remove it")


def load_tensorboard() -> tuple[Any, Any, Any, Any]:
    """Import its record format; return the classes of an event, a session's start, a summary, and what writes them."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    return Event, SessionLog, Summary, RecordWriter


class TensorBoardFile:
    """TensorBoard events of one run, written with TensorBoard's own record format: neither torch nor TensorFlow loads.

    Events wait in memory for up to 5 s, so that a short run doesn't pay for loading the library before its end.
    """

    def __init__(self, folder: Path, *, purge_after: int | None = None) -> None:
        """Prepare an event file in `folder`.

        Args:
            folder: where it goes; the run's name in TensorBoard is the folder's.
            purge_after: a resumed run: TensorBoard drops older events beyond this many environment steps.
        """
        self._folder = folder
        self._purge_after = purge_after
        self._waiting: list[tuple[float, int, dict[str, float]]] = []
        self._file: BinaryIO | None = None
        self._written_at = time.monotonic()

    def write(self, report: IterationReport) -> None:
        """Take the metrics of one iteration; they reach the file at most 5 s later, or at `close`."""
        self._add(
            report.timesteps, {tag: value for tag, value in report.metrics.items() if not tag.startswith("eval/")}
        )

    def write_evaluation(self, report: EvaluationReport) -> None:
        """Take an evaluation, at the steps of its weights."""
        self._add(report.timesteps, {tag: value for tag, value in report.metrics.items() if tag != "eval/timesteps"})

    def _add(self, timesteps: int, metrics: dict[str, float]) -> None:
        self._waiting.append((time.time(), timesteps, metrics))
        if time.monotonic() - self._written_at >= _TENSORBOARD_INTERVAL:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        Event, SessionLog, Summary, RecordWriter = load_tensorboard()  # noqa: N806  # they are classes
        events = []
        if self._file is None:
            now = time.time()
            name = f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}.{os.getpid()}"
            self._file = (self._folder / name).open("ab")
            events.append(Event(wall_time=now, file_version="brain.Event:2"))
            if self._purge_after is not None:
                start = SessionLog(status=SessionLog.START)
                events.append(Event(wall_time=now, step=self._purge_after + 1, session_log=start))
        for wall_time, timesteps, metrics in self._waiting:
            values = [Summary.Value(tag=tag, simple_value=float(value)) for tag, value in metrics.items()]
            events.append(Event(wall_time=wall_time, step=timesteps, summary=Summary(value=values)))
        self._waiting.clear()
        records = RecordWriter(self._file)
        for event in events:
            records.write(event.SerializeToString())
        records.flush()
        self._written_at = time.monotonic()

    def close(self) -> None:
        """Write what waits and close the file; harmless a second time."""
        try:
            if self._waiting:
                self.flush()
        finally:
            if self._file is not None:
                self._file.close()
