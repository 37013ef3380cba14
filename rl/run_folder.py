"""The run folder: everything that is kept of one training.

config.json             all settings, resolved, with thread counts, device, CPU features and library versions
metrics.jsonl           one line an iteration
events.out.tfevents.…   the same for TensorBoard (``tensorboard --logdir runs``)
checkpoints/            one folder per checkpoint; a training resumes from the newest
learning_curve.png      written at the end
result.json             written last: a folder without it holds a training that has not ended
"""

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..runtime import InputError
from .callbacks import Callback, IterationReport, Training, TrainingResult
from .learning_curve import draw_learning_curve
from .machine import describe_machine
from .metrics import MetricsFile, TensorBoardFile
from .settings import Bounds

_FILES = ("config.json", "metrics.jsonl", "result.json", "learning_curve.png")
_EVENTS = "events.out.tfevents.*"


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file that appears under its name only when it is complete."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    partial.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)


def default_run_dir(algorithm: str, env_id: str, root: str | Path = "runs") -> Path:
    """Return the first of ``runs/<algorithm>-<env>-<n>``, n = 1, 2, …, that is above every one that exists."""
    stem = f"{algorithm}-{env_id}".replace("/", "-").replace(":", "-")
    numbers = [0]
    for path in Path(root).glob(f"{_escape(stem)}-*"):
        with contextlib.suppress(ValueError):
            numbers.append(int(path.name.removeprefix(f"{stem}-")))
    return Path(root) / f"{stem}-{max(numbers) + 1}"


def _escape(text: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in text)


def read_config(path: str | Path) -> dict[str, Any]:
    """Return the settings in a run folder's `config.json`.

    Raises:
        InputError: no such folder, no such file in it, or it is no JSON.
    """
    folder = Path(path)
    file = folder / "config.json"
    if not folder.is_dir():
        raise InputError(
            f"run folder '{folder}' does not exist (looked in {Path.cwd()}). Give the folder of a run, "
            "as `shoal train` printed it"
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"'{folder}' is no run folder: it holds no config.json") from None
    except ValueError as error:
        raise InputError(f"'{file}' is damaged: {error}. Train again, or restore the file") from None
    if not isinstance(config, dict):
        raise InputError(f"'{file}' is damaged: it holds a {type(config).__name__}, not an object")
    return config


