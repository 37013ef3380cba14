"""Reference counting and borrowing: by hand, and as a model that delivers messages between processes in any order."""

from collections import Counter, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.runtime.core.ids import owner_of
from shoal.runtime.native.process.objects import (
    FreeBlocks,
    Gone,
    ObjectTable,
    SendLend,
    SendRelease,
    spans_of,
)
from shoal.runtime.native.protocol.messages import Span, Value

ME, OTHER, THIRD = b"process0", b"process1", b"process2"
MINE, THEIRS = ME + b"object-1", OTHER + b"object-1"
BLOCK = Span(ME, 3, 64, 10, 1)


@pytest.fixture
def table():
    return ObjectTable(ME)


def commands(table):
    done = list(table.commands)
    table.commands.clear()
    return done


def test_the_last_local_reference_ends_an_own_object(table):
    table.create(MINE)
    table.hold(MINE)
    table.drop(MINE)
    assert commands(table) == []
    table.drop(MINE)
    assert commands(table) == [Gone(MINE)]
    assert not table.records
    assert table.hold(MINE) is None


def test_its_blocks_are_freed_with_it(table):
    table.create(MINE)
    table.fulfil(MINE, Value(BLOCK, (b"small", BLOCK)))
    table.drop(MINE)
    assert commands(table) == [Gone(MINE), FreeBlocks([BLOCK, BLOCK])]


def test_a_value_that_comes_after_the_last_reference_is_freed_at_once(table):
    assert not table.fulfil(MINE, Value(BLOCK))
    assert commands(table) == [FreeBlocks([BLOCK])]


def test_a_borrowed_value_is_not_the_borrowers_to_free(table):
    table.hold(THEIRS, given=1)
    table.fulfil(THEIRS, Value(BLOCK))
    table.drop(THEIRS)
    assert commands(table) == [SendRelease(THEIRS, 1)]
    assert not table.fulfil(THEIRS, Value(BLOCK))
    assert commands(table) == []


def test_a_borrower_says_how_many_references_it_was_given(table):
    table.hold(THEIRS, given=1)
    table.hold(THEIRS, given=1)
    table.hold(THEIRS)
    for _ in range(3):
        table.drop(THEIRS)
    assert commands(table) == [SendRelease(THEIRS, 2)]


def test_an_object_lives_while_it_is_borrowed(table):
    table.create(MINE)
    table.lend(MINE, OTHER)
    table.lend(MINE, OTHER)
    table.drop(MINE)
    table.released(MINE, OTHER, 1)
    assert commands(table) == []
    table.released(MINE, OTHER, 1)
    assert commands(table) == [Gone(MINE)]


def test_a_borrower_that_lends_tells_the_owner_but_not_about_the_owner_itself(table):
    table.hold(THEIRS, given=1)
    table.lend(THEIRS, THIRD)
    table.lend(THEIRS, OTHER)
    assert commands(table) == [SendLend(THEIRS, THIRD)]


def test_a_release_may_overtake_the_loan_that_it_answers(table):
    table.create(MINE)
    table.lend(MINE, OTHER)
    table.drop(MINE)
    table.released(MINE, THIRD, 1)  # OTHER lent it to THIRD, who has dropped it already
    table.lent(MINE, THIRD)
    assert MINE in table.records
    table.released(MINE, OTHER, 1)
    assert commands(table) == [Gone(MINE)]


def test_a_dead_borrower_holds_nothing_whatever_arrives_late(table):
    table.create(MINE)
    table.lend(MINE, OTHER)
    table.drop(MINE)
    assert table.process_died(OTHER) == []
    assert commands(table) == [Gone(MINE)]
    table.create(MINE)
    table.lent(MINE, OTHER)
    table.released(MINE, OTHER, 5)
    table.drop(MINE)
    assert commands(table) == [Gone(MINE)]


def test_objects_of_a_dead_owner_are_lost_if_their_value_is_not_all_here(table):
    ids = [OTHER + b"%08d" % number for number in range(3)]
    for object_id in ids:
        table.hold(object_id, given=1)
    table.fulfil(ids[1], Value(b"inline"))
    table.fulfil(ids[2], Value(b"", (BLOCK,)))
    assert table.process_died(OTHER) == [ids[0], ids[2]]


def test_waiters_are_called_once(table):
    called = []
    record = table.create(MINE)
    record.waiters = [lambda: called.append(1)]
    table.fulfil(MINE, Value(b""))
    assert called == [1]
    assert record.waiters is None


def test_references_inside_a_value_live_as_long_as_it(table):
    class Inner:
        gone = False

        def __del__(self):
            Inner.gone = True

    table.create(MINE)
    table.fulfil(MINE, Value(b""), Inner())
    assert not Inner.gone
    table.drop(MINE)
    assert Inner.gone


def test_it_owns_only_its_own(table):
    table.hold(THEIRS, given=1)
    assert not table.owns_any()
    table.create(MINE)
    assert table.owns_any()


def test_spans_and_owners_are_read_off():
    assert owner_of(THEIRS) == OTHER
    assert spans_of(Value(b"", (b"", BLOCK))) == [BLOCK]


