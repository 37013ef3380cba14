"""The contract of tasks: generators, retries after exceptions, cancelling, waiting in any order; on every engine."""

import asyncio
import math
import os
import pickle
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from conftest import wait_until
from gates import Gate, pass_gate

from shoal import runtime
from shoal.runtime import util


@runtime.remote
def square(x):
    return x * x


@runtime.remote
def count_to(n):
    yield from range(n)


@runtime.remote
def count_and_fail(n):
    yield from range(n)
    raise KeyError("after all")


@runtime.remote
def append(path, text):
    with open(path, "a") as file:
        file.write(f"{text}\n")
    return text


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def values(generator):
    return [runtime.get(ref) for ref in generator]


@runtime.remote
class Producer:
    def count(self, n):
        yield from range(n)

    @runtime.method(num_returns="streaming", generator_backpressure=1)
    def evens(self):
        number = 0
        while True:
            yield number
            number += 2

    @runtime.method(num_returns=2)
    def two(self):
        yield 1
        yield 2


# Generators -----------------------------------------------------------------------------------------------------------


def test_a_generator_function_returns_a_generator_of_refs(engine):
    generator = count_to.remote(3)
    assert isinstance(generator, runtime.ObjectRefGenerator)
    first = next(generator)
    assert isinstance(first, runtime.ObjectRef)
    assert runtime.get(first) == 0
    wait_until(generator.next_ready)
    assert not generator.is_finished()
    assert values(generator) == [1, 2]
    assert generator.is_finished()
    assert not generator.next_ready()
    with pytest.raises(StopIteration):
        next(generator)
    assert runtime.get(generator.completed()) is None


def test_an_asynchronous_generator_function_is_one_too(engine):
    @runtime.remote
    async def count(n):
        for i in range(n):
            await asyncio.sleep(0)
            yield i

    assert values(count.remote(3)) == [0, 1, 2]


def test_values_of_a_generator_may_be_large(engine):
    @runtime.remote
    def arrays():
        for i in range(4):
            yield np.full(50_000, i)

    assert [int(array[-1]) for array in values(arrays.remote())] == [0, 1, 2, 3]


def test_refs_inside_a_generators_values_live(engine):
    @runtime.remote
    def boxes():
        for i in range(3):
            yield [runtime.put(i)]

    assert [runtime.get(box[0]) for box in values(boxes.remote())] == [0, 1, 2]


def test_a_generators_refs_may_be_passed_on(engine):
    assert runtime.get([square.remote(ref) for ref in count_to.remote(4)]) == [0, 1, 4, 9]


def test_an_exception_of_a_generator_is_its_last_value(engine):
    generator = count_and_fail.remote(2)
    refs = list(generator)
    assert runtime.get(refs[:2]) == [0, 1]
    assert len(refs) == 3
    with pytest.raises(KeyError, match="after all"):
        runtime.get(refs[2])


@pytest.mark.engines("native", "serial", reason="on Ray a generator that raises has completed")
def test_what_a_generator_raised_is_raised_by_its_completion(engine):
    generator = count_and_fail.remote(2)  # held: dropping it would stop the task
    with pytest.raises(KeyError, match="after all"):
        runtime.get(generator.completed())


@pytest.mark.engines("native", "serial", reason="Ray drops what is too much")
def test_a_generator_with_a_fixed_number_of_returns_gives_that_many(engine):
    refs = count_to.options(num_returns=3).remote(3)
    assert runtime.get(refs) == [0, 1, 2]
    with pytest.raises(ValueError, match="num_returns=2, but returned 3 values"):
        runtime.get(count_to.options(num_returns=2).remote(9)[0])
    assert runtime.get(Producer.remote().two.remote()) == [1, 2]


def test_streaming_of_what_does_not_yield_is_an_error(engine):
    generator = square.options(num_returns="streaming").remote(1)
    with pytest.raises(TypeError, match="is for generators, but it returned a int"):
        runtime.get(next(generator))


def test_dynamic_generators_are_refused_with_the_name_of_the_others():
    with pytest.raises(runtime.InputError, match="use num_returns='streaming'"):
        count_to.options(num_returns="dynamic")


@runtime.remote(num_returns=4)
def fail_at(index, size=1):
    """Four arrays, of which the one at `index` and the later ones are never made."""
    for number in range(4):
        if number == index:
            raise LookupError(f"no {number}")
        yield np.full(size, number)


