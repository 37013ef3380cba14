"""The contract of the runtime: values of generators that are lost are made again, by running the generator again."""

import os
import random
import signal

import numpy as np
import pytest
from conftest import wait_until
from losses import lose_blocks

from shoal import runtime

BIG = 50_000


@runtime.remote
def stream(log, count, scale=1):
    """Yields arrays of 0, 1, …; the log has a line for each, and one for its end."""
    try:
        for i in range(count):
            note(log, i)
            yield np.full(BIG, i) * scale
    finally:
        note(log, "end")


@runtime.remote
def double(log, array):
    note(log, "double")
    return array * 2


@runtime.remote
class Producer:
    def stream(self, count):
        for i in range(count):
            yield np.full(BIG, i)

    async def stream_async(self, count):
        for i in range(count):
            yield np.full(BIG, i)

    def total(self, refs):
        return sum(int(runtime.get(ref)[0]) for ref in refs)


def note(log, what):
    with open(log, "a") as file:
        file.write(f"{what}\n")


def noted(log):
    return log.read_text().split()


def first(ref, timeout=30):
    return int(runtime.get(ref, timeout=timeout)[0])


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log"
    path.touch()
    return path


# After the generator's end --------------------------------------------------------------------------------------------


def test_a_lost_value_is_made_again_and_the_run_ends_with_it(shared_native, log):
    @runtime.remote
    def endless_the_second_time(log):
        again = bool(noted(log))
        try:
            for i in range(1 << 30 if again else 5):
                yield np.full(BIG * (1 + (i == 2)), i)
        finally:
            note(log, "end")

    refs = list(endless_the_second_time.remote(log))
    kept = runtime.get(refs)
    assert lose_blocks(at_least=16 * BIG) == 1
    assert first(refs[2]) == first(refs[2]) == 2
    assert runtime.get(refs[1]).ctypes.data == kept[1].ctypes.data, "others stay as they are"
    assert [array[0] for array in kept] == list(range(5)), "views of what is lost stay valid"
    wait_until(lambda: len(noted(log)) == 2)


def test_all_that_is_lost_is_made_again_whoever_asks_first(shared_native, log):
    refs = list(stream.remote(log, 4))
    lose_blocks()
    assert [first(ref) for ref in reversed(refs)] == [3, 2, 1, 0]
    lose_blocks()
    assert [int(array[0]) for array in runtime.get(refs, timeout=30)] == [0, 1, 2, 3]


def test_what_was_not_taken_yet_is_made_again_too(shared_native, log):
    generator = stream.remote(log, 3)
    runtime.get(generator.completed())
    lose_blocks()
    assert [first(ref) for ref in generator] == [0, 1, 2]


def test_values_that_were_dropped_are_left_out(shared_native, log):
    refs = list(stream.remote(log, 3))
    del refs[0]
    lose_blocks()
    assert [first(ref) for ref in refs] == [1, 2]


def test_what_they_were_made_from_and_what_was_made_from_them(shared_native, log):
    @runtime.remote
    def scaled(log, array):
        note(log, "scaled")
        for i in range(3):
            yield array * i

    refs = list(scaled.remote(log, double.remote(log, next(stream.remote(log, 2, 5)))))
    ends = [double.remote(log, ref) for ref in refs]
    runtime.wait(ends, num_returns=3)
    del refs
    lose_blocks()
    assert [int(array[0]) for array in runtime.get(ends, timeout=30)] == [0, 0, 0]
    assert noted(log).count("scaled") == 2, "one run makes all of it again"


def test_an_argument_that_a_generator_yielded_is_made_again(shared_native, log):
    refs = list(stream.remote(log, 3))
    ends = [double.remote(log, ref) for ref in refs]
    runtime.wait(ends, num_returns=3)
    del refs
    lose_blocks()
    assert [first(ref) for ref in ends] == [0, 2, 4]


def test_a_borrower_waits_until_it_is_made_again(shared_native, log):
    refs = list(stream.remote(log, 4))
    lose_blocks()
    assert runtime.get(Producer.remote().total.remote(refs), timeout=30) == 6


@pytest.mark.parametrize("method", ["stream", "stream_async"])
def test_values_of_actors_are_made_again_if_their_calls_may_be_retried(shared_native, method):
    producer = Producer.options(max_restarts=1, max_task_retries=1).remote()
    refs = list(getattr(producer, method).remote(3))
    lose_blocks()
    assert [first(ref) for ref in refs] == [0, 1, 2]
    lose_blocks()
    with pytest.raises(runtime.ObjectReconstructionFailedError, match="max_task_retries"):
        first(refs[0])


def test_a_value_is_made_again_after_an_exception_of_the_generator(shared_native, log):
    @runtime.remote
    def two_and_fail():
        yield np.full(BIG, 1)
        yield np.full(BIG, 2)
        raise KeyError("the end")

    refs = list(two_and_fail.remote())
    lose_blocks()
    assert [first(ref) for ref in refs[:2]] == [1, 2]
    with pytest.raises(KeyError, match="the end"):
        runtime.get(refs[2])


