"""Tasks, streams and calls, cancelled and killed at random moments: what is not cancelled gives its right value."""

import os
import random
import signal

import numpy as np
import psutil
import pytest
from conftest import shoal_processes, wait_until

from shoal import runtime
from shoal.runtime.core.engine import current_engine

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_native")]


@runtime.remote
def square(x):
    return x * x


@runtime.remote
def spin():
    while True:
        pass


@runtime.remote
def sum_of_squares(n):
    return sum(runtime.get([square.remote(i) for i in range(n)]))


@runtime.remote
def work(x):
    total = 0
    for i in range(2000):
        total += i
    return x, total


@runtime.remote
def arrays(n):
    for i in range(n):
        yield np.full(20_000, i)


def nothing_is_left():
    """Hold once all CPUs are free and no call is in any table."""
    wait_until(lambda: runtime.available_resources()["CPU"] == 2)
    wait_until(lambda: current_engine().parts.table_sizes()["calls"] == 0)


def outcome(ref):
    try:
        return runtime.get(ref, timeout=60)
    except runtime.TaskCancelledError:
        return None


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("force", [False, True])
def test_racing_cancels_never_hit_another_task(seed, force):
    choose = random.Random(seed)
    runtime.get([work.remote(0) for _ in range(200)])  # now known to be short: several are sent to one worker
    for _ in range(4 if force else 10):
        refs = [work.options(max_retries=0).remote(i) for i in range(100)]
        doomed = set(choose.sample(range(100), 4 if force else 30))
        for i in sorted(doomed, key=lambda _: choose.random()):
            if choose.random() < 0.3:
                runtime.wait([refs[choose.randrange(100)]], timeout=0)
            runtime.cancel(refs[i], force=force)
        for i, ref in enumerate(refs):
            value = outcome(ref)
            assert value == (i, 1999000) or (value is None and i in doomed)
    nothing_is_left()


def test_racing_cancels_of_parents_leave_nothing_behind():
    choose = random.Random(3)
    for _ in range(10):
        parents = [sum_of_squares.remote(10) for _ in range(8)]
        doomed = set(choose.sample(range(8), 4))
        for i in doomed:
            runtime.cancel(parents[i])
        for i, ref in enumerate(parents):
            value = outcome(ref)
            assert value == 285 or (value is None and i in doomed)
    nothing_is_left()


def test_racing_cancels_of_running_tasks():
    for _ in range(10):
        refs = [spin.remote() for _ in range(4)]
        values = [square.remote(i) for i in range(4)]
        for ref in refs:
            runtime.cancel(ref)
        assert [outcome(ref) for ref in refs] == [None] * 4
        assert runtime.get(values, timeout=60) == [0, 1, 4, 9]
    nothing_is_left()


def test_streams_dropped_and_cancelled_in_the_middle_leave_nothing_behind():
    choose = random.Random(4)
    for _ in range(20):
        generator = arrays.remote(30)
        for i in range(choose.randrange(5)):
            assert runtime.get(next(generator), timeout=60)[-1] == i
        if choose.random() < 0.5:
            runtime.cancel(generator)
        del generator
    nothing_is_left()
    assert runtime.get(square.remote(3)) == 9


def test_a_stream_goes_on_where_it_was_when_its_worker_is_killed(tmp_path):
    @runtime.remote(max_retries=-1, generator_backpressure=3)
    def numbers(n):
        (tmp_path / str(os.getpid())).touch()
        for i in range(n):
            yield os.getpid(), np.full(20_000, i)

    generator = numbers.remote(40)
    pids = set()
    for i, ref in enumerate(generator):
        pid, array = runtime.get(ref, timeout=60)
        assert array[0] == array[-1] == i
        if i % 10 == 5 and psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)
        pids.add(pid)
    assert i == 39
    assert len(list(tmp_path.iterdir())) > 1
    nothing_is_left()


def test_a_stream_whose_worker_is_killed_for_good_ends_with_the_error():
    @runtime.remote(max_retries=0)
    def one():
        yield os.getpid()
        while True:
            pass

    generator = one.remote()
    os.kill(runtime.get(next(generator), timeout=60), signal.SIGKILL)
    with pytest.raises(runtime.WorkerCrashedError):
        runtime.get(next(generator), timeout=60)
    assert list(generator) == []
    nothing_is_left()


def test_a_stream_of_an_actor_that_is_killed_ends_with_the_error():
    @runtime.remote
    class Source:
        def endless(self):
            while True:
                yield os.getpid()

    source = Source.remote()
    generator = source.endless.options(generator_backpressure=2).remote()
    runtime.get(next(generator), timeout=60)
    runtime.kill(source)
    refs = list(generator)
    with pytest.raises(runtime.ActorDiedError):
        runtime.get(refs[-1], timeout=60)
    wait_until(lambda: not any("Source" in " ".join(process.cmdline()) for process in shoal_processes()))
