"""Loggers beside those of the run folder, each a callback: CSV, Weights & Biases, MLflow. The last two send what they
log where their library's own settings say; they are used only where a user asks for them by name.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from ...runtime import InputError, nearest
from ..runs.files import write_whole
from ..runs.metrics import plain, read_metrics, record_of
from .base import Callback, EvaluationReport, IterationReport, Training, TrainingResult

_OWN = ("episode_returns", "episode_lengths")


class CSVLogger(Callback):
    """Writes RUN/metrics.csv: a row an iteration, a column a metric, on disk as soon as the iteration is over.

    Columns may appear later, with the first evaluation, or the first update of an algorithm that first fills its
    buffer: then the file is written anew, from RUN/metrics.jsonl. A cell is empty where an iteration has no such value.
    """

    def __init__(self, run: str | Path) -> None:
        self._run = Path(run)
        self._columns: list[str] = []
        self._names: set[str] = set()

    def on_training_start(self, training: Training, total_timesteps: int) -> None:
        """Begin with the iterations of a resumed run."""
        self._write()

    def on_iteration_end(self, training: Training, report: IterationReport) -> bool | None:
        """Add a row."""
        row = record_of(report)
        if self._names.issuperset(row):
            with (self._run / "metrics.csv").open("a", encoding="utf-8", newline="") as file:
                file.write(csv_text([row], names=self._columns, header=False))
        else:
            self._write()
        return None

    def _write(self) -> None:
        rows = list(read_metrics(self._run / "metrics.jsonl"))
        self._columns = list(dict.fromkeys(name for row in rows for name in row if name not in _OWN))
        self._names = {*self._columns, *_OWN}
        write_whole(self._run / "metrics.csv", csv_text(rows, names=self._columns).encode())


def csv_text(rows: list[dict[str, Any]], *, names: list[str], header: bool = True) -> str:
    """Rows as CSV (RFC 4180), their values under `names`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", extrasaction="ignore")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


class _Sender(Callback):
    """Logs iterations and evaluations as metrics of environment steps."""

    def __init__(self, run: str | Path) -> None:
        self._run = Path(run)

    def _log(self, metrics: Mapping[str, float], timesteps: int) -> None:
        raise NotImplementedError

    def on_iteration_end(self, training: Training, report: IterationReport) -> bool | None:
        """Log what is a number."""
        found = {name: plain(value) for name, value in report.metrics.items() if not name.startswith("eval/")}
        self._log({name: value for name, value in found.items() if value is not None}, report.timesteps)
        return None

    def on_evaluation_end(self, training: Training, report: EvaluationReport) -> bool | None:
        """Log the evaluation; the steps of its weights are a metric of it."""
        self._log(report.metrics, training.timesteps)
        return None


class WandbLogger(_Sender):
    """Weights & Biases: `wandb.init` with all settings, then `log` with environment steps. WANDB_PROJECT,
    WANDB_MODE=offline and the like decide where it goes."""

    def __init__(self, run: str | Path) -> None:
        super().__init__(run)
        self._wandb = _library("wandb", "wandb")
        self._session: Any = None

    def on_training_start(self, training: Training, total_timesteps: int) -> None:
        """Begin a run."""
        self._session = self._wandb.init(name=self._run.name, config=training.settings(), dir=str(self._run))

    def _log(self, metrics: Mapping[str, float], timesteps: int) -> None:
        self._session.log(dict(metrics), step=timesteps)

    def on_training_end(self, training: Training, result: TrainingResult) -> None:
        """End the run."""
        self._session.finish()
        self._session = None

    def on_exception(self, training: Training, error: BaseException) -> None:
        """End the run, as one that failed."""
        if self._session is not None:
            self._session.finish(exit_code=1)
            self._session = None


class MLflowLogger(_Sender):
    """MLflow: a run with the settings as parameters, then `log_metrics` with environment steps. Where it goes,
    MLFLOW_TRACKING_URI decides."""

    def __init__(self, run: str | Path) -> None:
        super().__init__(run)
        self._mlflow = _library("mlflow", "mlflow")
        self._has_begun = False

    def on_training_start(self, training: Training, total_timesteps: int) -> None:
        """Begin a run."""
        self._mlflow.start_run(run_name=self._run.name)
        self._has_begun = True
        self._mlflow.log_params({name: str(value)[:500] for name, value in training.settings().items()})

    def _log(self, metrics: Mapping[str, float], timesteps: int) -> None:
        self._mlflow.log_metrics(dict(metrics), step=timesteps)

    def on_training_end(self, training: Training, result: TrainingResult) -> None:
        """End the run."""
        self._mlflow.end_run()
        self._has_begun = False

    def on_exception(self, training: Training, error: BaseException) -> None:
        """End the run, as one that failed: the next one of this process could not begin."""
        if self._has_begun:
            self._mlflow.end_run(status="FAILED")
            self._has_begun = False


def _library(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise InputError(f"logging to {module} needs a package that is missing: pip install {package}") from None


LOGGERS: dict[str, Callable[[str | Path], Callback]] = {"csv": CSVLogger, "wandb": WandbLogger, "mlflow": MLflowLogger}


def read_loggers(names: str) -> tuple[str, ...]:
    """The loggers that are named, separated by commas, each once. InputError for an unknown one."""
    chosen = [name.strip().lower() for name in names.split(",") if name.strip()]
    for name in chosen:
        if name not in LOGGERS:
            raise InputError(f"log is {names!r}, but must be of {', '.join(LOGGERS)}. {nearest(name, LOGGERS)}")
    return tuple(dict.fromkeys(chosen))


def make_loggers(names: str, run: str | Path) -> list[Callback]:
    """The loggers that are named, as `read_loggers` does. InputError also for a missing package."""
    return [LOGGERS[name](run) for name in read_loggers(names)]
