"""The guard that delays Ctrl-C while state is half changed."""

import signal
import sys
import time
from types import SimpleNamespace

import pytest

from shoal.cli.signals import stop_as_interrupt
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


def test_a_handler_that_was_installed_later_is_guarded_when_asked(native):
    before = signal.getsignal(signal.SIGINT)
    with stop_as_interrupt() as stop:  # of a command whose runtime began before
        assert callable(signal.getsignal(signal.SIGINT))
        assert signal.getsignal(signal.SIGINT) != stop.begin
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_the_guard_leaves_what_it_found_and_has_one_of_each():
    def mine(number, frame):
        raise InterruptedError

    busy = []
    guard = InterruptGuard(lambda: bool(busy))
    ours = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, mine)
    guard.put_up()
    theirs = signal.getsignal(signal.SIGINT)
    busy.append(True)
    signal.raise_signal(signal.SIGINT)
    busy.clear()
    with pytest.raises(InterruptedError):
        time.sleep(10)
    signal.signal(signal.SIGINT, mine)
    guard.put_up()
    assert signal.getsignal(signal.SIGINT) is theirs is not ours
    guard.remove()
    assert signal.getsignal(signal.SIGINT) is mine