# While it runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", [1, 3])
def test_a_value_that_is_lost_while_the_generator_waits_for_room(shared_native, log, taken):
    generator = stream.options(generator_backpressure=2).remote(log, 6)
    refs = [next(generator) for _ in range(taken)]
    runtime.wait([generator])
    lose_blocks()
    assert [first(ref) for ref in refs] == list(range(taken)), "what is taken is made again, though nobody takes more"
    refs += list(generator)
    assert [first(ref) for ref in refs] == list(range(6))


def test_an_endless_generator_goes_on_after_a_loss(shared_native, log):
    generator = stream.options(generator_backpressure=1).remote(log, 1 << 30)
    refs = [next(generator) for _ in range(3)]
    runtime.wait([generator])
    lose_blocks()
    assert [first(ref) for ref in refs] == [0, 1, 2]
    refs.append(next(generator))
    assert first(refs[3]) == 3
    assert noted(log).count("end") == 1, "one run was ended, to begin anew"
    generator.close()
    wait_until(lambda: noted(log).count("end") == 2)


def test_losses_while_lost_values_are_made_again(shared_native, log):
    """Each round loses everything; in between, any number of values is asked for and taken."""
    choose = random.Random(0)
    generator = stream.options(generator_backpressure=3, max_retries=-1).remote(log, 30)
    refs = []
    while len(refs) < 30:
        refs += [next(generator) for _ in range(min(choose.randrange(1, 4), 30 - len(refs)))]
        if choose.random() < 0.7:
            lose_blocks()
        for index in choose.sample(range(len(refs)), choose.randrange(len(refs))):
            assert first(refs[index]) == index
    assert list(generator) == []
    assert [first(ref) for ref in refs] == list(range(30))


def test_a_worker_that_is_killed_while_it_makes_values_again(shared_native, log, tmp_path):
    hold = tmp_path / "hold"

    @runtime.remote(max_retries=-1)
    def held(log, count):
        for i in range(count):
            note(log, os.getpid())
            if i == 2 and hold.exists():
                signal.pause()
            yield np.full(BIG, i)

    refs = list(held.remote(log, 4))
    for _ in range(5):
        hold.touch()
        before = len(noted(log))
        lose_blocks()
        waiting = refs[3].future()
        wait_until(lambda before=before: len(noted(log)) >= before + 3)
        hold.unlink()
        os.kill(int(noted(log)[-1]), signal.SIGKILL)
        assert waiting.result(30)[0] == 3
        assert [first(ref) for ref in refs] == [0, 1, 2, 3]


# The generator is dropped ---------------------------------------------------------------------------------------------


def test_values_outlive_their_generator_and_are_made_again(shared_native, log):
    generator = stream.options(generator_backpressure=1).remote(log, 1 << 30)
    refs = [next(generator) for _ in range(3)]
    del generator
    wait_until(lambda: noted(log)[-1] == "end")
    lose_blocks()
    assert [first(ref) for ref in refs] == [0, 1, 2]
    wait_until(lambda: noted(log).count("end") == 2)


def test_dropping_the_generator_while_a_value_is_made_again(shared_native, log, tmp_path):
    hold = tmp_path / "hold"

    @runtime.remote
    def held(log):
        for i in range(1 << 30):
            if hold.exists():
                note(log, "held")
                wait_until(lambda: not hold.exists())
            yield np.full(BIG, i)

    generator = held.options(generator_backpressure=2).remote(log)
    refs = [next(generator), next(generator)]
    hold.touch()
    lose_blocks()
    waiting = refs[1].future()
    generator.close()
    del generator
    hold.unlink()
    assert waiting.result(30)[0] == 1
    assert first(refs[0]) == 0


def test_dropping_all_of_it_while_values_are_made_again(shared_native, log, tmp_path):
    """That nothing is left of it is checked after the test."""
    hold = tmp_path / "hold"

    @runtime.remote
    def held():
        for i in range(1 << 30):
            wait_until(lambda: not hold.exists(), 30)
            yield np.full(BIG, i)

    generator = held.options(generator_backpressure=2).remote()
    refs = [next(generator), next(generator)]
    hold.touch()
    lose_blocks()
    with pytest.raises(runtime.GetTimeoutError):
        runtime.get(refs[0], timeout=0.01)
    del generator
    runtime.put(0)  # by now the runtime knows
    refs.clear()
    runtime.put(0)
    hold.unlink()


# Not made again -------------------------------------------------------------------------------------------------------


def test_without_retries_only_what_was_lost_fails(shared_native, log):
    generator = stream.options(generator_backpressure=1, max_retries=0).remote(log, 4)
    refs = [next(generator) for _ in range(2)]
    runtime.wait([generator])
    lose_blocks()
    with pytest.raises(runtime.ObjectReconstructionFailedError, match="max_retries"):
        first(refs[0])
    refs += list(generator)
    assert first(refs[3]) == 3
    assert noted(log) == ["0", "1", "2", "3", "end"]


