"""The contract of the runtime: actors with `__checkpoint__` and `__restore__` come back with their state."""

import os
import signal
import sys

import numpy as np
import psutil
import pytest
from conftest import screen, wait_until

from shoal import runtime
from shoal.runtime import state


@runtime.remote(max_restarts=-1)
class Ledger:
    """Keeps what it was told, in order; every answer depends on all that went before."""

    def __init__(self, folder, start=0):
        self.folder = folder
        self.entries = [start]
        self.note("constructed")

    def note(self, what):
        with open(self.folder / "notes", "a") as file:
            file.write(what + "\n")

    def __checkpoint__(self):
        self.note("checkpoint")
        return self.entries

    def __restore__(self, entries):
        self.note("restore")
        self.entries = list(entries)

    def add(self, value):
        self.entries.append(value)
        return len(self.entries), sum(self.entries)

    def add_array(self, array):
        return self.add(int(array.sum()))

    def add_all_of(self, refs):
        return self.add(int(sum(array.sum() for array in runtime.get(refs))))

    def fail_after(self, value, kind=KeyError):
        self.entries.append(value)
        raise kind(value)

    def all(self):
        return list(self.entries)

    def die_before_answer(self, marker):
        self.entries.append(100)
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return len(self.entries)

    def pid(self):
        return os.getpid()


@runtime.remote
def add_from_a_task(ledger, values):
    return [runtime.get(ledger.add.remote(value)) for value in values]


@runtime.remote
def add_big(ledger, count):
    return runtime.get([ledger.add_array.remote(np.ones(50_000)) for _ in range(count)])


def notes(folder):
    return (folder / "notes").read_text().split()


def restart(ledger, engine):
    if engine == "serial":
        runtime.kill(ledger, no_restart=False)
        return
    pid = runtime.get(ledger.pid.remote())
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(pid))


@pytest.mark.parametrize("every", [None, 1, 3, 100])
def test_an_actor_comes_back_with_its_state(engine, tmp_path, every):
    ledger = Ledger.options(checkpoint_every=every).remote(tmp_path, start=5)
    for value in range(1, 5):
        runtime.get(ledger.add.remote(value))
        restart(ledger, engine)
    assert runtime.get(ledger.all.remote(), timeout=30) == [5, 1, 2, 3, 4]


def test_the_state_is_sent_after_every_so_many_calls(engine, tmp_path):
    ledger = Ledger.options(checkpoint_every=3).remote(tmp_path)
    runtime.get([ledger.add.remote(value) for value in range(7)])
    runtime.get(ledger.add.remote(7))
    assert notes(tmp_path) == ["constructed", "checkpoint", "checkpoint"]
    restart(ledger, engine)
    runtime.get(ledger.all.remote())
    after = notes(tmp_path)[3:]
    assert after.index("restore") == after.index("constructed") + 1


class Abort(BaseException):
    """What `except Exception` is not meant to catch."""


@pytest.mark.parametrize("kind", [KeyError, Abort])
def test_calls_that_failed_have_changed_the_state_too(engine, tmp_path, kind):
    ledger = Ledger.options(checkpoint_every=10).remote(tmp_path)
    with pytest.raises(kind, match="9"):
        runtime.get(ledger.fail_after.remote(9, kind))
    restart(ledger, engine)
    assert runtime.get(ledger.all.remote(), timeout=30) == [0, 9]


def test_with_checkpoint_every_0_it_begins_anew(engine, tmp_path):
    ledger = Ledger.options(checkpoint_every=0, max_task_retries=-1).remote(tmp_path)
    runtime.get(ledger.add.remote(1))
    restart(ledger, engine)
    assert runtime.get(ledger.all.remote(), timeout=30) == [0]


class Broken:
    """A stream of the user's that nobody can write to any more."""

    def write(self, text):
        raise RuntimeError("the widget has been deleted")

    flush = write


