"""What a starting program waits for: the modules that its daemon and it itself import."""

import signal
import subprocess
import sys

import pytest
from conftest import shoal_processes

from shoal import runtime
from shoal.runtime.native.driver import node_process

_SLOW = ("asyncio", "grpc", "importlib.metadata", "ray", "shoal.runtime.state", "shoal.runtime.util")
_OF_WORKERS = (
    "shoal.runtime.native.engine",
    "shoal.runtime.native.worker.worker_process",
    "shoal.runtime.serial.engine",
)


def imported_by(module: str) -> set[str]:
    program = f"import {module}, sys; print(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


@pytest.mark.parametrize("module", ["shoal.runtime", "shoal.runtime.native.node.daemon"])
def test_nothing_is_imported_that_a_start_does_not_need(module):
    assert not imported_by(module).intersection((*_SLOW, *_OF_WORKERS))


def test_what_is_imported_late_is_there():
    for name in runtime.__all__:
        assert getattr(runtime, name) is not None
        assert name in dir(runtime)
    with pytest.raises(AttributeError, match="has no attribute 'sory'"):
        runtime.sory  # noqa: B018


def test_the_daemon_that_came_up_meanwhile_ends_when_its_settings_cannot_work(tmp_path):
    blocker = tmp_path / "file"
    blocker.touch()
    with pytest.raises(runtime.InputError, match="log_directory"):
        runtime.init(engine="native", log_directory=str(blocker))
    assert not shoal_processes()


def test_a_ctrl_c_while_the_daemon_is_made_leaves_none(monkeypatch):
    begun = []

    class Interrupted(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            begun.append(self)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(node_process.subprocess, "Popen", Interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            runtime.init("native", num_cpus=1)
    finally:
        signal.signal(signal.SIGINT, before)
    [daemon] = begun
    assert daemon.returncode is not None
    assert not runtime.is_initialized()
