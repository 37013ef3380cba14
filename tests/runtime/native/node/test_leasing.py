"""Workers on loan, with processes that exist in name only."""

import itertools

import pytest

from shoal.runtime.native.node.known_process import Process
from shoal.runtime.native.node.leasing import Leasing
from shoal.runtime.native.node.scheduler import Scheduler
from shoal.runtime.native.protocol import messages as m

ASKER = b"driver-1"


class Workers:
    """A node that can have so many workers."""

    def __init__(self, most):
        self.most, self.processes, self.numbers = most, {}, itertools.count()

    @property
    def room(self):
        return self.most - len(self.processes)

    def fork(self, title, environment=None):
        process = Process(b"worker-%d" % next(self.numbers), 0, title, registered=True, environment=environment)
        self.processes[process.id] = process
        return process


class Node:
    """Stands for the cluster, too."""

    def __init__(self, most):
        self.workers, self.told = Workers(most), []
        self.leasing = Leasing(
            Scheduler({"CPU": 100_000}, idle_slots=8),
            self.workers,
            self,
            lambda process, message: None,
            lambda seconds, action: None,
            [],
        )

    def tell(self, process, message):
        self.told.append((process, message))

    def lives(self, process):
        return process == ASKER

    def want(self, count, environment=None):
        request = m.WantLeases(1, {"CPU": 10_000}, count, m.Job(ASKER), environment)
        self.leasing.handlers[m.WantLeases](ASKER, request)

    def give_back(self, worker):
        self.leasing.handlers[m.ReturnLease](ASKER, m.ReturnLease(worker.id))

    def end(self, worker):
        del self.workers.processes[worker.id]
        self.leasing.ended(worker, "it was told to")
        self.leasing.grant()


@pytest.fixture
def node():
    return Node(most=2)


def test_who_waits_for_a_process_is_told_of_the_limit(node):
    node.want(5)
    assert len(node.workers.processes) == 2
    [request] = node.leasing.describe()[1]
    assert request.count == 3
    assert request.note.startswith("this node has 2 processes, as many as it can have")


def test_who_waits_for_resources_is_told_of_those():
    node = Node(most=20)
    node.want(11)
    assert "CPU 1 wanted" in node.leasing.describe()[1][0].note


def test_an_idle_worker_makes_room_for_one_that_is_needed(node):
    node.want(2)
    first, second = node.workers.processes.values()
    node.give_back(first)
    assert node.told == []
    node.want(1, m.Environment(b"other", {"A": "1"}, None, []))
    assert node.told == [(first.id, m.Exit())]
    node.end(first)
    assert [worker.environment is None for worker in node.workers.processes.values()] == [True, False]
    assert second.id in node.workers.processes


def test_what_a_dead_process_has_asked_for_a_thousand_times_is_dropped_with_the_first_worker():
    node = Node(most=20)
    request = m.WantLeases(1, {}, 1, m.Job(b"gone-one"))
    for _ in range(5000):
        node.leasing.place(m.Wish(b"gone-one", 1, request))
    node.leasing.grant()
    first, *_ = node.workers.processes.values()
    node.leasing.begin(first)
    assert node.leasing.describe()[1] == []
    assert first.lease is None
    assert node.told == []
