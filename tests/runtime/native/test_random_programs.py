"""Random programs of tasks, actors and generators, on blocks that are lost and processes and nodes that are killed."""

import contextlib
import random
import subprocess
import time

import numpy as np
import psutil
import pytest
from conftest import shoal_processes, wait_until
from losses import lose_blocks
from nodes import alive, start_node

from shoal import runtime

pytestmark = pytest.mark.slow

SECONDS = 20.0
SIZES = (1, 700, 3000, 12_000, 20_000, 50_000, 200_000)  # inside messages, in shared memory, and enough to be spilled
STORE = 96 << 20


@runtime.remote(max_retries=-1)
def make(value, size):
    return np.full(size, value, np.int64)


@runtime.remote(max_retries=-1)
def add(first, second):
    size = min(len(first), len(second))
    return first[:size] + second[:size]


@runtime.remote(max_retries=-1, num_returns=2)
def next_and_triple(array, size):
    return array + 1, np.full(size, 3 * array[0], np.int64)


@runtime.remote(max_retries=-1)
def count_up(value, size, count):
    for i in range(count):
        yield np.full(size, value + i, np.int64)


@runtime.remote(max_restarts=-1, max_task_retries=-1)
class Multiplier:
    def times(self, array, factor):
        return array * factor

    async def times_async(self, array, factor):
        return array * factor

    async def count_up(self, value, size, count):
        for i in range(count):
            yield np.full(size, value + i, np.int64)


class Program:
    """A random program: what it has made so far, as the number that fills the array beside the reference to it.

    Args:
        choose: what it does next.
        disturbances: what must change no value.
    """

    def __init__(self, choose, disturbances):
        self.choose, self.disturbances = choose, disturbances
        self.actors = [Multiplier.remote(), Multiplier.remote()]
        self.concurrent = Multiplier.options(max_concurrency=4).remote()
        self.made = []
        self.fresh = 0

    def run(self):
        """Make values from values, and read all that are left."""
        for _ in range(self.choose.randrange(5, 40)):
            if len(self.made) < 2:
                self.make()
            else:
                step = self.choose.choice([self.make, self.combine, self.call, self.stream, self.read, self.disturb])
                step()
        self.choose.shuffle(self.made)
        for value, ref in self.made:
            check(ref, value)
        self.made = []

    def disturb(self):
        self.choose.choice(self.disturbances)()

    def size(self):
        return self.choose.choice(SIZES)

    def number(self, count=1):
        """Return a number that nothing else of this program is filled with, and keep the next ones free."""
        self.fresh += count
        return 1000 + self.fresh - count

    def make(self):
        value = self.number()
        self.made.append((value, make.remote(value, self.size())))

    def combine(self):
        (first, left), (second, right) = self.choose.sample(self.made, 2)
        self.made.append((first + second, add.remote(left, right)))
        more, triple = next_and_triple.remote(left, self.size())
        self.made += [(first + 1, more), (3 * first, triple)]
        if self.choose.random() < 0.5:
            self.made.pop(self.choose.randrange(len(self.made)))

    def call(self):
        value, ref = self.choose.choice(self.made)
        factor = self.choose.randrange(5)
        actor = self.choose.choice([*self.actors, self.concurrent])
        method = actor.times_async if actor is self.concurrent else actor.times
        self.made.append((factor * value, method.remote(ref, factor)))

    def stream(self):
        count = self.choose.randrange(1, 6)
        first = self.number(count)
        make_them = self.choose.choice([count_up, self.concurrent.count_up])
        window = self.choose.choice([0, 1, 2])
        generator = make_them.options(generator_backpressure=window).remote(first, self.size(), count)
        for i in range(self.choose.randrange(count + 1)):  # the others are dropped with the generator
            self.made.append((first + i, next(generator)))

    def read(self):
        some = self.choose.sample(self.made, min(len(self.made), 6))
        refs = [ref for _, ref in some]
        ready, _ = runtime.wait(refs, num_returns=self.choose.randrange(len(refs)) + 1, timeout=60)
        for value, ref in some:
            if ref in ready:
                check(ref, value)


def check(ref, value):
    array = runtime.get(ref, timeout=100)
    assert len(array) > 0
    assert (array == value).all(), (value, array.min(), array.max())


def kill_a_worker(choose):
    with contextlib.suppress(psutil.Error, IndexError):
        workers = [one for one in shoal_processes() if any(n in one.cmdline()[0] for n in ("worker", "Multiplier"))]
        choose.choice(workers).kill()


def run_programs(choose, disturbances):
    program, end = Program(choose, disturbances), time.monotonic() + SECONDS
    while time.monotonic() < end:
        program.run()


def test_no_value_is_wrong_while_blocks_are_lost_and_workers_killed():
    choose = random.Random(1)
    runtime.init("native", num_cpus=4, object_store_memory=STORE)
    run_programs(choose, [lambda: lose_blocks(choose.choice([0, 8_000, 100_000])), lambda: kill_a_worker(choose)])
    runtime.shutdown()


def test_no_value_is_wrong_while_nodes_are_killed_too():
    choose = random.Random(2)
    runtime.init("native", num_cpus=2, object_store_memory=STORE, listen="127.0.0.1:0")
    nodes: list[subprocess.Popen] = []

    def replace_a_node():
        if len(nodes) == 2 and choose.random() < 0.3:
            nodes[0].kill()
            nodes.pop(0).wait()
        if len(nodes) < 2:
            nodes.append(start_node("--num-cpus", "2", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    replace_a_node()
    replace_a_node()
    wait_until(lambda: len(alive()) == 3)
    try:
        run_programs(choose, [lose_blocks, lambda: kill_a_worker(choose), replace_a_node])
    finally:
        runtime.shutdown()
        for node in nodes:  # one that was just about to join would wait for a head
            node.kill()
            node.wait()
