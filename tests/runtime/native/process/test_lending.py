"""When a wait lends its CPU: what a reactor does is written out, and what comes of it is looked at."""

import threading
import time
from collections import deque

import pytest

from shoal.runtime.native.process.lending import Lending
from shoal.runtime.native.process.objects import ObjectTable
from shoal.runtime.native.process.reactor import Waiter
from shoal.runtime.native.protocol import messages as m
from shoal.runtime.native.protocol.messages import Value

ME, OWNER = b"process1", b"process2"
VALUE = Value(b"value")


class WaitsForEver(Exception):
    """Nothing more will be read."""


class Reactor:
    """Reads what it is told to have read, one thing a poll; then it waits until the deadline, or for ever."""

    def __init__(self):
        self.arrivals = deque()

    def read_arrived(self):
        if self.arrivals:
            self.arrivals.popleft()()
        return True

    def wait(self, waiter, deadline=None, until=None):
        while not waiter.ready and not (until is not None and until()):
            if deadline is not None and not self.arrivals:
                return False
            if not self.arrivals:
                raise WaitsForEver
            self.arrivals.popleft()()
        return waiter.ready


@pytest.fixture
def world():
    return World()


class World:
    def __init__(self):
        self.reactor, self.objects = Reactor(), ObjectTable(ME)
        self.lending = Lending(self.reactor, threading.RLock(), self.objects)
        self.lent = []
        self.lending.lender = self
        self.has_cpu = True
        self.next = None

    def on_block(self):
        pass

    def can_lend(self):
        return self.has_cpu

    def lend(self):
        self.lent.append(True)
        if self.next is not None:
            self.arrives(self.next)

    def take_back(self):
        self.lent.append(False)

    def borrowed(self, number):
        object_id = OWNER + number.to_bytes(8, "big")
        self.objects.hold(object_id, 1)
        record = self.objects.records[object_id]
        record.asked, record.waiters = True, []
        return object_id, record

    def arrives(self, object_id):
        self.reactor.arrivals.append(lambda: self.objects.fulfil(object_id, VALUE))

    def is_absent(self, object_id):
        self.reactor.arrivals.append(lambda: self.lending.on_not_yet(None, m.NotYet(object_id)))

    def wait(self, *awaited, timeout=None, count=None):
        waiter = Waiter(len(awaited) if count is None else count)
        for _, record in awaited:
            record.waiters.append(waiter.notify)
        deadline = None if timeout is None else time.monotonic() + timeout
        self.lending.wait(waiter, deadline, [record for _, record in awaited if record.asked])
        return waiter.ready


def test_what_exists_lends_nothing_however_long_its_owner_takes_to_answer(world):
    one = world.borrowed(1)
    world.reactor.arrivals += [lambda: None] * 100
    world.arrives(one[0])
    assert world.wait(one)
    assert world.lent == []


def test_without_an_answer_nothing_is_lent(world):
    with pytest.raises(WaitsForEver):
        world.wait(world.borrowed(1))
    assert world.lent == []


def test_what_does_not_exist_yet_lends_until_it_is_there(world):
    one, two = world.borrowed(1), world.borrowed(2)
    world.arrives(one[0])
    world.is_absent(two[0])
    world.next = two[0]
    assert world.wait(one, two)
    assert world.lent == [True, False]
    assert all(record.waiters is None for _, record in (one, two))


def test_what_this_process_makes_itself_needs_no_answer(world):
    mine = ME + bytes(8)
    record = world.objects.create(mine)
    record.waiters = []
    world.next = mine
    assert world.wait((mine, record))
    assert world.lent == [True, False]


def test_what_has_arrived_is_read_before_anything_is_lent(world):
    mine = ME + bytes(8)
    record = world.objects.create(mine)
    record.waiters = []
    world.arrives(mine)
    assert world.wait((mine, record))
    assert world.lent == []


def test_enough_is_enough_though_of_others_nothing_is_known(world):
    one, two = world.borrowed(1), world.borrowed(2)
    world.arrives(one[0])
    assert world.wait(one, two, count=1)
    assert world.lent == []
    assert two[1].waiters is not None
    assert len(two[1].waiters) == 1  # only what `wait` itself has put there


def test_a_time_limit_ends_each_part_of_the_wait(world):
    assert not world.wait(world.borrowed(1), timeout=0.0)
    absent = world.borrowed(2)
    world.is_absent(absent[0])
    assert not world.wait(absent, timeout=0.0)
    assert world.lent == []
    absent[1].absent = True
    assert not world.wait(absent, timeout=10.0)
    assert world.lent == [True, False]


def test_who_has_no_cpu_lends_none(world):
    world.has_cpu = False
    one = world.borrowed(1)
    world.is_absent(one[0])
    world.arrives(one[0])
    assert world.wait(one)
    assert world.lent == []
