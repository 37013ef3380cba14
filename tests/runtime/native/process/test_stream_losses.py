"""Generators whose values are lost at any moment, as they are taken, dropped and passed on, and workers are killed."""

import contextlib
import random
import time

import numpy as np
import psutil
import pytest
from conftest import shoal_processes, wait_until
from losses import lose_blocks

from shoal import runtime
from shoal.runtime.core.engine import current_engine

BIG = 20_000


@runtime.remote(max_retries=-1)
def stream(first, count):
    for i in range(count):
        yield np.full(BIG, first + i)


@runtime.remote(max_retries=-1)
def double(array):
    return array * 2


@runtime.remote(max_restarts=-1, max_task_retries=-1)
class Producer:
    def stream(self, first, count):
        for i in range(count):
            yield np.full(BIG, first + i)

    async def stream_async(self, first, count):
        for i in range(count):
            yield np.full(BIG, first + i)


class Taken:
    """A generator and what was taken of it."""

    def __init__(self, choose, first):
        self.first, self.count, self.taken = first, choose.choice([1, 3, 10]), 0
        self.refs = []
        self.actor = Producer.remote() if choose.random() < 0.3 else None
        make = stream if self.actor is None else choose.choice([self.actor.stream, self.actor.stream_async])
        self.generator = make.options(generator_backpressure=choose.choice([0, 1, 3])).remote(first, self.count)

    def take(self):
        ref = None
        if self.generator is not None:
            assert runtime.wait([self.generator], timeout=30)[0], "the next value did not come"
            ref = next(self.generator, None)
        if ref is not None:
            self.refs.append((self.first + self.taken, ref))
            self.taken += 1
        return ref is not None


def kill_a_worker(choose):
    with contextlib.suppress(psutil.Error, IndexError):
        process = choose.choice([one for one in shoal_processes() if "shoal: worker" in one.cmdline()[0]])
        process.kill()  # which knows if it has just ended


def look(choose, taken, made):
    """Do one thing with what there is."""
    what, one = choose.randrange(8), choose.choice(taken)
    if what < 3:
        one.take()
    elif what == 3:
        lose_blocks()
    elif what == 4 and one.refs:
        value, ref = choose.choice(one.refs)
        assert runtime.get(ref, timeout=30)[-1] == value
    elif what == 5 and one.refs:
        value, ref = one.refs.pop(choose.randrange(len(one.refs)))
        made.append((2 * value, double.remote(ref)))
    elif what == 6:
        kill_a_worker(choose)
    elif what == 7 and choose.random() < 0.3:
        one.generator = None


def one_round(choose, number):
    taken = [Taken(choose, 1000 * number + 100 * i) for i in range(choose.randrange(1, 4))]
    made = []
    for _ in range(choose.randrange(5, 30)):
        look(choose, taken, made)
    for one in taken:
        while one.take():
            pass
        assert one.generator is None or one.taken == one.count
    lose_blocks()
    for value, ref in choose.sample([*made, *(pair for one in taken for pair in one.refs)], len(made)):
        assert runtime.get(ref, timeout=30)[0] == value
    for value, ref in [pair for one in taken for pair in one.refs]:
        assert runtime.get(ref, timeout=30)[0] == value


def is_empty():
    sizes = current_engine().parts.table_sizes()
    return not any(sizes[table] for table in ("records", "calls", "on_gone", "lineage"))


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_all_values_are_right_and_nothing_is_left(native, seed):
    choose, number = random.Random(seed), 0
    end = time.monotonic() + (1 if seed == 1 else 30)
    while time.monotonic() < end:
        number += 1
        one_round(choose, number)
        wait_until(is_empty)
    wait_until(lambda: runtime.available_resources() == runtime.cluster_resources())
