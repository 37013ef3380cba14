"""The run folder: everything that is kept of one training.

config.json             all settings, resolved, with thread counts, device, CPU features and library versions
metrics.jsonl           one line an iteration
schedule.jsonl          of an asynchronous training: which rollouts each iteration learned from, for `shoal verify`
hashes.jsonl            of what each iteration was made of, for `shoal verify` and `shoal diff`
episodes.jsonl          each episode, with its actions, for `shoal replay`
examples.jsonl          of a language model: a few prompts, answers and rewards of each iteration
evaluations.jsonl       one line an evaluation during training, with eval_freq
events.out.tfevents.…   the same for TensorBoard (``tensorboard --logdir runs``)
league/                 in self-play, the snapshots of the policy that were its opponents, and their ratings
checkpoints/            one folder per checkpoint; a training resumes from the newest. best: the best policy of them
.lock                   while a training writes here: its process and command
learning_curve.png      written at the end: episode returns; of a fit to a table, its loss
reproduce.py            where an environment has raised an exception: a script that repeats it alone
result.json             written last: a folder without it holds a training that has not ended
"""

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ...envs import script_in
from ...runtime import InputError, ShoalError
from ..callbacks import Callback, EvaluationReport, IterationReport, Training, TrainingResult
from ..settings import Bounds
from .checkpoint import drop_newer, list_checkpoints
from .files import reading, write_json, write_whole
from .learning_curve import draw_learning_curve
from .machine import describe_machine
from .metrics import EvaluationsFile, MetricsFile, TensorBoardFile, load_tensorboard, read_evaluations
from .picture import load_matplotlib
from .run_lines import RunLines
from .run_lock import check_unlocked, lock_run, unlock_run
from .run_place import REPRODUCER, check_vacant, check_writable, remove_files


class RunFolderError(ShoalError):
    """What a run keeps could not be written: the disk is full, for one. The message says what was saved before."""


def _load_libraries() -> None:
    load_matplotlib()
    load_tensorboard()


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
    if not file.exists():
        raise InputError(f"'{folder}' is no run folder: it holds no config.json")
    with reading(file):
        text = file.read_bytes()
    try:
        config = json.loads(text)
    except ValueError as error:
        raise InputError(f"'{file}' is damaged: {error}. Train again, or restore the file") from None
    if not isinstance(config, dict):
        raise InputError(f"'{file}' is damaged: it holds a {type(config).__name__}, not an object")
    kinds = {"algorithm": str, "env": str, "total_timesteps": int, "stop_return": int | float | None}
    parts = dict.fromkeys(("environment", "run", "hyperparameters", "machine"), dict | None)
    for name, kind in (kinds | {name: kind for name, kind in parts.items() if name in config}).items():
        if not isinstance(config.get(name, ...), kind):
            raise InputError(f"'{file}' is damaged: its entry {name!r} is {config.get(name)!r}. Restore the file")
    return config