@pytest.mark.parametrize("size", [1, 50_000], ids=["in messages", "in the store"])
def test_what_a_generator_has_returned_before_it_raises_arrives(engine, size):
    for index in (0, 1, 3, 4):
        refs = fail_at.remote(index, size)
        assert [runtime.get(ref)[-1] for ref in refs[:index]] == list(range(index))
        for ref in refs[index:]:
            with pytest.raises(LookupError, match=f"no {index}"):
                runtime.get(ref)


@pytest.mark.engines("native", "serial", reason="on Ray a retry after an exception waits about a second")
def test_a_generator_with_a_fixed_number_of_values_is_retried_as_a_whole(engine, tmp_path):
    @runtime.remote(num_returns=2, max_retries=1, retry_exceptions=True)
    def pair():
        attempt = len(list(tmp_path.iterdir()))
        (tmp_path / str(attempt)).touch()
        yield np.full(50_000, attempt)
        if attempt == 0:
            raise LookupError
        yield attempt

    first, second = pair.remote()
    assert (runtime.get(first)[0], runtime.get(second)) == (1, 1)


@pytest.mark.engines("native", "serial", reason="on Ray those that there are arrive, and too many are dropped")
@pytest.mark.parametrize("count", [3, 5])
def test_a_generator_of_a_wrong_number_of_values_fails_as_a_whole(engine, count):
    for ref in count_to.options(num_returns=4).remote(count):
        with pytest.raises(ValueError, match=f"num_returns=4, but returned {count} values"):
            runtime.get(ref)


def test_defaults_of_rays_are_taken(engine):
    @runtime.remote(
        num_returns=None, _generator_backpressure_num_objects=-1, accelerator_type=None, placement_group="default"
    )
    def two():
        yield from (1, 2)

    generator = two.remote()
    assert runtime.get(generator) is generator
    assert runtime.get(list(generator)) == [1, 2]
    assert runtime.get(list(two.options(num_returns=None).remote())) == [1, 2]

    @runtime.remote(max_task_retries=-1)
    class Two:
        @runtime.method(num_returns=None)
        def values(self):
            yield from (3, 4)

    assert runtime.get(list(Two.remote().values.remote())) == [3, 4]
    assert runtime.get(list(Two.options(max_task_retries=-1, max_restarts=0).remote().values.remote())) == [3, 4]


def test_async_functions_are_refused_as_tasks():
    async def main():
        return 1

    with pytest.raises(runtime.InputError, match=r"asyncio\.run"):
        runtime.remote(main)


def test_a_generator_cannot_be_sent_to_others(engine):
    generator = count_to.remote(1)
    with pytest.raises(TypeError, match="taken one by one, by the process that made the call"):
        pickle.dumps(generator)
    with pytest.raises(TypeError, match="cannot be sent to another process"):
        square.remote(generator)


def test_generators_of_actors(engine):
    producer = Producer.remote()
    assert values(producer.count.remote(3)) == [0, 1, 2]
    evens = producer.evens.remote()
    assert [runtime.get(next(evens)) for _ in range(4)] == [0, 2, 4, 6]
    evens.close()
    assert list(evens) == []
    assert values(producer.count.remote(2)) == [0, 1]


def test_asynchronous_iteration(engine):
    async def main():
        return [await ref async for ref in count_to.remote(3)]

    assert asyncio.run(main()) == [0, 1, 2]


def test_wait_takes_generators(engine):
    generator, ref = count_to.remote(1), runtime.put(1)
    assert runtime.wait([generator, ref], num_returns=2, timeout=20) == ([generator, ref], [])
    assert values(generator) == [0]
    assert runtime.wait([generator], timeout=20) == ([generator], [])


def test_backpressure_keeps_a_generator_from_running_ahead(engine, tmp_path):
    path = tmp_path / "made"

    @runtime.remote(_generator_backpressure_num_objects=2)
    def make():
        for i in range(6):
            with open(path, "a") as file:
                file.write(f"{i}\n")
            yield i

    generator = make.remote()
    assert runtime.get(next(generator)) == 0
    assert runtime.get(square.remote(3)) == 9  # there is a CPU for others meanwhile
    assert len(lines(path)) <= 4
    assert values(generator) == [1, 2, 3, 4, 5]


