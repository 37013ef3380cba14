"""The contract of the helpers in `runtime.util`."""

import os

import pytest
from gates import Gate

from shoal import runtime
from shoal.runtime import util


@runtime.remote
class Doubler:
    def double(self, x):
        if x == "bad":
            raise ValueError("on purpose")
        return 2 * x

    @runtime.method(num_returns=2)
    def both(self, x):
        return x, 2 * x

    def wait_for(self, gate, x):
        while not runtime.get(gate.is_open.remote()):
            os.sched_yield()
        return x


def double(actor, value):
    return actor.double.remote(value)


# ActorPool ------------------------------------------------------------------------------------------------------------


def test_pool_maps_in_order(engine):
    pool = util.ActorPool([Doubler.remote(), Doubler.remote()])
    assert list(pool.map(double, range(20))) == [2 * i for i in range(20)]
    assert sorted(pool.map_unordered(double, range(20))) == [2 * i for i in range(20)]


def test_a_single_actor_or_reference_stands_for_itself(engine):
    pool = util.ActorPool(Doubler.remote())
    assert list(pool.map(double, [1, 2])) == [2, 4]
    assert list(util.as_completed(runtime.put(1))) == [1]
    with pytest.raises(TypeError, match=r"wait takes a list of references, not one: write wait\(\[ref\]\)"):
        runtime.wait(runtime.put(1))


def test_pool_submits_and_gets_in_order_or_not(engine):
    pool = util.ActorPool([Doubler.remote()])
    for value in (1, 2, 3):
        pool.submit(double, value)
    assert pool.has_next()
    assert pool.get_next() == 2
    assert {pool.get_next_unordered(), pool.get_next()} == {4, 6}
    assert not pool.has_next()
    with pytest.raises(StopIteration):
        pool.get_next()


def test_pool_goes_on_after_a_failed_call(engine):
    pool = util.ActorPool([Doubler.remote()])
    for value in ("bad", 2):
        pool.submit(double, value)
    with pytest.raises(ValueError, match="on purpose"):
        pool.get_next()
    assert pool.get_next() == 4


def test_pool_takes_calls_with_several_returns(engine):
    pool = util.ActorPool([Doubler.remote()])
    assert list(pool.map(lambda actor, value: actor.both.remote(value), [1, 2])) == [[1, 2], [2, 4]]


def test_pool_times_out_and_can_be_asked_again(concurrent):
    pool, gate = util.ActorPool([Doubler.remote()]), Gate.remote()
    pool.submit(lambda actor, value: actor.wait_for.remote(gate, value), 1)
    with pytest.raises(runtime.GetTimeoutError):
        pool.get_next(timeout=0)
    assert not pool.has_free()
    runtime.get(gate.release.remote())
    assert pool.get_next() == 1


def test_pool_gives_a_result_up_if_told_to(concurrent):
    pool, gate = util.ActorPool([Doubler.remote()]), Gate.remote()
    pool.submit(lambda actor, value: actor.wait_for.remote(gate, value), 1)
    pool.submit(double, 2)
    assert pool.get_next(timeout=0, ignore_if_timedout=True) is None
    runtime.get(gate.release.remote())
    assert pool.get_next() == 4


def test_pool_frees_an_actor_before_its_result_is_taken(engine):
    first, second = Doubler.remote(), Doubler.remote()
    pool = util.ActorPool([first])
    pool.submit(double, 1)
    runtime.wait(list(pool._results))
    assert pool.pop_idle() == first
    assert pool.pop_idle() is None
    pool.push(second)
    assert list(pool.map(double, [5])) == [10]


def test_pool_refuses_what_cannot_work(engine):
    actor = Doubler.remote()
    pool = util.ActorPool([actor])
    with pytest.raises(runtime.InputError, match="in the pool already"):
        pool.push(actor)
    with pytest.raises(TypeError, match="actors' handles, not a int"):
        pool.push(3)
    with pytest.raises(TypeError, match=r"must return what \.remote\(\) returned, not 2"):
        pool.submit(lambda actor, value: value, 2)
    empty = util.ActorPool([])
    empty.submit(double, 1)
    with pytest.raises(runtime.InputError, match="no actors"):
        empty.get_next()


# Queue ----------------------------------------------------------------------------------------------------------------


@runtime.remote
def produce(queue, items):
    for item in items:
        queue.put(item)


@runtime.remote
def consume(queue, count):
    return [queue.get() for _ in range(count)]


def test_queue_is_first_in_first_out(engine):
    queue = util.Queue()
    for i in range(5):
        queue.put(i)
    assert (queue.qsize(), len(queue), queue.empty(), queue.full()) == (5, 5, False, False)
    assert [queue.get() for _ in range(5)] == list(range(5))
    assert queue.empty()


def test_queue_connects_tasks(concurrent):
    queue = util.Queue(maxsize=2)  # smaller than what is sent: both sides wait for each other
    taken = consume.remote(queue, 20)
    runtime.get(produce.remote(queue, range(20)))
    assert runtime.get(taken) == list(range(20))


def test_queue_tells_that_it_is_full_or_empty(engine):
    queue = util.Queue(maxsize=1)
    with pytest.raises(util.Empty):
        queue.get_nowait()
    queue.put("a")
    assert queue.full()
    with pytest.raises(util.Full):
        queue.put_nowait("b")
    with pytest.raises(util.Full):
        queue.put("b", timeout=0.001)
    assert queue.get(timeout=1) == "a"
    with pytest.raises(util.Empty):
        queue.get(timeout=0.001)


def test_queue_moves_batches_whole_or_not_at_all(engine):
    queue = util.Queue(maxsize=3)
    queue.put_nowait_batch([1, 2])
    with pytest.raises(util.Full, match="room for 1 of 3"):
        queue.put_nowait_batch([3, 4])
    with pytest.raises(util.Empty, match="3 items were wanted, the queue has 2"):
        queue.get_nowait_batch(3)
    assert queue.get_nowait_batch(2) == [1, 2]


def test_queue_can_be_awaited(concurrent):
    import asyncio

    async def exchange():
        queue = util.Queue()
        waiting = asyncio.ensure_future(queue.get_async())
        await queue.put_async("x")
        return await waiting

    assert asyncio.run(exchange()) == "x"


def test_queue_that_ends_fails_those_who_wait(concurrent):
    queue = util.Queue()
    waiting = queue.get_async()
    queue.shutdown()
    with pytest.raises(runtime.ActorDiedError):
        runtime.get(waiting)


def test_queue_refuses_what_would_wait_for_ever(engine):
    if engine != "serial":
        pytest.skip("elsewhere somebody else may put")
    with pytest.raises(runtime.exceptions.DeadlockError, match=r"Queue\.get would wait for ever"):
        util.Queue().get()


def test_queue_refuses_bad_arguments(engine):
    with pytest.raises(runtime.InputError, match=r"maxsize=1\.5"):
        util.Queue(maxsize=1.5)
    endless = util.Queue(maxsize=-1)
    endless.put_nowait_batch(range(3))
    assert (endless.qsize(), endless.full()) == (3, False)
    with pytest.raises(runtime.InputError, match="timeout=-1"):
        util.Queue().get(timeout=-1)