def test_a_checkpoint_fails_although_nothing_can_be_printed(engine, monkeypatch):
    monkeypatch.setattr("sys.stderr", sys.stderr)  # in this process the serial engine's actor replaces it

    @runtime.remote(max_restarts=1)
    class Mute:
        def __checkpoint__(self):
            raise RuntimeError("no state")

        def __restore__(self, state):
            raise AssertionError

        def call(self):
            sys.stderr = Broken()
            return "called"

    mute = Mute.remote()
    assert [runtime.get(mute.call.remote(), timeout=30) for _ in range(3)] == ["called"] * 3


def test_restarts_count(engine, tmp_path):
    ledger = Ledger.options(max_restarts=1).remote(tmp_path)
    runtime.get(ledger.add.remote(1))
    restart(ledger, engine)
    assert runtime.get(ledger.all.remote(), timeout=30) == [0, 1]
    restart(ledger, engine)
    with pytest.raises(runtime.ActorDiedError):
        runtime.get(ledger.all.remote(), timeout=30)


def test_a_class_that_does_not_fit_is_refused(engine):
    class Plain:
        pass

    class Stateful:
        def __checkpoint__(self):
            return None

        def __restore__(self, state):
            pass

    class Async(Stateful):
        async def f(self):
            return 1

    with pytest.raises(runtime.InputError, match=r"Plain has no __checkpoint__ and no __restore__. Define"):
        runtime.remote(max_restarts=1, checkpoint_every=1)(Plain)
    with pytest.raises(runtime.InputError, match="no effect with max_restarts=0"):
        runtime.remote(checkpoint_every=1)(Stateful)
    with pytest.raises(runtime.InputError, match="Async is an async actor"):
        runtime.remote(max_restarts=1)(Async)
    with pytest.raises(runtime.InputError, match="Stateful is a threaded actor"):
        runtime.remote(max_restarts=1, max_concurrency=2)(Stateful)
    with pytest.raises(runtime.InputError, match="Stateful is detached"):
        runtime.remote(max_restarts=1, lifetime="detached")(Stateful)
    with pytest.raises(runtime.InputError, match="checkpoint_every=-1: want an integer of at least 0"):
        runtime.remote(max_restarts=1, checkpoint_every=-1)(Stateful)
    runtime.remote(max_restarts=1, checkpoint_every=0)(Async)
    runtime.remote(Stateful)


@pytest.mark.parametrize("option", [{"num_returns": "streaming"}, {"retry_exceptions": True}])
def test_a_call_that_cannot_be_logged_is_refused_and_keeps_no_argument(engine, tmp_path, option):
    ledger = Ledger.remote(tmp_path)
    argument = runtime.put(1)
    with pytest.raises(runtime.InputError, match=r"does not go with __checkpoint__"):
        ledger.add.options(**option).remote(argument)
    object_id = argument.hex()
    del argument
    wait_until(lambda: state.get_object(object_id) is None)


def test_a_restore_that_fails_is_the_reason_of_the_death(engine):
    @runtime.remote(max_restarts=1)
    class Broken:
        def __checkpoint__(self):
            return 1

        def __restore__(self, state):
            raise RuntimeError("cannot read it")

        def f(self):
            return os.getpid()

    broken = Broken.remote()
    _, pid = runtime.get([broken.f.remote(), broken.f.remote()])  # the first one's checkpoint was sent by now
    if engine == "serial":
        runtime.kill(broken, no_restart=False)
    else:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(runtime.ActorDiedError, match="its __restore__ failed") as caught:
        runtime.get([broken.f.remote() for _ in range(3)], timeout=30)
    assert "cannot read it" in str(caught.value.__cause__)
    assert caught.value.__cause__.__cause__.task.endswith("Broken.__restore__")


# Crashes --------------------------------------------------------------------------------------------------------------


def test_a_call_that_was_not_answered_is_made_again(processes, tmp_path):
    ledger = Ledger.options(checkpoint_every=2).remote(tmp_path)
    refs = [
        ledger.add.remote(1),
        ledger.die_before_answer.remote(tmp_path / "marker"),
        *[ledger.add.remote(value) for value in range(2, 6)],
    ]
    assert runtime.get(refs, timeout=30)[1] == 3
    assert runtime.get(ledger.all.remote()) == [0, 1, 100, 2, 3, 4, 5]


