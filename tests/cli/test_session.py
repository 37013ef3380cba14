"""When the command line starts the runtime."""

import contextlib
import sys
from dataclasses import fields

import pytest

from shoal import runtime
from shoal.algorithms import ALGORITHMS
from shoal.cli.session import running_runtime, started_early
from shoal.cli.signals import STOP_WITH_STDIN
from shoal.cli.train import TrainFlags
from shoal.rl import Algorithm, RunSettings


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """What `runtime.init` is called with, in a process that has loaded no command and runs no runtime."""
    calls: list[dict[str, object]] = []

    def init(**settings: object) -> contextlib.AbstractContextManager[None]:
        calls.append(settings)
        return contextlib.nullcontext()

    monkeypatch.setattr(runtime, "init", init)
    monkeypatch.setattr(runtime, "is_initialized", lambda: bool(calls))
    monkeypatch.delitem(sys.modules, "shoal.cli.train", raising=False)
    return calls


def test_a_training_starts_it_before_its_modules_load(begun: list[dict[str, object]]) -> None:
    with started_early("train", ["ppo", "CartPole-v1", "--workers", "2"]):
        assert begun == [{"preload": ("torch", "gymnasium")}]
        with running_runtime(None, None):
            assert len(begun) == 1, "the command's own wish for it is fulfilled already"


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("status", "--session abc"),
        ("train", "ppo"),
        ("train", "ppo --help"),
        ("train", "pp0 CartPole-v1"),
        ("train", "CartPole-v1 --workers 2"),
        ("train", "ppo CartPole-v1 --engine serial"),
        ("train", "ppo CartPole-v1 --address=auto"),
        ("train", "ppo CartPole-v1 --seeds 3"),
        ("train", "ppo CartPole-v1 --num-envs 3"),
        ("train", "ppo CartPole-v1 --n_envz=3"),
        ("train", "ppo CartPole-v1 -n 3"),
        ("train", "ppo --resume runs/x"),
        ("train", "ppo mine:Walk"),
    ],
)
def test_nothing_is_started_before_the_command_is_read(begun: list[dict[str, object]], command: str, line: str) -> None:
    with started_early(command, line.split()):
        assert not begun


@pytest.mark.parametrize("kind", ALGORITHMS.values())
def test_every_flag_is_known_before_its_module_is_loaded(begun: list[dict[str, object]], kind: type[Algorithm]) -> None:
    flags = {item.name for group in (TrainFlags, RunSettings, kind.config_class) for item in fields(group)}
    ours = [f"--{name.replace('_', '-')}=1" for name in flags - {"engine", "address", "resume", "seeds"}]
    with started_early("train", [kind.name, "CartPole-v1", *ours, "--no-dueling", "--ent-coef", "-0.5"]):
        assert begun


def test_nothing_is_gained_once_the_modules_are_loaded(
    begun: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "shoal.cli.train", sys)
    with started_early("train", ["ppo", "CartPole-v1"]):
        assert not begun


def test_a_seed_of_several_reads_its_surroundings_first(
    begun: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STOP_WITH_STDIN, "1")  # workers must not inherit it
    with started_early("train", ["ppo", "CartPole-v1"]):
        assert not begun
