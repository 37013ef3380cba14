"""Who may use how much of the object store: budgets, waiting, what moves to disk, when it is given up."""

import pytest

from shoal.runtime.native.node.capacity import AskSpill, AskTrim, CallMe, Capacity, Grant, Refuse
from shoal.runtime.native.protocol.store_messages import Movable

A, B, C = b"process1", b"process2", b"process3"
TOTAL = 1 << 26
MIB = 1 << 20


@pytest.fixture
def capacity():
    capacity = Capacity(TOTAL)
    for process in (A, B, C):
        capacity.joined(process)
    return capacity


def done(capacity, *kinds):
    commands = [command for command in capacity.commands if not kinds or isinstance(command, kinds)]
    capacity.commands.clear()
    return commands


def answer_trim(capacity, now, **movable):
    for process, name in ((A, "a"), (B, "b"), (C, "c")):
        capacity.trimmed(process, movable.get(name, []), False, now)


def test_a_grant_is_a_step_ahead_of_the_need(capacity):
    capacity.wanted(A, 1, 1000, 0.0)
    assert done(capacity) == [Grant(A, 1, MIB)]
    capacity.wanted(B, 2, 5 * MIB, 0.0)
    assert done(capacity) == [Grant(B, 2, 5 * MIB)]
    assert capacity.free == TOTAL - 6 * MIB


def test_what_is_larger_than_all_is_refused_at_once(capacity):
    capacity.wanted(A, 1, TOTAL + 1, 0.0)
    assert done(capacity) == [Refuse(A, 1, TOTAL + 1, too_large=True)]


def test_a_full_store_asks_all_and_grants_what_comes_back(capacity):
    capacity.wanted(A, 1, TOTAL - MIB, 0.0)
    done(capacity)
    capacity.wanted(B, 2, 3 * MIB, 0.0)
    assert {command.process for command in done(capacity, AskTrim)} == {A, B, C}
    capacity.returned(A, MIB, 0.1)
    assert done(capacity, Grant) == []
    capacity.returned(A, 2 * MIB, 0.1)
    assert done(capacity, Grant) == [Grant(B, 2, 3 * MIB)]
    assert not capacity.is_full


def test_the_first_to_wait_is_the_first_to_be_granted(capacity):
    capacity.wanted(A, 1, TOTAL, 0.0)
    capacity.wanted(B, 2, 4 * MIB, 0.0)
    capacity.wanted(C, 3, MIB, 0.0)
    done(capacity)
    capacity.returned(A, 2 * MIB, 0.0)
    assert done(capacity, Grant) == []
    capacity.returned(A, 3 * MIB, 0.0)
    assert done(capacity, Grant) == [Grant(B, 2, 4 * MIB), Grant(C, 3, MIB)]


def test_the_least_recently_used_of_all_move_first(capacity):
    capacity.wanted(A, 1, TOTAL, 0.0)
    capacity.wanted(B, 2, 8 * MIB, 0.0)
    done(capacity)
    answer_trim(
        capacity,
        0.1,
        a=[Movable(b"old", 4 * MIB, 1.0), Movable(b"new", 4 * MIB, 9.0)],
        c=[Movable(b"older", 4 * MIB, 0.5), Movable(b"newest", 4 * MIB, 10.0)],
    )
    asked = done(capacity, AskSpill)
    assert {command.process: command.objects for command in asked} == {A: [b"old"], C: [b"older"]}


def test_only_rounds_without_any_use_end_the_patience(capacity):
    capacity.wanted(A, 1, TOTAL, 0.0)
    capacity.wanted(B, 2, MIB, 0.0)
    now = 0.0
    for _ in range(10):  # something moves in each round
        now += 1.0
        answer_trim(capacity, now, a=[Movable(b"some", MIB, 1.0)])
        capacity.spilled(A, MIB, now)
        capacity.tick(now)
        assert done(capacity, Refuse) == []
    while not (refused := done(capacity, Refuse)):
        now += 1.0
        answer_trim(capacity, now)
        capacity.tick(now)
        assert now < 20
    assert refused == [Refuse(B, 2, MIB, too_large=False)]


def test_who_does_not_answer_holds_up_nobody_for_long(capacity):
    capacity.wanted(A, 1, TOTAL, 0.0)
    capacity.wanted(B, 2, MIB, 0.0)
    done(capacity)
    capacity.trimmed(A, [Movable(b"some", MIB, 1.0)], False, 0.1)
    assert done(capacity, AskSpill) == []
    capacity.tick(0.6)
    assert done(capacity, AskSpill) == [AskSpill(A, [b"some"])]


def test_a_dead_process_waits_for_nothing_and_gives_all_back(capacity):
    capacity.wanted(A, 1, TOTAL, 0.0)
    capacity.wanted(B, 2, MIB, 0.0)
    capacity.wanted(C, 3, MIB, 0.0)
    done(capacity)
    capacity.process_died(B, 0, 0.1)
    capacity.process_died(A, 5 * MIB, 0.2)  # others hold some of what it made
    assert [command.process for command in done(capacity, Grant)] == [C]
    assert capacity.free == TOTAL - 6 * MIB
    capacity.dead_changed(0, 0.3)
    assert capacity.free == TOTAL - MIB


def test_an_idle_store_asks_for_nothing(capacity):
    capacity.wanted(A, 1, TOTAL, 0.0)
    capacity.wanted(B, 2, MIB, 0.0)
    capacity.returned(A, 2 * MIB, 0.0)
    done(capacity)
    answer_trim(capacity, 0.1)
    assert done(capacity) == [CallMe(0.02)]
    capacity.tick(0.2)
    assert done(capacity) == []