def test_dropping_a_generator_stops_its_task(engine, tmp_path):
    path = tmp_path / "end"

    @runtime.remote(generator_backpressure=1)
    def endless():
        try:
            while True:
                yield 1
        finally:
            path.touch()

    generator = endless.remote()
    assert runtime.get(next(generator)) == 1
    del generator
    wait_until(path.exists)


# Retries --------------------------------------------------------------------------------------------------------------


@runtime.remote(max_retries=2, retry_exceptions=True)
def fail_first(path, times, kind=KeyError):
    with open(path, "a") as file:
        file.write("x\n")
    with open(path) as file:
        if len(file.readlines()) <= times:
            raise kind("not yet")
    return "done"


def test_exceptions_are_retried_if_asked_for(engine, tmp_path):
    assert runtime.get(fail_first.remote(tmp_path / "a", 2)) == "done"
    with pytest.raises(KeyError) as caught:
        runtime.get(fail_first.remote(tmp_path / "b", 3))
    assert engine == "ray" or "attempt 3 of 3" in caught.value.__cause__.where
    with pytest.raises(KeyError):
        runtime.get(fail_first.options(retry_exceptions=False).remote(tmp_path / "c", 1))
    assert lines(tmp_path / "c") == ["x"]


def test_only_the_exceptions_that_are_listed_are_retried(engine, tmp_path):
    class Mine(Exception):
        pass

    listed = fail_first.options(retry_exceptions=[Mine, OSError])
    assert runtime.get(listed.remote(tmp_path / "a", 1, Mine)) == "done"
    assert runtime.get(listed.remote(tmp_path / "b", 1, FileNotFoundError)) == "done"
    with pytest.raises(KeyError):
        runtime.get(listed.remote(tmp_path / "c", 1, KeyError))


@pytest.mark.engines("native", "serial", reason="Ray waits a second before each of the twenty retries")
def test_minus_one_retries_without_limit(engine, tmp_path):
    assert runtime.get(fail_first.options(max_retries=-1).remote(tmp_path / "a", 20)) == "done"


def test_a_generator_that_is_retried_gives_each_value_once(engine, tmp_path):
    @runtime.remote(max_retries=1, retry_exceptions=True)
    def count(path):
        again = path.exists()
        path.touch()
        for i in range(4):
            if i == 2 and not again:
                raise OSError("in the middle")
            yield i

    assert values(count.remote(tmp_path / "marker")) == [0, 1, 2, 3]


def test_methods_are_retried_after_exceptions(engine):
    @runtime.remote
    class Flaky:
        def __init__(self):
            self.calls = 0

        @runtime.method(max_task_retries=3, retry_exceptions=[ValueError])
        def work(self):
            self.calls += 1
            if self.calls < 3:
                raise ValueError("not yet")
            return self.calls

    flaky = Flaky.remote()
    assert runtime.get(flaky.work.remote()) == 3


def test_bad_retry_exceptions_are_refused():
    with pytest.raises(runtime.InputError, match="want True, False or a list of exception classes"):
        square.options(retry_exceptions=[3])


def test_a_short_task_is_not_kept_behind_a_long_one_of_the_same_function(concurrent, tmp_path):
    begun, gate = tmp_path / "begun", tmp_path / "gate"

    @runtime.remote
    def step(what):
        if what == "wait":
            begun.touch()
            wait_until(gate.exists, 60)
        elif what == "open":
            gate.touch()

    runtime.get([step.remote("short") for _ in range(500)])
    wait_until(lambda: runtime.available_resources()["CPU"] == 2)
    waiting = step.remote("wait")
    wait_until(begun.exists)
    runtime.get([waiting, step.remote("open")], timeout=30)


def test_max_calls_bounds_the_calls_in_one_process(concurrent):
    @runtime.remote(max_calls=2)
    def pid():
        return os.getpid()

    pids = runtime.get([pid.remote() for _ in range(8)], timeout=60)
    assert all(pids.count(one) <= 2 for one in pids)


# Cancelling -----------------------------------------------------------------------------------------------------------


@runtime.remote
def spin(path):
    """Run until interrupted; the file says that it has begun."""
    path.touch()
    while True:
        pass


