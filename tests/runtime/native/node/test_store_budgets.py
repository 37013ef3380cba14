"""Who may use how much of the object store: budgets, waiting, what moves to disk, when it is given up."""

import pytest

from shoal.runtime.native.node.store_budgets import CallMe, Refuse, StoreBudgets, Tell
from shoal.runtime.native.protocol.process_messages import MemoryGranted, Movable, Spill, Trim

A, B, C = b"process1", b"process2", b"process3"
TOTAL = 1 << 26
MIB = 1 << 20


@pytest.fixture
def budgets():
    budgets = StoreBudgets(TOTAL)
    for process in (A, B, C):
        budgets.joined(process)
    return budgets


def done(budgets, *kinds):
    """Take the commands, of all kinds or of some: of messages that are to be told, or other commands."""
    commands = [c for c in budgets.commands if not kinds or isinstance(c.message if isinstance(c, Tell) else c, kinds)]
    budgets.commands.clear()
    return commands


def answer_trim(budgets, now, **movable):
    for process, name in ((A, "a"), (B, "b"), (C, "c")):
        budgets.trimmed(process, movable.get(name, []), False, now)


def test_a_grant_is_a_step_ahead_of_the_need(budgets):
    budgets.wanted(A, 1, 1000, 0.0)
    assert done(budgets) == [Tell(A, MemoryGranted(1, MIB))]
    budgets.wanted(B, 2, 5 * MIB, 0.0)
    assert done(budgets) == [Tell(B, MemoryGranted(2, 5 * MIB))]
    assert budgets.free == TOTAL - 6 * MIB


def test_what_is_larger_than_all_is_refused_at_once(budgets):
    budgets.wanted(A, 1, TOTAL + 1, 0.0)
    assert done(budgets) == [Refuse(A, 1, TOTAL + 1, too_large=True)]


def test_a_full_store_asks_all_and_grants_what_comes_back(budgets):
    budgets.wanted(A, 1, TOTAL - MIB, 0.0)
    done(budgets)
    budgets.wanted(B, 2, 3 * MIB, 0.0)
    assert {command.process for command in done(budgets, Trim)} == {A, B, C}
    budgets.returned(A, MIB, 0.1)
    assert done(budgets, MemoryGranted) == []
    budgets.returned(A, 2 * MIB, 0.1)
    assert done(budgets, MemoryGranted) == [Tell(B, MemoryGranted(2, 3 * MIB))]


def test_the_first_to_wait_is_the_first_to_be_granted(budgets):
    budgets.wanted(A, 1, TOTAL, 0.0)
    budgets.wanted(B, 2, 4 * MIB, 0.0)
    budgets.wanted(C, 3, MIB, 0.0)
    done(budgets)
    budgets.returned(A, 2 * MIB, 0.0)
    assert done(budgets, MemoryGranted) == []
    budgets.returned(A, 3 * MIB, 0.0)
    assert done(budgets, MemoryGranted) == [Tell(B, MemoryGranted(2, 4 * MIB)), Tell(C, MemoryGranted(3, MIB))]


def test_the_least_recently_used_of_all_move_first(budgets):
    budgets.wanted(A, 1, TOTAL, 0.0)
    budgets.wanted(B, 2, 8 * MIB, 0.0)
    done(budgets)
    answer_trim(
        budgets,
        0.1,
        a=[Movable(b"old", 4 * MIB, 1.0), Movable(b"new", 4 * MIB, 9.0)],
        c=[Movable(b"older", 4 * MIB, 0.5), Movable(b"newest", 4 * MIB, 10.0)],
    )
    asked = done(budgets, Spill)
    assert {command.process: command.message.objects for command in asked} == {A: [b"old"], C: [b"older"]}


def test_only_rounds_without_any_use_end_the_patience(budgets):
    budgets.wanted(A, 1, TOTAL, 0.0)
    budgets.wanted(B, 2, MIB, 0.0)
    now = 0.0
    for _ in range(10):  # something moves in each round
        now += 1.0
        answer_trim(budgets, now, a=[Movable(b"some", MIB, 1.0)])
        budgets.spilled(A, MIB, now)
        budgets.tick(now)
        assert done(budgets, Refuse) == []
    while not (refused := done(budgets, Refuse)):
        now += 1.0
        answer_trim(budgets, now)
        budgets.tick(now)
        assert now < 20
    assert refused == [Refuse(B, 2, MIB, too_large=False)]


def test_all_look_for_garbage_before_somebody_is_refused(budgets):
    budgets.wanted(A, 1, TOTAL, 0.0)
    budgets.wanted(B, 2, MIB, 0.0)
    now = 0.0

    def until_last():
        nonlocal now
        while not any(command.message.last for command in done(budgets, Trim)):
            now += 1.0
            answer_trim(budgets, now)
            budgets.tick(now)

    until_last()
    budgets.returned(A, MIB // 2, now)  # garbage held that
    answer_trim(budgets, now)
    budgets.tick(now + 0.5)
    assert {command.message.last for command in done(budgets, Trim, Refuse)} == {False}
    until_last()
    answer_trim(budgets, now)
    budgets.tick(now + 0.1)  # what garbage has held of others' is still on its way
    assert done(budgets, Trim, Refuse) == []
    budgets.tick(now + 0.5)
    assert done(budgets, Refuse) == [Refuse(B, 2, MIB, too_large=False)]


def test_who_does_not_answer_holds_up_nobody_for_long(budgets):
    budgets.wanted(A, 1, TOTAL, 0.0)
    budgets.wanted(B, 2, MIB, 0.0)
    done(budgets)
    budgets.trimmed(A, [Movable(b"some", MIB, 1.0)], False, 0.1)
    assert done(budgets, Spill) == []
    budgets.tick(0.6)
    assert done(budgets, Spill) == [Tell(A, Spill([b"some"]))]


def test_a_dead_process_waits_for_nothing_and_gives_all_back(budgets):
    budgets.wanted(A, 1, TOTAL, 0.0)
    budgets.wanted(B, 2, MIB, 0.0)
    budgets.wanted(C, 3, MIB, 0.0)
    done(budgets)
    budgets.process_died(B, 0, 0.1)
    budgets.process_died(A, 5 * MIB, 0.2)  # others hold some of what it made
    assert [command.process for command in done(budgets, MemoryGranted)] == [C]
    assert budgets.free == TOTAL - 6 * MIB
    budgets.dead_changed(0, 0.3)
    assert budgets.free == TOTAL - MIB


def test_an_idle_store_asks_for_nothing(budgets):
    budgets.wanted(A, 1, TOTAL, 0.0)
    budgets.wanted(B, 2, MIB, 0.0)
    budgets.returned(A, 2 * MIB, 0.0)
    done(budgets)
    answer_trim(budgets, 0.1)
    assert done(budgets) == [CallMe(0.02)]
    budgets.tick(0.2)
    assert done(budgets) == []
