"""The contract of which call goes when: order where one runs at a time, no waiting for others where many do."""

import asyncio
import os
import time

import pytest
from conftest import wait_until
from gates import Gate, pass_gate

from shoal import runtime
from shoal.runtime import util


class Calls:
    def slow(self, value):
        return value

    def fast(self, value):
        return value

    @runtime.method(concurrency_group="a")
    def in_a(self, value):
        return value

    @runtime.method(concurrency_group="b")
    def in_b(self, value):
        return value


class AsyncCalls(Calls):
    async def slow(self, value):
        return value


class Plain:
    def slow(self, value):
        return value

    def fast(self, value):
        return value


class AsyncPlain(Plain):
    async def slow(self, value):
        return value


_GROUPS = {"a": 1, "b": 1}


@pytest.mark.parametrize(
    ("cls", "options", "first", "second"),
    [
        (Plain, {"max_concurrency": 2}, "slow", "fast"),
        (AsyncPlain, {}, "slow", "fast"),
        (AsyncCalls, {"concurrency_groups": _GROUPS}, "slow", "fast"),
        (AsyncCalls, {"concurrency_groups": _GROUPS}, "in_a", "in_b"),
        pytest.param(
            Calls,
            {"concurrency_groups": _GROUPS},
            "in_a",
            "in_b",
            marks=pytest.mark.engines("native", "serial", reason="groups of a synchronous actor wait in Ray"),
        ),
    ],
)
def test_a_call_whose_argument_is_missing_holds_up_no_others(concurrent, cls, options, first, second):
    gate = Gate.remote()
    actor = runtime.remote(cls).options(num_cpus=0, **options).remote()
    late = [getattr(actor, first).remote(pass_gate.remote(gate, i)) for i in range(2)]
    assert runtime.get([getattr(actor, second).remote(i) for i in range(3)], timeout=20) == [0, 1, 2]
    gate.release.remote()
    assert runtime.get(late, timeout=20) == [0, 1]


class Failing:
    def fail(self, gate):
        runtime.get(pass_gate.remote(gate, 1))
        raise KeyError("on purpose")


def test_calls_that_wait_for_one_that_fails_fail_with_it_and_harm_no_others(concurrent):
    gate = Gate.remote()
    calls, failing = runtime.remote(AsyncPlain).remote(), runtime.remote(Failing).remote()
    runtime.get(calls.fast.remote(0))
    failed = failing.fail.remote(gate)
    first = calls.slow.remote(failed)
    others = [calls.slow.remote(first), calls.slow.remote(first)]
    gate.release.remote()
    for ref in [failed, first, *others]:
        with pytest.raises(KeyError):
            runtime.get(ref, timeout=30)
    assert runtime.get(calls.slow.remote(1), timeout=30) == 1
    with pytest.raises(KeyError):  # and no ActorDiedError
        runtime.get(failing.fail.remote(gate), timeout=30)


class Noting:
    def __init__(self):
        self.seen = []

    def note(self, value):
        self.seen.append(value)

    @runtime.method(concurrency_group="one")
    def note_in_one(self, value):
        self.seen.append(value)

    def all(self):
        return self.seen


@pytest.mark.engines("native", reason="concurrent groups; Ray promises no order there")
@pytest.mark.parametrize(("method", "options"), [("note", {}), ("note_in_one", {"concurrency_groups": {"one": 1}})])
def test_where_one_call_runs_at_a_time_they_keep_their_order(engine, method, options):
    gate = Gate.remote()
    cls = Noting if options else type("NotingPlain", (), {k: v for k, v in vars(Noting).items() if k != "note_in_one"})
    actor = runtime.remote(cls).options(num_cpus=0, **options).remote()
    refs = [getattr(actor, method).remote(pass_gate.remote(gate, 0))]
    refs += [getattr(actor, method).remote(i) for i in range(1, 5)]
    gate.release.remote()
    runtime.get(refs, timeout=20)
    assert runtime.get(actor.all.remote()) == [0, 1, 2, 3, 4]


def test_a_blocking_coroutine_blocks_its_own_group_only(concurrent):
    @runtime.remote(concurrency_groups={"other": 1})
    class Blocking:
        async def block(self, path):
            while not os.path.exists(path):
                time.sleep(0.01)
            return "unblocked"

        @runtime.method(concurrency_group="other")
        async def unblock(self, path):
            open(path, "w").close()
            await asyncio.sleep(0)
            return "ok"

    path = f"/tmp/shoal-test-{os.getpid()}-{time.monotonic_ns()}"
    actor = Blocking.remote()
    blocked = actor.block.remote(path)
    try:
        assert runtime.get(actor.unblock.remote(path), timeout=20) == "ok"
        assert runtime.get(blocked, timeout=20) == "unblocked"
    finally:
        os.unlink(path)


@runtime.remote(max_restarts=1)
class Returning:
    """Comes back only when its gate is open."""

    def __init__(self, gate):
        if runtime.get_runtime_context().was_current_actor_reconstructed:
            runtime.get(pass_gate.options(num_cpus=0).remote(gate, None))

    def ping(self):
        return "pong"


def test_calls_do_not_wait_for_an_actor_that_restarts_unless_they_have_retries(concurrent):
    gate = Gate.remote()
    actor = Returning.remote(gate)
    assert runtime.get(actor.ping.remote(), timeout=20) == "pong"
    runtime.kill(actor, no_restart=False)
    with pytest.raises(runtime.ActorUnavailableError):
        runtime.get(actor.ping.remote(), timeout=20)
    patient = actor.ping.options(max_task_retries=-1).remote()
    gate.release.remote()
    assert runtime.get(patient, timeout=20) == "pong"
    assert runtime.get(actor.ping.remote(), timeout=20) == "pong"


@runtime.remote(num_cpus=0)
class Cutter:
    def cut(self, piece, deadly):
        if deadly:
            os._exit(7)
        return piece


def _cut(actor, piece):
    return actor.cut.remote(piece, piece == 2)


@pytest.mark.parametrize("ordered", [False, True])
def test_a_dead_actor_of_a_pool_takes_no_more_work(processes, ordered):
    pool = util.ActorPool([Cutter.remote(), Cutter.remote()])
    for piece in range(8):
        pool.submit(_cut, piece)
    done, failed = [], []
    while pool.has_next():
        try:
            done.append(pool.get_next(20) if ordered else pool.get_next_unordered(20))
        except runtime.ActorDiedError as error:
            failed.append(error)
    assert (sorted(done), len(failed)) == ([0, 1, 3, 4, 5, 6, 7], 1)


def test_a_pool_whose_actors_are_all_dead_says_so(processes):
    pool = util.ActorPool([Cutter.remote()])
    pool.submit(_cut, 2)
    pool.submit(_cut, 3)
    with pytest.raises(runtime.ActorDiedError):
        pool.get_next()
    with pytest.raises(runtime.InputError, match="all 1 of its actors are dead"):
        pool.get_next()
    pool.push(Cutter.remote())
    assert pool.get_next(20) == 3


def test_a_restarting_actor_of_a_pool_goes_on_when_it_is_back(processes):
    pool = util.ActorPool([Cutter.options(max_restarts=-1).remote()])
    for piece in range(5):
        pool.submit(_cut, piece)
    done, failed = [], []
    while pool.has_next():
        try:
            done.append(pool.get_next_unordered(20))
        except runtime.ActorUnavailableError as error:
            failed.append(error)
    assert (sorted(done), len(failed)) == ([0, 1, 3, 4], 1)
    assert pool.has_free()
    wait_until(pool.has_free)
