"""The guard that delays Ctrl-C while state is half changed."""

import signal
import sys
import time
from types import SimpleNamespace

import pytest

from shoal.runtime.native.process.interrupts import InterruptGuard


class Events:
    """Of an IPython: what is called before each cell."""

    def __init__(self):
        self.before_cells = []

    def register(self, event, function):
        assert event == "pre_execute"
        self.before_cells.append(function)

    def unregister(self, event, function):
        self.before_cells.remove(function)


@pytest.fixture(autouse=True)
def _handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def waits_for(busy):
    """Whether a Ctrl-C waits until what is `busy` has ended."""
    busy.append(True)
    signal.raise_signal(signal.SIGINT)
    busy.clear()
    with pytest.raises(KeyboardInterrupt):
        time.sleep(10)
    return True


def test_the_guard_is_put_up_again_in_each_cell_of_a_notebook(monkeypatch):
    shell, busy = SimpleNamespace(events=Events()), []
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    guard = InterruptGuard(lambda: bool(busy))
    for _ in range(2):
        assert waits_for(busy)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as its kernel does before a cell
        [put_up] = shell.events.before_cells
        put_up()
    put_up()
    assert waits_for(busy)
    guard.remove()
    assert shell.events.before_cells == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ipython_that_is_only_imported_is_no_shell(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    InterruptGuard(lambda: False).remove()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
