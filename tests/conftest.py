"""What all tests share: an engine to run on, and a check that nothing is left behind."""

import contextlib
import gc
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from shoal import runtime
from shoal.runtime.core.engine import current_engine

# Where the environment forbids bytecode, every runtime and program that a test starts compiles our modules again, and
# each of pytest's processes rewrites all asserts: 25 of 190 seconds of processor time.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Imports and collected tests stay for good: until all are there, collections take a quarter of the time for nothing.
gc.disable()

DEADLINE = 10.0
# Other tests of the same process have imported torch; these workers need not wait for it.
WORKERS_NEED = ("numpy",)
# Those of a runtime that a module shares: each that is sent a function of a module of tests imports that, and with it
# pytest and psutil, by itself otherwise.
MANY_WORKERS_NEED = (*WORKERS_NEED, "pytest", "psutil")
# What processes of a runtime without actors are called.
_ALWAYS_THERE = {"shoal: node", "shoal: fork server", "shoal: worker"}
# Folders and files of tests that train, and are about neither the check of an environment nor pictures.
SHORT_TRAININGS = {
    *("algorithms", "cli", "examples", "language", "offline", "serving", "supervised"),
    "test_following_runs.py",
}
# The engines on which what holds on all is tested.
ENGINES = os.environ.get("SHOAL_TEST_ENGINES", "serial native").split()


def needs(module: str) -> pytest.MarkDecorator:
    """Return the mark of tests that need a module of an extra. It is not imported: for xgboost alone that takes as long
    as for torch, in each of pytest's processes."""
    return pytest.mark.skipif(find_spec(module) is None, reason=f"{module} is not installed")


def wait_until(condition: Callable[[], object], seconds: float = DEADLINE) -> None:
    """Return as soon as `condition` holds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.001)  # leaves the processor to those that are to make it true


def shoal_processes() -> list[psutil.Process]:
    """Return the processes that this one, or a node that it started, has made."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # which is found out a thousand times faster than by reading all of /proc
        return []
    try:
        return [child for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]
    except (psutil.Error, FileNotFoundError):  # one ended while we looked
        return shoal_processes()


def _descriptors() -> set[str]:
    kinds = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if target.startswith(("socket:", "anon_inode:[event", "/memfd:")):
            kinds.add(f"{fd} {target}")
    return kinds


def _left_open(before: set[str]) -> set[str]:
    """Return the descriptors that were not there before."""
    if "grpc" not in sys.modules:
        return _descriptors() - before

    def left() -> set[str]:
        return {one for one in _descriptors() - before if "anon_inode:[event" not in one}

    # Its threads close sockets a moment later, and keep their pollers.
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not left())
    return left()


@pytest.fixture
def one_cycle_each(monkeypatch):
    """Iterations of algorithms with a replay buffer have one update each."""
    # By its name: workers import this file with tests' functions, and all of shoal.rl with it would keep them waiting.
    monkeypatch.setattr("shoal.rl.cycles.ITERATION_STEPS", 1)


_looked_after = False


@contextlib.contextmanager
def leaving_nothing_behind() -> Iterator[None]:
    """Fail if a process, a socket or shared memory is left once the runtime has been shut down.

    Within another one it leaves both to that one.
    """
    global _looked_after
    if _looked_after:
        yield
        return
    before = _descriptors()
    _looked_after = True
    try:
        yield
    finally:
        _looked_after = False
        runtime.shutdown()
    left = [f"{process.pid} {process.cmdline()}" for process in shoal_processes()]
    assert not left, f"processes left behind: {left}"
    leaked = _left_open(before)
    # Ray keeps its event loops for the life of the process.
    assert not leaked or "ray" in sys.modules, f"descriptors left open: {leaked}"


@contextlib.contextmanager
def screen() -> Iterator[io.StringIO]:
    """Collect what this process shows, also on other threads; pytest's captures lose some if read meanwhile."""
    with io.StringIO() as shown, contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        yield shown


def pytest_collection_finish() -> None:
    """Begin with collections."""
    gc.enable()


@pytest.fixture(autouse=True, scope="module")
def spared_from_collections() -> None:
    """Spare what lives by now all garbage collections: many tests have one made, which took up to 0.4 s each."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def logs_of_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the log files of all runtimes that tests start, and of their child processes, in pytest's own folder."""
    os.environ["SHOAL_LOG_DIRECTORY"] = str(tmp_path_factory.mktemp("shoal"))


