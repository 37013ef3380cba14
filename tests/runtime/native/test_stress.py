"""Many things at once, and workers killed at random moments: results stay right and nothing is left in any table."""

import contextlib
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
from conftest import shoal_processes, wait_until

from shoal import runtime
from shoal.runtime.core.engine import current_engine

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("native")]

SHORT = 1.0
LONG = 45.0
FEWEST_KILLS = 3


@runtime.remote(max_retries=-1)
def square(x):
    return x * x


@runtime.remote(max_retries=-1)
def array_of(seed, size):
    return np.full(size, seed, np.float64)


@runtime.remote(max_retries=-1)
def total(array, box):
    return float(array.sum()) + sum(float(part.sum()) for part in runtime.get(box))


@runtime.remote(max_retries=-1)
def nested(depth, seed):
    if depth == 0:
        return [runtime.put(np.full(20_000, seed, np.float64))]
    return [nested.remote(depth - 1, seed)]


@runtime.remote
class Keeper:
    """Keeps references and arrays that others gave it, and passes them on."""

    def __init__(self):
        self.boxes = {}

    def keep(self, key, box):
        self.boxes[key] = box

    def pass_on(self, key, other):
        return runtime.get(other.keep.remote(key, self.boxes.pop(key)))

    def first_of(self, key):
        [ref] = self.boxes.pop(key)
        return float(runtime.get(ref)[-1])


@runtime.remote(max_restarts=-1, max_task_retries=-1)
class Echo:
    def echo(self, x):
        return x

    def big(self, seed):
        array = runtime.empty(30_000)
        array[:] = seed
        return {"array": array, "seed": seed}


def unfold(value):
    """Follow boxes of one reference down to the array."""
    while isinstance(value, list):
        value = runtime.get(value[0], timeout=60)
    return value


def use_everything(seed, seconds, wrong):
    """Do random things until the time is over; note what came out wrong."""
    choose = random.Random(seed)
    end = time.monotonic() + seconds
    keepers = [Keeper.remote() for _ in range(2)]
    held = []
    while time.monotonic() < end:
        number = choose.randrange(1000)
        what = choose.randrange(6)
        if what == 0:
            values = [choose.randrange(100) for _ in range(choose.randrange(1, 30))]
            if runtime.get([square.remote(v) for v in values], timeout=60) != [v * v for v in values]:
                wrong.append(("square", values))
        elif what == 1:
            size = choose.choice([10, 1000, 50_000])
            first, second = array_of.remote(number, size), runtime.put(np.full(size, number, np.float64))
            expected = float(3 * number * size)
            if runtime.get(total.remote(first, [first, second]), timeout=60) != expected:
                wrong.append(("total", number, size))
        elif what == 2:
            array = unfold(runtime.get(nested.remote(choose.randrange(3), number), timeout=60))
            if not (array == number).all():
                wrong.append(("nested", number))
            held.append((array, number))
        elif what == 3:
            key = choose.randrange(10**9)
            runtime.get(keepers[0].keep.remote(key, [array_of.remote(number, 20_000)]), timeout=60)
            runtime.get(keepers[0].pass_on.remote(key, keepers[1]), timeout=60)
            if runtime.get(keepers[1].first_of.remote(key), timeout=60) != number:
                wrong.append(("keeper", number))
        elif what == 4:
            runtime.get(Keeper.remote().keep.remote(0, [runtime.put(number)]), timeout=60)
        else:
            array_of.remote(number, 50_000)  # nobody wants it
        while len(held) > 5:
            array, number = held.pop(choose.randrange(len(held)))
            if not (array == number).all():
                wrong.append(("changed under a view", number))
            del array


def in_threads(work, count):
    """Run `work(number)` in threads; raise what any of them raised."""
    failures = []

    def guarded(number):
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def left_over():
    """Return what the driver's tables and the store still hold."""
    gc.collect()
    return current_engine().parts.table_sizes()


def use_and_check(seed, threads, seconds):
    wrong = []
    in_threads(lambda number: use_everything(f"{seed} {number}", seconds, wrong), threads)
    assert not wrong
    wait_until(lambda: not any(left_over().values()))
    wait_until(lambda: runtime.available_resources() == runtime.cluster_resources())


class Killer(threading.Thread):
    """Kills a random worker again and again, those that are just starting too."""

    def __init__(self, seed, pause):
        super().__init__()
        self.choose, self.pause = random.Random(seed), pause
        self.stopped = threading.Event()
        self.killed = 0

    def run(self):
        while not self.stopped.wait(self.choose.uniform(0, 2 * self.pause)):
            with contextlib.suppress(psutil.Error, ProcessLookupError, FileNotFoundError):
                titles = {process: " ".join(process.cmdline()) for process in shoal_processes()}
                workers = [process for process, title in titles.items() if "worker" in title or "Echo" in title]
                if workers:
                    os.kill(self.choose.choice(workers).pid, signal.SIGKILL)
                    self.killed += 1

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self.stopped.set()
        self.join()