def is_cancelled(ref):
    with pytest.raises(runtime.TaskCancelledError):
        runtime.get(ref, timeout=30)
    return True


def test_cancelling_what_has_ended_changes_nothing(engine):
    ref = square.remote(3)
    assert runtime.get(ref) == 9
    runtime.cancel(ref)
    assert runtime.get(ref) == 9
    put = runtime.put(1)
    runtime.cancel(put)
    assert runtime.get(put) == 1


def test_cancel_says_what_it_takes(engine):
    with pytest.raises(TypeError, match=r"use kill\(actor\)"):
        runtime.cancel(Producer.remote())


def test_a_running_task_is_interrupted(concurrent, tmp_path):
    refs = [spin.remote(tmp_path / str(i)) for i in range(2)]
    wait_until(lambda: all((tmp_path / str(i)).exists() for i in range(2)))
    for ref in refs:
        runtime.cancel(ref)
    assert all(map(is_cancelled, refs))
    assert runtime.get([square.remote(i) for i in range(4)], timeout=30) == [0, 1, 4, 9]


def test_the_task_sees_a_keyboard_interrupt_and_can_clean_up(concurrent, tmp_path):
    begun, cleaned = tmp_path / "begun", tmp_path / "cleaned"

    @runtime.remote
    def work():
        begun.touch()
        try:
            while True:
                try:
                    while True:
                        pass
                except Exception:
                    continue
        finally:
            cleaned.touch()

    ref = work.remote()
    wait_until(begun.exists)
    runtime.cancel(ref)
    assert is_cancelled(ref)
    assert cleaned.exists()


def test_what_a_task_returns_after_catching_the_interrupt_is_its_value(concurrent, tmp_path):
    begun = tmp_path / "begun"

    @runtime.remote
    def work():
        try:
            begun.touch()  # from here on, an interrupt may come
            while True:
                pass
        except KeyboardInterrupt:
            return "what I have so far"

    ref = work.remote()
    wait_until(begun.exists)
    runtime.cancel(ref)
    assert runtime.get(ref, timeout=30) == "what I have so far"


@pytest.mark.engines("native", reason="on Ray what it raises after the interrupt is its value")
def test_a_cancelled_task_is_cancelled_even_if_its_exceptions_are_retried(concurrent, tmp_path):
    begun = tmp_path / "begun"

    @runtime.remote(max_retries=-1, retry_exceptions=True)
    def work():
        begun.touch()
        try:
            while True:
                pass
        except KeyboardInterrupt:
            raise ValueError("it fails instead") from None

    ref = work.remote()
    wait_until(begun.exists)
    runtime.cancel(ref)
    assert is_cancelled(ref)


@pytest.mark.engines("native", "serial", reason="on Ray it may be the exception")
def test_a_cancelled_call_is_cancelled_even_if_its_exceptions_are_retried(concurrent, tmp_path):
    begun = tmp_path / "begun"

    @runtime.remote
    class Worker:
        @runtime.method(max_task_retries=-1, retry_exceptions=True)
        def work(self, gate):
            begun.touch()
            runtime.get(pass_gate.remote(gate, 1))
            raise ValueError("it fails")

    gate, worker = Gate.remote(), Worker.remote()
    ref = worker.work.remote(gate)
    wait_until(begun.exists)
    runtime.cancel(ref, recursive=False)
    gate.release.remote()
    assert is_cancelled(ref)


def test_queued_tasks_never_begin(concurrent, tmp_path):
    gate = Gate.remote()
    running = [pass_gate.remote(gate, i) for i in range(2)]
    queued = [append.remote(tmp_path / "log", i) for i in range(5)]
    waiting = append.remote(tmp_path / "log", pass_gate.remote(gate, "argument"))
    for ref in [*queued[1:], waiting]:
        runtime.cancel(ref)
    assert all(map(is_cancelled, [*queued[1:], waiting]))
    gate.release.remote()
    assert runtime.get([*running, queued[0]], timeout=30) == [0, 1, 0]
    assert lines(tmp_path / "log") == ["0"]