def read_result(path: str | Path) -> TrainingResult | None:
    """Return what a run folder's `result.json` holds; None if there is none. InputError if it is damaged."""
    file = Path(path) / "result.json"
    try:
        return TrainingResult(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise InputError(f"'{file}' is damaged: {error}. Remove it") from None


def read_mean_return(path: str | Path) -> float | None:
    """Return the mean return that a run ended with: of its last 100 episodes, or, where none ended in training, of its
    last evaluation; None if it has not ended, or has neither."""
    result = read_result(path)
    if result is None or result.episode_return_mean is not None:
        return None if result is None else result.episode_return_mean
    evaluations = read_evaluations(Path(path) / "evaluations.jsonl")
    return evaluations[-1]["mean_return"] if evaluations else None


class RunFolder(Callback):
    """The callback that writes a run folder.

        with RunFolder("runs/cartpole", stop_return=475) as folder:
            ppo.train(300_000, stop_return=475, callbacks=[folder])

    It refuses a folder that holds a run (see `check_vacant`). Nothing is written, and nothing replaced, before the
    training starts; from then on the folder is locked, until it ends. When an exception or Ctrl-C ends the training,
    leaving the `with` block closes the files and draws the curve, or the training's end does where there is none; there
    is no `result.json` then. What cannot be written ends the training with RunFolderError.
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
            overwrite: replace the run that is there; with `resume`, its checkpoints after the one that was loaded.
            resume: go on in the folder of the run that the algorithm was loaded from.
            stop_return: mean return that the training aims at: a line in the picture, a value in `config.json`.
            reward_threshold: return that counts as solved, drawn where there is no `stop_return`.
            checkpoint_seconds: save a checkpoint when the last one is this old (checked after each iteration).
            extra: further entries of `config.json`.

        Raises:
            InputError: `path` holds a run, or other files, another process writes there, or nobody can.
        """
        self.path = Path(path)
        if resume:
            check_unlocked(self.path)
            check_writable(self.path)
        else:
            check_vacant(self.path, overwrite=overwrite)
        self._overwrite, self._resume = overwrite, resume
        self._locked, self._entered = False, False
        self.saved_timesteps = 0
        """Environment steps of the last checkpoint."""
        self._stop_return = Bounds(optional=True).read("stop_return", stop_return)
        self._reward_threshold = Bounds(optional=True).read("reward_threshold", reward_threshold)
        self._checkpoint_seconds = Bounds(at_least=0).read("checkpoint_seconds", checkpoint_seconds)
        self._extra = dict(extra or {})
        self._metrics: MetricsFile | None = None
        self._tensorboard: TensorBoardFile | None = None
        self._lines: RunLines | None = None
        self._saved_at = time.monotonic()
        self._title = ""
        # What the end needs takes a third of a second to load, for which this process has nothing else to do while a
        # training's first processes start.
        threading.Thread(target=_load_libraries, name="shoal-load-libraries", daemon=True).start()

    def on_training_start(self, training: Training, total_timesteps: int) -> None:
        """Lock the folder, made if needed (an older run's files go now), and write `config.json`."""
        settings = training.settings()  # it can fail, so it comes before anything is replaced
        with self._telling():
            lock_run(self.path)
            self._locked = True
            if self._resume:
                drop_newer(self.path, training.timesteps, good_ones=self._overwrite)
            else:
                check_vacant(self.path, overwrite=self._overwrite)  # once more: now nobody else can be at it
                remove_files(self.path)
            for outdated in ("result.json", REPRODUCER):
                (self.path / outdated).unlink(missing_ok=True)
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
            kept, purged = (training.iteration, training.timesteps) if self._resume else (None, None)
            self._metrics = MetricsFile(self.path / "metrics.jsonl", after_iteration=kept)
            self._tensorboard = TensorBoardFile(self.path, purge_after=purged)
            self._lines = RunLines(self.path, after_iteration=kept)
        self.saved_timesteps = training.timesteps if self._resume else 0
        self._saved_at = time.monotonic()

    def on_iteration_end(self, training: Training, report: IterationReport) -> bool | None:
        """Write the iteration's metrics; save a checkpoint when the last one is old."""
        assert self._metrics is not None
        assert self._tensorboard is not None
        assert self._lines is not None
        with self._telling():
            self._metrics.write(report)
            self._tensorboard.write(report)
            self._lines.write(report)
        if time.monotonic() - self._saved_at >= self._checkpoint_seconds:
            self.save(training)
        return None

    def on_evaluation_end(self, training: Training, report: EvaluationReport) -> bool | None:
        """Write the evaluation; keep the policy if none was better."""
        assert self._tensorboard is not None
        with self._telling():
            EvaluationsFile(self.path / "evaluations.jsonl").write(report)
            self._tensorboard.write_evaluation(report)
            if report.best:
                training.save_best(self.path)
        return None

    def on_training_end(self, training: Training, result: TrainingResult) -> None:
        """Save the last checkpoint, draw the curve, and write `result.json` at the very end."""
        self.save(training)
        self._close_files()
        with self._telling():
            write_json(self.path / "result.json", result.to_json())
        self.close()

    def on_exception(self, training: Training, error: BaseException) -> None:
        """Close the files and free the folder, which in a `with` block is left to its end."""
        if not self._entered:
            self.__exit__(type(error), error, error.__traceback__)

    def save(self, training: Training) -> Path:
        """Save a checkpoint of the last finished iteration and return its folder."""
        with self._telling():
            checkpoint = training.save(self.path)
        self._saved_at, self.saved_timesteps = time.monotonic(), training.timesteps
        return checkpoint

    def close(self) -> None:
        """Close the files, draw the curve of what there is, and free the folder; harmless a second time."""
        try:
            self._close_files()
        finally:
            if self._locked:
                self._locked = False
                unlock_run(self.path)

    def _close_files(self) -> None:
        metrics, tensorboard, lines = self._metrics, self._tensorboard, self._lines
        self._metrics, self._tensorboard, self._lines = None, None, None
        if metrics is None or tensorboard is None or lines is None:
            return
        goal = self._stop_return if self._stop_return is not None else self._reward_threshold
        with self._telling():
            with contextlib.ExitStack() as closing:  # each is closed, whatever the other's close raises
                closing.callback(tensorboard.close)
                closing.callback(metrics.close)
                closing.callback(lines.close)
            draw_learning_curve(
                self.path / "metrics.jsonl",
                self.path / "learning_curve.png",
                title=self._title,
                threshold=goal,
                threshold_name="stop return" if self._stop_return is not None else "reward threshold",
            )

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Turn what the system says of a file that cannot be written into RunFolderError."""
        try:
            yield
        except OSError as error:
            if isinstance(error, ShoalError):  # GetTimeoutError is a TimeoutError, and that an OSError
                raise
            saved = list_checkpoints(self.path)
            kept = (
                f"The last checkpoint is whole: {str(saved[-1])!r}. Mend that, then continue with --resume {self.path}"
                if saved
                else "No checkpoint was saved before"
            )
            raise RunFolderError(
                f"run folder '{self.path}' cannot be written: {error.strerror or error}"
                f"{f' ({error.filename!s})' if error.filename else ''}. {kept}"
            ) from error

    def __enter__(self) -> Self:
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._entered = False
        script = None if error is None or not self._locked else script_in(error)
        try:
            if script is not None:
                assert error is not None
                write_whole(self.path / REPRODUCER, script.encode())
                error.add_note(f"The script is in {str(self.path / REPRODUCER)!r}.")
            self.close()
        except (RunFolderError, OSError):
            if error is None:  # else the first error is told, which may well be this one's cause
                raise