class World:
    """Several processes with a table each, and first-in-first-out channels between each two of them."""

    def __init__(self, count):
        self.names = [b"process%d" % number for number in range(count)]
        self.tables = {name: ObjectTable(name) for name in self.names}
        self.held = {name: Counter() for name in self.names}  # what user code holds
        self.channels = {(a, b): deque() for a in self.names for b in self.names}
        self.numbers = 0
        self.freed = set()

    def living(self, index):
        return self.names[index % len(self.names)]

    def make(self, name):
        self.numbers += 1
        object_id = name + self.numbers.to_bytes(8, "big")
        self.tables[name].create(object_id)
        self.tables[name].fulfil(object_id, Value(b"", (Span(name, 0, self.numbers, 1, 1),)))
        self.held[name][object_id] += 1

    def send(self, sender, to, which):
        held = sorted(+self.held[sender])
        if held:
            object_id = held[which % len(held)]
            self.tables[sender].lend(object_id, to)
            self.act(sender)
            self.channels[sender, to].append(("value", object_id))

    def drop(self, name, which):
        held = sorted(+self.held[name])
        if held:
            object_id = held[which % len(held)]
            self.held[name][object_id] -= 1
            self.tables[name].drop(object_id)
            self.act(name)

    def act(self, name):
        table = self.tables[name]
        while table.commands:
            command = table.commands.popleft()
            if isinstance(command, SendLend):
                self.channels[name, owner_of(command.object)].append(("lend", command.object, command.to))
            elif isinstance(command, SendRelease):
                self.channels[name, owner_of(command.object)].append(("release", command.object, command.count))
            elif isinstance(command, Gone):
                self.freed.add(command.object)

    def deliver(self, sender, to):
        if not self.channels[sender, to]:
            return
        kind, object_id, *rest = self.channels[sender, to].popleft()
        table = self.tables[to]
        if kind == "value":
            assert table.hold(object_id, given=1, by=sender) is not None, "it was freed while a message carried it"
            self.held[to][object_id] += 1
        elif kind == "lend":
            table.lent(object_id, rest[0])
        else:
            table.released(object_id, sender, rest[0])
        self.act(to)

    def die(self, name):
        """The process dies; what it sent is read to its end before its death is noticed, as sockets do it."""
        for other in self.names:
            if other != name:
                while self.channels[name, other]:
                    self.deliver(name, other)
        self.names.remove(name)
        for other in self.names:
            self.channels[other, name].clear()
            for object_id in self.tables[other].process_died(name):
                self.held[other].pop(object_id, None)
            self.held[other] = Counter({i: n for i, n in self.held[other].items() if owner_of(i) != name})
            self.act(other)
        for (_, other), channel in self.channels.items():
            if other != name:
                kept = [item for item in channel if owner_of(item[1]) != name]
                channel.clear()
                channel.extend(kept)

    def check(self):
        needed = {i for name in self.names for i in +self.held[name]}
        needed |= {
            item[1]
            for (_, to), channel in self.channels.items()
            if to in self.names
            for item in channel
            if item[0] == "value"
        }
        assert not self.freed & needed, "an object was freed that somebody holds or a message carries"

    def finish(self):
        while any(self.channels[a, b] for a in self.names for b in self.names):
            for a in self.names:
                for b in self.names:
                    self.deliver(a, b)
                    self.check()
        for name in self.names:
            while +self.held[name]:
                self.drop(name, 0)
        while any(self.channels[a, b] for a in self.names for b in self.names):
            for a in self.names:
                for b in self.names:
                    self.deliver(a, b)
        for name in self.names:
            own = [i for i in self.tables[name].records if owner_of(i) in self.names]
            assert not own, f"{name!r} still knows {own} though nobody holds anything"


NUMBER = st.integers(0, 1000)
STEP = st.one_of(
    st.tuples(st.just("make"), NUMBER),
    st.tuples(st.just("send"), NUMBER, NUMBER, NUMBER),
    st.tuples(st.just("send"), NUMBER, NUMBER, NUMBER),
    st.tuples(st.just("drop"), NUMBER, NUMBER),
    st.tuples(st.just("deliver"), NUMBER, NUMBER),
    st.tuples(st.just("deliver"), NUMBER, NUMBER),
)
DEATH = st.tuples(st.just("die"), NUMBER)


def run(steps, count):
    world = World(count)
    world.make(world.names[0])
    for what, *arguments in steps:
        if what == "make":
            world.make(world.living(arguments[0]))
        elif what == "send":
            world.send(world.living(arguments[0]), world.living(arguments[1]), arguments[2])
        elif what == "drop":
            world.drop(world.living(arguments[0]), arguments[1])
        elif what == "die":
            if len(world.names) > 1:
                world.die(world.living(arguments[0]))
        else:
            world.deliver(world.living(arguments[0]), world.living(arguments[1]))
        world.check()
    world.finish()


@pytest.mark.parametrize("step", [STEP, st.one_of(STEP, STEP, STEP, DEATH)], ids=["all live", "some die"])
@pytest.mark.parametrize("examples", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_nothing_is_freed_too_early_and_everything_in_the_end(examples, step):
    @given(st.lists(step, max_size=60), st.integers(2, 4))
    @settings(max_examples=examples, deadline=None)
    def holds(steps, count):
        run(steps, count)

    holds()
