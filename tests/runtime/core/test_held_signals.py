"""Ctrl-C between two steps that belong together."""

import functools
import os
import signal
import subprocess
import sys
import threading

import pytest

from shoal.runtime.core.held_signals import import_whole, signals_held


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def _handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt_in_a_block(done, times):
    with signals_held():
        for number in range(times):
            interrupt()
            done.append(number)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_the_first_one_waits_for_the_end_of_the_block_the_second_one_does_not(times):
    done = []
    with pytest.raises(KeyboardInterrupt):
        interrupt_in_a_block(done, times)
    assert done == [0]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        interrupt()


def test_an_import_is_finished_first(tmp_path, monkeypatch):
    lines = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nvalue = 1\n"
    (tmp_path / "imported_in_an_evaluation.py").write_text(lines)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        import_whole("imported_in_an_evaluation")
    assert sys.modules["imported_in_an_evaluation"].value == 1
    assert import_whole("imported_in_an_evaluation").value == 1


def test_an_import_tells_of_the_attribute_that_it_lacks(tmp_path, monkeypatch):
    (tmp_path / "imports_half_of_another.py").write_text("import os\nos.nothing\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"^imports_half_of_another cannot be imported: module 'os' has no attribute"):
        import_whole("imports_half_of_another")


def test_a_block_in_a_block_is_a_part_of_it():
    done = []

    def outer():
        with signals_held():
            interrupt_in_a_block(done, 1)
            done.append("after")

    with pytest.raises(KeyboardInterrupt):
        outer()
    assert done == [0, "after"]


def test_a_block_without_one_leaves_handlers_as_they_are_in_any_thread():
    with signals_held():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    found = []
    thread = threading.Thread(target=lambda: found.append(signals_held().__enter__()))
    thread.start()
    thread.join()
    assert found == [None]


def test_a_handler_that_was_installed_in_a_block_and_calls_the_one_before_reaches_that_afterwards():
    with signals_held():
        before = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, functools.partial(before))
    with pytest.raises(KeyboardInterrupt):
        interrupt()


@pytest.mark.parametrize("names", ["from shoal import register", "from shoal.runtime import joblib"])
def test_what_a_name_of_ours_imports_is_finished_first(names):
    code = f"""
import builtins, os, signal, sys
import_ = builtins.__import__
def interrupts_numpy(name, given=None, *arguments):
    if given and given["__name__"] == "numpy.linalg":
        builtins.__import__ = import_
        os.kill(os.getpid(), signal.SIGINT)
    return import_(name, given, *arguments)
builtins.__import__ = interrupts_numpy
try:
    {names}
except KeyboardInterrupt:
    print("numpy" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\n", done.stderr