def test_large_arguments_and_references_are_replayed_for_every_caller(processes, tmp_path):
    ledger = Ledger.options(checkpoint_every=100).remote(tmp_path)
    value = runtime.put(np.ones(50_000))
    runtime.get([ledger.add_array.remote(value), ledger.add_array.remote(np.ones(40_000))])
    runtime.get([ledger.add_all_of.remote([value, runtime.put(np.ones(30_000))])])
    del value
    assert len(runtime.get(add_big.remote(ledger, 3))) == 3  # its worker may be gone by now, and with it its arguments
    restart(ledger, "native")
    assert runtime.get(ledger.all.remote(), timeout=30) == [0, 50_000, 40_000, 80_000, *[50_000] * 3]
    restart(ledger, "native")
    assert runtime.get(ledger.add.remote(1), timeout=30)[0] == 8


def test_a_checkpoint_may_hold_references_and_large_arrays(processes):
    @runtime.remote(max_restarts=-1)
    class Buffer:
        def __init__(self):
            self.refs, self.array = [], np.zeros(30_000)

        def __checkpoint__(self):
            return self.refs, self.array

        def __restore__(self, state):
            self.refs, self.array = list(state[0]), state[1].copy()

        def add(self, refs):
            self.refs += refs
            self.array += 1
            return os.getpid()

        def total(self):
            return sum(runtime.get(self.refs)), int(self.array.sum())

    buffer = Buffer.remote()
    pids = {runtime.get(buffer.add.remote([runtime.put(number)])) for number in range(3)}
    os.kill(pids.pop(), signal.SIGKILL)
    assert runtime.get(buffer.total.remote(), timeout=30) == (3, 90_000)


def test_a_checkpoint_that_fails_is_shown_and_taken_again(processes):
    @runtime.remote(max_restarts=-1)
    class Shy:
        def __init__(self):
            self.calls = 0

        def __checkpoint__(self):
            if self.calls < 3:
                raise RuntimeError("not yet")
            return self.calls

        def __restore__(self, calls):
            self.calls = calls

        def call(self):
            self.calls += 1
            return self.calls, os.getpid()

    shy = Shy.remote()
    with screen() as shown:
        for expected in range(1, 6):
            calls, pid = runtime.get(shy.call.remote(), timeout=30)
            assert calls == expected
            if expected == 1:
                wait_until(lambda: "__checkpoint__ failed" in shown.getvalue())
                assert "RuntimeError: not yet" in shown.getvalue()
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("every", [1, pytest.param(7, marks=pytest.mark.slow)])
def test_kill_9_at_any_moment_changes_nothing_for_any_caller(processes, tmp_path, every):
    """Three callers, hundreds of calls: each is in the state once, in its caller's order, and answered once."""
    ledger = Ledger.options(checkpoint_every=every).remote(tmp_path)
    mine, theirs = range(150), [range(1000, 1100), range(2000, 2100)]
    tasks = [add_from_a_task.remote(ledger, list(values)) for values in theirs]
    answers = []
    for start in range(0, len(mine), 10):
        pid = runtime.get(ledger.pid.remote(), timeout=60)
        refs = []
        for value in mine[start : start + 10]:
            refs.append(ledger.add.remote(value))
            if value % 10 == start // 10 % 10:
                os.kill(pid, signal.SIGKILL)
        answers += runtime.get(refs, timeout=60)
    others = runtime.get(tasks, timeout=60)
    entries = runtime.get(ledger.all.remote(), timeout=60)
    assert notes(tmp_path).count("constructed") == 1 + len(mine) // 10
    assert sorted(entries) == sorted([0, *mine, *theirs[0], *theirs[1]])
    for values, results in zip([mine, *theirs], [answers, *others], strict=True):
        assert [entry for entry in entries[1:] if entry in values] == list(values)
        assert results == [(entries.index(v, 1) + 1, sum(entries[: entries.index(v, 1) + 1])) for v in values]