@pytest.fixture(autouse=True, scope="session")
def workers_load_little() -> Iterator[None]:
    """Have workers load what they need, not what other tests of this process have loaded, which is torch: each runtime
    took 1.2 s of processor time for it. Trainings and servers say by themselves that they need it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shoal.runtime.native.engine._PRELOADABLE", WORKERS_NEED)
        yield


@pytest.fixture(autouse=True, scope="session")
def no_power_fails() -> Iterator[None]:
    """Have nothing wait for the disk: what killed processes have written stays, and no test cuts the power. Run folders
    of tests have more than a thousand files, and each took up to 10 ms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True)
def short_trainings(request: pytest.FixtureRequest) -> Iterator[None]:
    """Shorten what a training does before and after it trains, where tests are not about that: tests/envs/ has the
    check of an environment (four times 64 steps), tests/rl_io/ and tests/rl/ the pictures of curves."""
    if "shoal.envs.check" not in sys.modules or not SHORT_TRAININGS & {request.path.parent.name, request.path.name}:
        yield
        return
    # Not the test's own `monkeypatch`: that would be made, for all tests, before what they ask for themselves.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["shoal.envs.check"], "_STEPS", 8)  # shoal.envs.check is the function
        patch.setattr("matplotlib.figure.Figure.savefig", lambda _, file, **__: file.write(b"\x89PNG"))
        yield


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own for Minari's datasets."""
    folder = tmp_path / "datasets"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    return folder


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Check every test for leaks; where tests share a runtime it is done once, after the last of them."""
    with leaving_nothing_behind():
        yield


@pytest.fixture(autouse=True)
def holds_here(request: pytest.FixtureRequest) -> None:
    """Skip a test that is marked ``engines("native", …, reason="…")`` on other engines."""
    for marker in request.node.iter_markers("engines"):
        parameters = getattr(request.node, "callspec", None)
        running = set(ENGINES).intersection(map(str, parameters.params.values())) if parameters else set()
        if running and not running & set(marker.args):
            pytest.skip(marker.kwargs["reason"])


@pytest.fixture(scope="module", params=ENGINES)
def shared_engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """The engines on which a module's tests run, one after the other; checked for leaks once, after each."""
    with leaving_nothing_behind():
        yield request.param


@pytest.fixture
def engine(shared_engine: str, request: pytest.FixtureRequest) -> str:
    """A running engine with two CPUs; the tests of a module share it, and must leave it as they found it.

    A module's `PRELOAD` names what each of its workers would import by itself otherwise.
    """
    if not runtime.is_initialized():
        preload = getattr(request.module, "PRELOAD", MANY_WORKERS_NEED)
        runtime.init(engine=shared_engine, num_cpus=2, preload=preload)
    return shared_engine


@pytest.fixture
def concurrent(engine: str) -> None:
    """Leave out engines that run one thing at a time."""
    if engine == "serial":
        pytest.skip("needs tasks that run at the same time")


@pytest.fixture
def processes(engine: str) -> str:
    """Leave out engines whose processes tests cannot reach."""
    if engine != "native":
        pytest.skip("needs processes of this machine")
    return engine


@pytest.fixture
def native() -> Iterator[None]:
    """A native engine of the test's own, with two CPUs."""
    runtime.init(engine="native", num_cpus=2, preload=WORKERS_NEED)
    yield
    runtime.shutdown()


@pytest.fixture(scope="module")
def checked_once() -> Iterator[None]:
    """Have the module checked for leaks at its end, instead of each of its tests."""
    with leaving_nothing_behind():
        yield


def _at_rest() -> bool:
    """Return whether the driver owns nothing, no actor lives, and all resources are free."""
    if current_engine().parts.table_sizes()["records"]:
        return False
    with contextlib.suppress(psutil.Error, IndexError):  # one ended while we looked
        titles = {process.cmdline()[0] for process in shoal_processes()}
        return titles <= _ALWAYS_THERE and runtime.available_resources() == runtime.cluster_resources()
    return False


@pytest.fixture
def shared_native(checked_once: None) -> Iterator[None]:
    """A native engine with two CPUs that the tests of a module share; each must drop what it has made."""
    if not runtime.is_initialized():
        runtime.init(engine="native", num_cpus=2, preload=MANY_WORKERS_NEED)
    yield
    if runtime.is_initialized() and not _at_rest():
        gc.collect()
        wait_until(_at_rest)
