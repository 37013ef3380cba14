"""Loggers, the libraries' calls recorded by fakes."""

import csv
import sys
import types

import pytest
from run_fakes import FakeTraining, report, result

from shoal.rl import RunFolder, make_loggers
from shoal.runtime import InputError


class Recorder(types.ModuleType):
    """A library all of whose functions note how they were called."""

    def __init__(self, name):
        super().__init__(name)
        self.calls = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.calls.append((name, args, kwargs)) or self


def drive(callbacks):
    training = FakeTraining()
    reports = [report(1, [5.0]), report(2, [], **{"train/loss": float("nan"), "train/new": 1.5})]
    for callback in callbacks:
        callback.on_training_start(training, 1000)
    for each in reports:
        for callback in callbacks:
            callback.on_iteration_end(training, each)
    for callback in callbacks:
        callback.on_training_end(training, result())


def test_csv_has_columns_that_appear_later(tmp_path):
    run = tmp_path / "run"
    with RunFolder(run) as folder:
        drive([folder, *make_loggers("csv", run)])
    first, second = csv.DictReader((run / "metrics.csv").read_text().splitlines())
    assert (first["timesteps"], first["train/new"], first["time/fps"]) == ("100", "", "10.0")
    assert (second["timesteps"], second["train/new"], second["train/loss"]) == ("200", "1.5", "")
    assert "episode_returns" not in first


def test_wandb_and_mlflow_get_metrics_by_steps(tmp_path, monkeypatch):
    libraries = {name: Recorder(name) for name in ("wandb", "mlflow")}
    for name, library in libraries.items():
        monkeypatch.setitem(sys.modules, name, library)
    drive(make_loggers("wandb, mlflow", tmp_path / "run"))
    settings = FakeTraining().settings()
    assert libraries["wandb"].calls == [
        ("init", (), {"name": "run", "config": settings, "dir": str(tmp_path / "run")}),
        ("log", ({"time/fps": 10.0},), {"step": 100}),
        ("log", ({"time/fps": 10.0, "train/new": 1.5},), {"step": 200}),
        ("finish", (), {}),
    ]
    assert libraries["mlflow"].calls == [
        ("start_run", (), {"run_name": "run"}),
        ("log_params", ({name: str(value) for name, value in settings.items()},), {}),
        ("log_metrics", ({"time/fps": 10.0},), {"step": 100}),
        ("log_metrics", ({"time/fps": 10.0, "train/new": 1.5},), {"step": 200}),
        ("end_run", (), {}),
    ]


def test_wandb_and_mlflow_are_told_that_a_training_failed(tmp_path, monkeypatch):
    libraries = {name: Recorder(name) for name in ("wandb", "mlflow")}
    for name, library in libraries.items():
        monkeypatch.setitem(sys.modules, name, library)
    failing = make_loggers("wandb, mlflow", tmp_path / "run")
    for callback in failing:
        callback.on_exception(FakeTraining(), KeyboardInterrupt())
    assert [library.calls for library in libraries.values()] == [[], []], (
        "neither has begun, and mlflow's run is another"
    )
    drive(failing)
    calls = [[*library.calls] for library in libraries.values()]
    for callback in failing:
        callback.on_exception(FakeTraining(), InputError("of a second train"))
    assert [library.calls for library in libraries.values()] == calls, "the first one has ended"
    for callback in failing:
        callback.on_training_start(FakeTraining(), 1000)
        callback.on_exception(FakeTraining(), KeyboardInterrupt())
    assert libraries["wandb"].calls[-1] == ("finish", (), {"exit_code": 1})
    assert libraries["mlflow"].calls[-1] == ("end_run", (), {"status": "FAILED"})


def test_what_is_unknown_or_missing_is_named(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="Did you mean 'csv'"):
        make_loggers("cvs", tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match="pip install wandb"):
        make_loggers("csv,wandb", tmp_path)