def test_get_inside_a_cancelled_task_is_interrupted(concurrent, tmp_path):
    gate, begun = Gate.remote(), tmp_path / "begun"

    @runtime.remote
    def wait_for(box):
        begun.touch()
        return runtime.get(box[0])

    blocked = pass_gate.remote(gate, 1)
    ref = wait_for.remote([blocked])
    wait_until(begun.exists)
    runtime.cancel(ref)
    assert is_cancelled(ref)
    gate.release.remote()
    assert runtime.get(blocked, timeout=30) == 1


def test_cancelled_tasks_take_what_they_submitted_with_them(concurrent, tmp_path):
    @runtime.remote
    def parent(recursive):
        runtime.get(spin.remote(tmp_path / f"child {recursive}"))

    ref = parent.remote(True)
    wait_until((tmp_path / "child True").exists)
    runtime.cancel(ref)
    assert is_cancelled(ref)
    wait_until(lambda: runtime.available_resources()["CPU"] == 2)


def test_cancelled_tasks_take_what_waits_for_what_they_submitted_with_them(concurrent, tmp_path):
    @runtime.remote
    def parent():
        first = square.options(num_cpus=2).remote(2)  # which waits for what its parent holds
        chain = [first, square.remote(first)]
        (tmp_path / "submitted").touch()
        while chain:
            pass

    ref = parent.remote()
    wait_until((tmp_path / "submitted").exists)
    runtime.cancel(ref)
    assert is_cancelled(ref)
    assert runtime.get(square.remote(3), timeout=30) == 9


def test_force_kills_the_worker_and_nothing_is_retried(concurrent, tmp_path):
    @runtime.remote(max_retries=-1)
    def stubborn():
        with open(tmp_path / "begun", "a") as file:
            file.write(f"{os.getpid()}\n")
        while True:
            try:
                while True:
                    pass
            except BaseException:
                continue

    ref = stubborn.remote()
    wait_until(lambda: lines(tmp_path / "begun"))
    runtime.cancel(ref, force=True)
    assert is_cancelled(ref)
    assert runtime.get([square.remote(i) for i in range(4)], timeout=30) == [0, 1, 4, 9]
    assert len(lines(tmp_path / "begun")) == 1


def test_a_borrower_may_cancel(concurrent, tmp_path):
    @runtime.remote
    def cancel(box):
        runtime.cancel(box[0])

    ref = spin.remote(tmp_path / "begun")
    wait_until((tmp_path / "begun").exists)
    runtime.get(cancel.remote([ref]), timeout=30)
    assert is_cancelled(ref)


def test_a_running_generator_is_cancelled_with_its_values_kept(concurrent):
    @runtime.remote
    def one_and_spin():
        yield 1
        while True:
            pass

    generator = one_and_spin.remote()
    first = next(generator)
    runtime.cancel(generator)
    last = next(generator)
    assert runtime.get(first) == 1
    assert is_cancelled(last)
    assert list(generator) == []


def test_a_generator_that_waits_for_room_is_cancelled(concurrent):
    def endless(*_):
        while True:
            yield 1

    actor = runtime.remote(type("Producer", (), {"endless": endless, "ping": lambda self: "pong"}))
    plain, threaded = actor.remote(), actor.options(max_concurrency=2).remote()
    for make in (runtime.remote(endless), plain.endless, threaded.endless):
        generator = make.options(generator_backpressure=1).remote()
        first = next(generator)
        runtime.wait([generator])
        runtime.cancel(generator)
        assert runtime.get(first) == 1
        assert is_cancelled(list(generator)[-1])
    assert runtime.get([plain.ping.remote(), threaded.ping.remote()], timeout=30) == ["pong", "pong"]


def test_queued_calls_of_an_actor_are_cancelled_and_running_ones_are_not(concurrent, tmp_path):
    @runtime.remote
    class Worker:
        def work(self, gate, value):
            runtime.get(pass_gate.remote(gate, value))
            return value

    for options in ({}, {"max_concurrency": 2}):
        gate, worker = Gate.remote(), Worker.options(**options).remote()
        refs = [worker.work.remote(gate, i) for i in range(6)]
        runtime.wait([refs[-1]], timeout=0)
        for ref in refs[3:]:
            runtime.cancel(ref)
        assert all(map(is_cancelled, refs[3:]))
        gate.release.remote()
        assert runtime.get(refs[:3], timeout=30) == [0, 1, 2]