def work_while_workers_die(seed, seconds):
    """Tasks and actors' calls in order, while workers are killed; return how many were killed."""
    choose = random.Random(seed)
    end = time.monotonic() + seconds
    echoes = [Echo.remote() for _ in range(2)]
    with Killer(seed, pause=0.05) as killer:
        while time.monotonic() < end or killer.killed < FEWEST_KILLS:  # however slow the machine is
            count = choose.randrange(1, 60)
            tasks = [square.remote(i) for i in range(count)]
            arrays = [array_of.remote(i, 20_000) for i in range(3)]
            calls = [echoes[i % 2].echo.remote(i) for i in range(count)]
            big = echoes[0].big.remote(count)
            assert runtime.get(tasks, timeout=60) == [i * i for i in range(count)]
            assert runtime.get(calls, timeout=60) == list(range(count))
            assert [array[-1] for array in runtime.get(arrays, timeout=60)] == [0, 1, 2]
            value = runtime.get(big, timeout=60)
            assert value["seed"] == count
            assert (value["array"] == count).all()
    del echoes, tasks, arrays, calls, big, value
    return killer.killed


@pytest.mark.parametrize("seed", [1, 2])
def test_threads_that_use_everything_leave_nothing_behind(seed):
    use_and_check(seed, threads=3, seconds=SHORT)


@pytest.mark.parametrize("seed", [1, 2])
def test_results_are_right_while_workers_are_killed(seed):
    assert work_while_workers_die(seed, SHORT) >= FEWEST_KILLS
    wait_until(lambda: not any(left_over().values()))
    wait_until(lambda: runtime.available_resources() == runtime.cluster_resources())


def test_calls_of_one_caller_arrive_in_order_though_the_actor_is_killed():
    @runtime.remote(max_restarts=-1, max_task_retries=-1)
    class Log:
        def __init__(self):
            self.seen = []

        def add(self, number):
            self.seen.append(number)
            return number

        def all(self):
            return self.seen

        def pid(self):
            return os.getpid()

    choose = random.Random(3)
    log = Log.remote()
    for round_ in range(5):
        pid = runtime.get(log.pid.remote(), timeout=30)
        refs = [log.add.remote(i) for i in range(200)]
        runtime.wait(refs, num_returns=choose.randrange(1, 150), timeout=30)
        os.kill(pid, signal.SIGKILL)
        assert runtime.get(refs, timeout=30) == list(range(200)), f"round {round_}"
        seen = runtime.get(log.all.remote(), timeout=30)
        assert seen == sorted(seen)


INTERRUPTED = """
import os, random, signal, threading, time
from shoal import runtime

@runtime.remote
class Echo:
    def echo(self, x):
        return x

@runtime.remote
def square(x):
    return x * x

runtime.init(num_cpus=2)
echo = Echo.remote()
runtime.get(echo.echo.remote(0))
stopped = threading.Event()
caught = 0

def interrupt():
    choose = random.Random(1)
    while not stopped.wait(choose.uniform(0, 0.004)):
        os.kill(os.getpid(), signal.SIGINT)

thread = threading.Thread(target=interrupt)
end = time.monotonic() + 1.5
i = 0
started = False
while True:
    try:
        if not started:
            started = True
            thread.start()
        while time.monotonic() < end or caught < 20:
            i += 1
            assert runtime.get([echo.echo.remote(i), square.remote(i)], timeout=20) == [i, i * i]
            runtime.put(bytes(200_000))
        stopped.set()
        thread.join()
        time.sleep(0.01)
        break
    except KeyboardInterrupt:
        caught += 1
assert runtime.get([echo.echo.remote(i) for i in range(100)], timeout=20) == list(range(100))
assert runtime.get([square.remote(i) for i in range(100)], timeout=20) == [i * i for i in range(100)]
assert caught >= 20, caught
runtime.shutdown()
print("fine", caught, i)
"""


def test_a_storm_of_ctrl_c_loses_nothing():
    runtime.shutdown()
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.startswith("fine"), done.stdout + done.stderr


@pytest.mark.timeout(600)
def test_threads_that_use_everything_for_long():
    use_and_check("long", threads=4, seconds=LONG)


@pytest.mark.timeout(600)
def test_results_are_right_while_workers_are_killed_for_long():
    assert work_while_workers_die("long", LONG) >= FEWEST_KILLS
    wait_until(lambda: not any(left_over().values()))
