"""A process that forks inside a task ends where it leaves the user's code; it is no second worker."""

import asyncio
import multiprocessing
import os
import sys

import pytest

from shoal import runtime

pytestmark = pytest.mark.usefixtures("shared_native")


def raise_in_child():
    raise ValueError("in the child")


def exit_in_child():
    sys.exit(3)


def return_in_child():
    return "from the child"


leaving = pytest.mark.parametrize(
    ("leave", "code"), [(return_in_child, 0), (raise_in_child, 1), (exit_in_child, 3)], ids=["return", "raise", "exit"]
)


def fork(leave):
    """Return how the child has ended; in the child, leave."""
    pid = os.fork()
    if pid == 0:
        return leave()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@runtime.remote
class Forker:
    def __init__(self, leave=None):
        self.code = None if leave is None else fork(leave)

    def fork(self, leave):
        return fork(leave)

    def yield_from(self, leave):
        yield 1
        yield fork(leave)

    def code_of_constructor(self):
        return self.code


@runtime.remote
class AsyncForker:
    async def fork(self, leave):
        return fork(leave)

    async def yield_from(self, leave):
        yield 1
        yield fork(leave)


def get(ref):
    return runtime.get(ref, timeout=30)


@leaving
def test_a_child_of_a_task_ends(leave, code):
    task = runtime.remote(fork)
    assert get([task.remote(leave) for _ in range(4)]) == [code] * 4


@leaving
@pytest.mark.parametrize(
    "make", [Forker, Forker.options(max_concurrency=2), AsyncForker], ids=["plain", "threaded", "async"]
)
def test_a_child_of_an_actor_ends(make, leave, code):
    actor = make.remote()
    for _ in range(2):
        assert get(actor.fork.remote(leave)) == code
        assert get(list(actor.yield_from.options(num_returns="streaming").remote(leave))) == [1, code]


@leaving
def test_a_child_of_a_constructor_ends(leave, code):
    assert get(Forker.remote(leave).code_of_constructor.remote()) == code


def test_a_child_of_a_generator_that_is_a_task_ends():
    def count():
        yield 1
        yield fork(return_in_child)

    assert get(list(runtime.remote(count).remote())) == [1, 0]
    assert get(list(runtime.remote(num_returns=2)(count).remote())) == [1, 0]


def test_a_child_of_an_asynchronous_generator_that_is_a_task_ends():
    @runtime.remote
    async def count():
        await asyncio.sleep(0)
        yield fork(raise_in_child)

    assert get(list(count.remote())) == [1]


def test_what_a_child_ends_with_is_shown(capfd):
    get(runtime.remote(fork).remote(raise_in_child))
    runtime.shutdown()
    assert "ValueError: in the child" in capfd.readouterr().err


def test_processes_of_multiprocessing_go_on_working():
    @runtime.remote
    def absolute(numbers):
        with multiprocessing.get_context("fork").Pool(2) as pool:
            return pool.map(abs, numbers)

    assert get([absolute.remote([-1, 2]) for _ in range(3)]) == [[1, 2]] * 3


def test_a_child_of_a_driver_is_told_whose_references_and_handles_it_has(capfd):
    made = runtime.put(1)
    actor = Forker.remote()
    pid = os.fork()
    if pid == 0:
        for use in (lambda: runtime.get(made), actor.code_of_constructor.remote, lambda: runtime.put(1)):
            try:
                use()
            except runtime.ShoalError as error:
                print(type(error).__name__, error, flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
    lost, died, forked = capfd.readouterr().out.splitlines()
    parent = f"of the runtime of process {os.getpid()}, from which this process was forked; "
    assert lost.startswith("ObjectLostError")
    assert lost.endswith(f"{parent}make it again")
    assert died.startswith("ActorDiedError")
    assert died.endswith(f"{parent}create it again")
    assert "call shoal.runtime.init() for a runtime of its own" in forked
    assert get(made) == 1