def test_a_call_of_an_async_actor_is_cancelled_as_asyncio_does(concurrent, tmp_path):
    begun, cleaned = tmp_path / "begun", tmp_path / "cleaned"

    @runtime.remote
    class Sleeper:
        async def sleep(self):
            begun.touch()
            try:
                await asyncio.Event().wait()
            finally:
                cleaned.touch()

        async def ping(self):
            return "pong"

    sleeper = Sleeper.remote()
    ref = sleeper.sleep.remote()
    wait_until(begun.exists)
    runtime.cancel(ref)
    assert is_cancelled(ref)
    assert cleaned.exists()
    assert runtime.get(sleeper.ping.remote(), timeout=30) == "pong"


def test_calls_of_actors_are_not_cancelled_by_force(concurrent):
    gate = Gate.remote()
    blocked = pass_gate.remote(gate, 1)

    @runtime.remote
    class Worker:
        def echo(self, value):
            return value

    ref = Worker.remote().echo.remote(blocked)
    with pytest.raises(runtime.InputError, match=r"Use kill\(actor\)"):
        runtime.cancel(ref, force=True)
    gate.release.remote()
    assert runtime.get(ref, timeout=30) == 1


# In any order ---------------------------------------------------------------------------------------------------------


def test_as_completed_yields_values_as_they_come(concurrent):
    gate = Gate.remote()
    slow, fast = pass_gate.remote(gate, "slow"), square.remote(2)
    completed = util.as_completed([slow, fast])
    assert next(completed) == 4
    gate.release.remote()
    assert list(completed) == ["slow"]


def test_as_completed_gives_all(engine):
    refs = [square.remote(i) for i in range(50)]
    assert sorted(util.as_completed(refs)) == [i * i for i in range(50)]
    assert set(util.as_completed(refs, yield_obj_refs=True)) == set(refs)
    assert list(util.as_completed([])) == []


def test_as_completed_times_out(concurrent):
    gate = Gate.remote()
    ref = pass_gate.remote(gate, 1)
    with pytest.raises(runtime.GetTimeoutError, match="1 of 1 objects were not ready"):
        list(util.as_completed([ref], timeout=0.01))
    gate.release.remote()
    assert runtime.get(ref, timeout=30) == 1


def test_map_unordered(engine):
    assert sorted(util.map_unordered(square, range(20), backpressure_size=3)) == [i * i for i in range(20)]
    assert sorted(util.map_unordered(lambda x: -x, range(3))) == [-2, -1, 0]


@pytest.mark.parametrize("timeout", [math.inf, np.float32("inf"), 10**30, 1e300, Fraction(10**9), Decimal(40 * 86_400)])
def test_long_time_limits_are_taken_everywhere(engine, timeout):
    def ready():
        return later.remote()

    assert runtime.get(ready(), timeout=timeout) == 1
    assert len(runtime.wait([ready()], timeout=timeout)[0]) == 1
    assert list(util.as_completed([ready()], timeout=timeout)) == [1]
    assert ready().future().result(timeout) == 1
    assert ready().future().exception(timeout) is None
    assert len(runtime.wait([stream.remote()], timeout=timeout)[0]) == 1


@runtime.remote
def later():
    return 1


@runtime.remote
def stream():
    yield 1


def test_bad_waits_are_refused(engine):
    ref = runtime.put(1)
    for bad, message in [({"num_returns": 0}, "want 1 to 1"), ({"timeout": -1}, "timeout=-1: want seconds")]:
        with pytest.raises(runtime.InputError, match=message):
            runtime.wait([ref], **bad)
    with pytest.raises(runtime.InputError, match="timeout=-1"):
        runtime.get(ref, timeout=-1)
    with pytest.raises(TypeError, match="wait takes"):
        runtime.wait(ref)
    assert runtime.wait([ref], fetch_local=False) == ([ref], [])


def test_many_refs_are_awaited_together(engine):
    async def main():
        return await asyncio.gather(*[square.remote(i) for i in range(200)])

    assert asyncio.run(main()) == [i * i for i in range(200)]


def test_futures_unpickle_outside_of_the_thread_that_reads(engine):
    class Asks:
        """Needs the runtime while it is unpickled."""

        def __reduce__(self):
            return runtime.get, (runtime.put("asked"),)

    @runtime.remote
    def make():
        return Asks()

    assert make.remote().future().result(30) == "asked"
