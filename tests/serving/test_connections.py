"""Who may be connected, and for how long: events in, drops out."""

import pytest

from shoal.rl.serving.connections import Connections, Limits, Phase
from shoal.rl.serving.log_limit import LogLimit


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Client:
    """A connection in a phase that the test sets; `request` tells one stay in it from another."""

    def __init__(self, phase=Phase.HEAD):
        self.phase, self.request, self.dropped = phase, 0, []

    @property
    def mark(self):
        return self.phase, self.request

    def drop(self, phase=None):
        self.dropped.append(phase)


@pytest.fixture
def clock():
    return Clock()


def connections(clock, **limits):
    return Connections(Limits(head_seconds=10, body_seconds=30, write_seconds=5, **limits), clock)


@pytest.mark.parametrize(("phase", "seconds"), [(Phase.HEAD, 10), (Phase.BODY, 30), (Phase.WRITE, 5)])
def test_each_phase_has_its_time(clock, phase, seconds):
    known, client = connections(clock), Client(phase)
    assert known.admit(client, "a")
    clock.now = seconds
    known.sweep()
    assert client.dropped == []
    clock.now = seconds + 0.1
    known.sweep()
    assert client.dropped == [phase]


def test_an_answer_has_no_time_here(clock):
    known, client = connections(clock), Client(Phase.ANSWER)
    known.admit(client, "a")
    clock.now = 1e9
    known.sweep()
    assert client.dropped == []


def test_a_client_that_goes_on_asking_stays(clock):
    known, client = connections(clock), Client()
    known.admit(client, "a")
    for _ in range(10):
        clock.now += 8
        client.request += 1
        known.sweep()
    assert client.dropped == []
    clock.now += 11
    known.sweep()
    assert client.dropped == [Phase.HEAD]


def test_the_one_that_kept_us_waiting_longest_gives_way(clock):
    known = connections(clock, in_all=3)
    clients = [Client(Phase.ANSWER), Client(Phase.BODY), Client()]
    for client in clients:
        known.admit(client, "a")
        clock.now += 1
    assert known.admit(Client(), "b")
    assert [client.dropped for client in clients] == [[], [None], []]
    assert len(known) == 3


def test_those_that_are_being_answered_stay_and_others_are_refused(clock):
    known = connections(clock, in_all=2)
    clients = [Client(Phase.ANSWER), Client(Phase.ANSWER)]
    assert all(known.admit(client, "a") for client in clients)
    assert not known.admit(Client(), "b")
    known.forget(clients[0])
    assert known.admit(Client(), "b")
    assert [client.dropped for client in clients] == [[], []]


def test_a_client_with_too_many_makes_room_among_its_own(clock):
    known = connections(clock, in_all=4, per_client=2)
    other, mine = Client(), [Client(), Client(), Client()]
    known.admit(other, "other")
    for client in mine:
        clock.now += 1
        assert known.admit(client, "me")
    assert mine[0].dropped == [None]
    assert other.dropped == []
    for client in mine[1:]:
        client.phase = Phase.ANSWER
    assert not known.admit(Client(), "me")
    assert known.admit(Client(), "third")


def test_closing_drops_all_but_those_that_are_being_answered(clock):
    known = connections(clock)
    clients = {phase: Client(phase) for phase in Phase}
    for client in clients.values():
        known.admit(client, "a")
    known.close()
    assert {phase for phase, client in clients.items() if client.dropped} == set(Phase) - {Phase.ANSWER}


def record(text, *args):
    import logging

    return logging.LogRecord("shoal.http", logging.WARNING, __file__, 1, text, args, None)


def test_a_log_that_cannot_be_flooded(clock):
    limit = LogLimit(most=2, seconds=60, clock=clock)
    assert [limit.filter(record("bad %s", number)) for number in range(5)] == [True, True, False, False, False]
    assert limit.filter(record("another"))
    clock.now = 60
    again = record("bad %s", 6)
    assert limit.filter(again)
    assert again.getMessage() == "bad 6 (3 more like it were left out)"
