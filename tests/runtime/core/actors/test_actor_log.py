"""The log of an actor that comes back with its state: by hand, and as a model with crashes between any two steps."""

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.runtime.core.actors.log import ActorLog, Journal, Step

OWNER, FIRST, SECOND = b"owner000", b"caller-1", b"caller-2"


def task(caller, number):
    return caller + number.to_bytes(8, "big")


def test_only_the_last_call_is_in_doubt():
    log = ActorLog()
    for number in range(3):
        log.ran(task(FIRST, number), number, True)
    assert [entry.in_doubt for entry in log.entries] == [False, False, True]
    log.restarts()
    log.ran(task(SECOND, 3), 3, True)
    assert [entry.in_doubt for entry in log.entries] == [False, False, True, True]


def test_a_checkpoint_covers_the_calls_before_it():
    log = ActorLog()
    log.ran(task(OWNER, 1), "one", False)
    log.ran(task(FIRST, 2), "two", True)
    assert log.checkpointed("state") == ["one", "two"]
    assert (log.state, log.entries) == ("state", [])


def test_a_dead_caller_asks_for_nothing():
    log = ActorLog()
    log.ran(task(FIRST, 1), "call", True)
    log.caller_died(FIRST)
    assert not log.entries[0].in_doubt
    journal = Journal(OWNER, 1)
    journal.replayed(task(FIRST, 1), "answer")
    journal.caller_died(FIRST)
    assert journal.arrived(task(FIRST, 1)) is None


def test_no_checkpoint_is_sent_while_an_answer_is_not_fetched():
    journal = Journal(OWNER, 1)
    journal.replayed(task(FIRST, 1), "answer")
    assert journal.ran(OWNER) == [Step.REPLY]
    journal.arrived(task(FIRST, 1))
    assert journal.ran(OWNER) == [Step.REPLY, Step.CHECKPOINT]


def test_the_order_of_steps():
    journal = Journal(OWNER, 2)
    assert journal.ran(FIRST) == [Step.RECORD, Step.REPLY]
    assert journal.ran(OWNER) == [Step.REPLY, Step.CHECKPOINT]
    journal.checkpointed()
    assert journal.ran(OWNER) == [Step.REPLY]


def test_a_call_in_doubt_is_answered_once_and_not_run_again():
    journal = Journal(OWNER, 5)
    journal.replayed(task(FIRST, 1), "answer")
    journal.replayed(task(FIRST, 2), None)
    assert journal.arrived(task(FIRST, 2)) is None
    assert journal.arrived(task(FIRST, 1)) == "answer"
    assert journal.arrived(task(FIRST, 1)) is None


class World:
    """An actor, its owner and two more callers; what was written to a socket survives its writer."""

    def __init__(self, every):
        self.every = every
        self.log = ActorLog()
        self.callers = {name: {} for name in (OWNER, FIRST, SECOND)}  # unanswered calls
        self.results = {}
        self.made = 0
        self.to_actor = {name: deque() for name in self.callers}
        self.from_actor = {name: deque() for name in self.callers}
        self.start()

    def start(self):
        """A new process becomes the actor."""
        self.state = list(self.log.state or [])
        self.journal = Journal(OWNER, self.every)
        self.steps = deque()
        for entry in self.log.entries:
            answer = self.apply(entry.call)
            self.journal.replayed(entry.task, answer if entry.in_doubt else None)
        for name, calls in self.callers.items():
            self.to_actor[name] = deque(calls)

    def apply(self, call):
        self.state.append(call)
        return f"{len(self.state)}: {call!r}"

    def call(self, name):
        self.made += 1
        made = task(name, self.made)
        self.callers[name][made] = None
        self.to_actor[name].append(made)

    def step(self, which):
        """The actor's process does the next thing."""
        if self.steps:
            self.steps.popleft()()
            return
        waiting = [name for name in sorted(self.to_actor) if self.to_actor[name]]
        if not waiting:
            return
        name = waiting[which % len(waiting)]
        call = self.to_actor[name].popleft()
        answer = self.journal.arrived(call)
        if answer is not None:
            self.steps.append(lambda: self.from_actor[name].append(("reply", call, answer)))
            self.steps.append(lambda: self.from_actor[OWNER].append(("delivered", call)))
            return
        answer = self.apply(call)
        actions = {
            Step.RECORD: lambda: self.from_actor[OWNER].append(("record", call)),
            Step.REPLY: lambda: self.from_actor[name].append(("reply", call, answer)),
            Step.CHECKPOINT: self.checkpoint,
        }
        self.steps.extend(actions[step] for step in self.journal.ran(name))

    def checkpoint(self):
        self.from_actor[OWNER].append(("checkpoint", list(self.state)))
        self.journal.checkpointed()

    def deliver(self, name):
        if not self.from_actor[name]:
            return
        kind, *rest = self.from_actor[name].popleft()
        if kind == "reply":
            call, answer = rest
            assert call not in self.results, "it was answered twice"
            self.results[call] = answer
            del self.callers[name][call]
            if name == OWNER:
                self.log.ran(call, call, False)
        elif kind == "record":
            self.log.ran(rest[0], rest[0], True)
        elif kind == "delivered":
            self.log.delivered(rest[0])
        else:
            self.log.checkpointed(*rest)

    def crash(self):
        for name in self.callers:
            while self.from_actor[name]:
                self.deliver(name)
        self.log.restarts()
        self.start()

    def finish(self):
        while self.steps or any(self.to_actor.values()):
            self.step(0)
        self.crash()
        while self.steps or any(self.to_actor.values()):
            self.step(0)
        for name in self.callers:
            while self.from_actor[name]:
                self.deliver(name)
        assert not any(self.callers.values()), "a call was never answered"
        assert len(self.state) == len(set(self.state)) == self.made, "a call is in the state twice, or not at all"
        assert self.results == {call: f"{index}: {call!r}" for index, call in enumerate(self.state, 1)}
        for name in self.callers:
            mine = [call for call in self.state if call.startswith(name)]
            assert mine == sorted(mine), "calls of one caller ran out of order"


CALLER = st.sampled_from([OWNER, FIRST, SECOND])
STEP = st.one_of(
    st.tuples(st.just("call"), CALLER),
    st.tuples(st.just("call"), CALLER),
    st.tuples(st.just("step"), st.integers(0, 2)),
    st.tuples(st.just("step"), st.integers(0, 2)),
    st.tuples(st.just("step"), st.integers(0, 2)),
    st.tuples(st.just("deliver"), CALLER),
    st.tuples(st.just("crash")),
)


@pytest.mark.parametrize("examples", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_each_call_is_in_the_state_once_and_answered_once_wherever_it_crashes(examples):
    @given(st.lists(STEP, max_size=80), st.integers(1, 5))
    @settings(max_examples=examples, deadline=None)
    def holds(steps, every):
        world = World(every)
        for what, *arguments in steps:
            getattr(world, what)(*arguments)
        world.finish()

    holds()