def test_the_last_retry_that_a_run_has_used_is_gone(shared_native, log):
    generator = stream.options(generator_backpressure=1, max_retries=1).remote(log, 4)
    refs = [next(generator) for _ in range(2)]
    lose_blocks()
    assert [first(ref) for ref in refs] == [0, 1]
    lose_blocks(at_least=8 * BIG)
    with pytest.raises(runtime.ObjectReconstructionFailedError, match="max_retries"):
        first(refs[1])
    rest = list(generator)
    assert [first(ref) for ref in rest[-1:]] == [3]


def test_a_cancelled_generator_is_not_run_again(shared_native, log):
    generator = stream.options(generator_backpressure=1).remote(log, 4)
    ref = next(generator)
    runtime.cancel(generator)
    runtime.wait([generator.completed()])
    lose_blocks()
    with pytest.raises(runtime.ObjectReconstructionFailedError, match="was cancelled"):
        first(ref)


def test_a_generator_that_yields_fewer_values_the_next_time_says_so(shared_native, tmp_path):
    @runtime.remote(max_retries=-1)
    def fewer(marker):
        yield np.full(BIG, 0)
        if not marker.exists():
            marker.touch()
            yield np.full(BIG, 1)

    refs = list(fewer.remote(tmp_path / "marker"))
    lose_blocks()
    assert first(refs[0]) == 0
    with pytest.raises(runtime.ObjectReconstructionFailedError, match="must yield the same values each time"):
        first(refs[1])


def test_an_exception_while_it_is_made_again_is_its_value(shared_native, tmp_path):
    @runtime.remote
    def once(marker):
        if marker.exists():
            raise KeyError("the second time")
        marker.touch()
        yield np.zeros(BIG)

    [ref] = once.remote(tmp_path / "marker")
    lose_blocks()
    with pytest.raises(KeyError, match="the second time"):
        runtime.get(double.remote(os.devnull, ref), timeout=30)


# What is dropped before it begins ------------------------------------------------------------------------------------


def test_a_generator_that_is_dropped_before_its_turn_does_not_block_its_actor(shared_native, tmp_path):
    @runtime.remote
    class Busy:
        def wait_for(self, path):
            wait_until(path.exists)

        @runtime.method(num_returns="streaming", generator_backpressure=1)
        def endless(self):
            while True:
                yield 1

        def ping(self):
            return "here"

    busy = Busy.remote()
    busy.wait_for.remote(tmp_path / "go")
    generator = busy.endless.remote()
    del generator
    (tmp_path / "go").touch()
    assert runtime.get(busy.ping.remote(), timeout=30) == "here"


def test_what_is_taken_while_the_generator_waits_for_its_turn_counts(shared_native, tmp_path):
    """The second run waits behind another call, as the caller takes a value that was made by the first one."""
    gate = tmp_path / "gate"

    @runtime.remote(max_restarts=-1, max_task_retries=-1)
    class Busy:
        def stream(self, count):
            for i in range(count):
                yield np.full(BIG, i)

        def wait_for(self, path):
            wait_until(path.exists)

    busy = Busy.remote()
    generator = busy.stream.options(generator_backpressure=1).remote(4)
    refs = [next(generator)]
    runtime.wait([generator])
    busy.wait_for.remote(gate)
    lose_blocks()
    waiting = refs[0].future()
    refs.append(next(generator))
    gate.touch()
    assert waiting.result(30)[0] == 0
    refs += list(generator)
    assert [first(ref) for ref in refs] == [0, 1, 2, 3]


def test_the_cleanup_of_a_cancelled_generator_is_done_when_it_has_ended(shared_native, log):
    generator = stream.options(generator_backpressure=1).remote(log, 3)
    next(generator)
    runtime.wait([generator])
    runtime.cancel(generator)
    with pytest.raises(runtime.TaskCancelledError):
        runtime.get(generator.completed(), timeout=30)
    assert noted(log)[-1] == "end"


def test_what_an_actor_yielded_that_has_ended_cannot_be_made_again(shared_native):
    [ref] = Producer.options(max_restarts=-1, max_task_retries=-1).remote().stream.remote(1)
    wait_until(lambda: not any(row.state == "ALIVE" for row in runtime.state.list_actors()))
    lose_blocks()
    with pytest.raises(runtime.ObjectReconstructionFailedError, match="has ended"):
        first(ref)


def test_a_run_that_is_to_be_made_again_and_crashes_uses_one_retry(shared_native, tmp_path):
    crash = tmp_path / "crash"

    @runtime.remote(max_retries=1)
    def crash_when_closed():
        try:
            for i in range(4):
                yield np.full(BIG, i)
        except GeneratorExit:
            crash.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    generator = crash_when_closed.options(generator_backpressure=1).remote()
    refs = [next(generator)]
    runtime.wait([generator])
    lose_blocks()
    assert first(refs[0]) == 0
    assert crash.exists()
    refs += list(generator)
    assert [first(ref) for ref in refs] == [0, 1, 2, 3]