def check_vacant(path: str | Path, *, overwrite: bool = False) -> Path:
    """Return `path` if a new run may be written there.

    That is where nothing is, or an empty folder, or a run that ended before its first iteration did; with `overwrite`
    also any older run.

    Raises:
        InputError: something is there that may not be replaced.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"run folder '{folder}' is a file. Choose another --run-dir")
    if not folder.exists() or not any(folder.iterdir()):
        return folder
    known = [name for name in (*_FILES, "checkpoints") if (folder / name).exists()]
    if not known:
        raise InputError(f"'{folder}' holds files, but no run. Choose another --run-dir: they will not be deleted")
    metrics = folder / "metrics.jsonl"
    begun = set(known) - {"config.json", "metrics.jsonl"} or (metrics.exists() and metrics.stat().st_size)
    if begun and not overwrite:
        resume = f"continue it with --resume {folder}, " if (folder / "checkpoints").exists() else ""
        raise InputError(
            f"run folder '{folder}' exists already (it holds {', '.join(known)}): {resume}replace it with --overwrite, "
            "or choose another --run-dir"
        )
    return folder


class RunFolder(Callback):
    """The callback that writes a run folder.

        with RunFolder("runs/cartpole", stop_return=475) as folder:
            ppo.train(300_000, stop_return=475, callbacks=[folder])

    It refuses a folder that holds a run (see `check_vacant`). Nothing is written, and nothing replaced, before the
    training starts. When an exception or Ctrl-C ends the training, leaving the `with` block closes the files and draws
    the curve; there is no `result.json` then.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        resume: bool = False,
        stop_return: float | None = None,
        reward_threshold: float | None = None,
        checkpoint_seconds: float = 60.0,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Prepare a run folder.

        Args:
            path: the folder; parents are made as needed.
            overwrite: replace the run that is there.
            resume: go on in the folder of the run that the algorithm was loaded from.
            stop_return: mean return that the training aims at: a line in the picture, a value in `config.json`.
            reward_threshold: return that counts as solved, drawn where there is no `stop_return`.
            checkpoint_seconds: save a checkpoint when the last one is this old (checked after each iteration).
            extra: further entries of `config.json`.

        Raises:
            InputError: `path` holds a run, or other files.
        """
        self.path = Path(path) if resume else check_vacant(path, overwrite=overwrite)
        self._resume = resume
        self._stop_return = Bounds(optional=True).read("stop_return", stop_return)
        self._reward_threshold = Bounds(optional=True).read("reward_threshold", reward_threshold)
        self._checkpoint_seconds = Bounds(at_least=0).read("checkpoint_seconds", checkpoint_seconds)
        self._extra = dict(extra or {})
        self._metrics: MetricsFile | None = None
        self._tensorboard: TensorBoardFile | None = None
        self._saved_at = time.monotonic()
        self._title = ""

    def on_training_start(self, training: Training, total_timesteps: int) -> None:
        """Make the folder (an older run's files go now) and write `config.json`."""
        settings = training.settings()  # it can fail, so it comes before anything is replaced
        if not self._resume:
            self._remove_older_run()
        (self.path / "result.json").unlink(missing_ok=True)
        self.path.mkdir(parents=True, exist_ok=True)
        self._title = f"{training.name.upper()} on {training.env_id}, seed {training.seed}"
        config = {
            **settings,
            "total_timesteps": total_timesteps,
            "stop_return": self._stop_return,
            "machine": describe_machine(),
            "command": sys.argv,
            **self._extra,
        }
        write_json(self.path / "config.json", config)
        again = self._resume
        self._metrics = MetricsFile(self.path / "metrics.jsonl", after_iteration=training.iteration if again else None)
        self._tensorboard = TensorBoardFile(self.path, purge_after=training.timesteps if again else None)
        self._saved_at = time.monotonic()

    def _remove_older_run(self) -> None:
        # Only what a run writes: a folder given by mistake keeps everything else.
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)
        for file in (*(self.path / name for name in _FILES), *self.path.glob(_EVENTS)):
            file.unlink(missing_ok=True)

    def on_iteration_end(self, training: Training, report: IterationReport) -> bool | None:
        """Write the iteration's metrics; save a checkpoint when the last one is old."""
        assert self._metrics is not None
        assert self._tensorboard is not None
        self._metrics.write(report)
        self._tensorboard.write(report)
        if time.monotonic() - self._saved_at >= self._checkpoint_seconds:
            self.save(training)
        return None

    def on_training_end(self, training: Training, result: TrainingResult) -> None:
        """Save the last checkpoint, draw the curve, and write `result.json` at the very end."""
        self.save(training)
        self.close()
        write_json(self.path / "result.json", result.to_json())

    def save(self, training: Training) -> Path:
        """Save a checkpoint of the last finished iteration and return its folder."""
        checkpoint = training.save(self.path)
        self._saved_at = time.monotonic()
        return checkpoint

    def close(self) -> None:
        """Close the files and draw the curve of what there is; harmless a second time."""
        if self._metrics is None or self._tensorboard is None:
            return
        self._metrics.close()
        self._tensorboard.close()
        self._metrics = self._tensorboard = None
        goal = self._stop_return if self._stop_return is not None else self._reward_threshold
        draw_learning_curve(
            self.path / "metrics.jsonl",
            self.path / "learning_curve.png",
            title=self._title,
            threshold=goal,
            threshold_name="stop return" if self._stop_return is not None else "reward threshold",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
