"""Lineage: by hand, and as a model of tasks that depend on each other and lose their results in any order."""

from collections import Counter, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.runtime.native.process.lineage import Fail, Forget, Interrupt, Lineage, Resubmit, Settle, Why

FIRST, SECOND, THIRD = b"object-1", b"object-2", b"object-3"


class Call:
    def __init__(self, retries=-1):
        self.retries = retries

    def use_retry(self):
        if self.retries == 0:
            return Why.NO_RETRIES
        self.retries -= self.retries > 0
        return None

    def lost(self, object_id):
        return True


class Generator(Call):
    """A run of it is past what is lost."""

    def lost(self, object_id):
        return False


@pytest.fixture
def lineage():
    return Lineage(1000)


def commands(lineage):
    done = list(lineage.commands)
    lineage.commands.clear()
    return done


def test_a_lost_result_has_its_task_run_again_once_however_many_ask(lineage):
    call = Call()
    lineage.finished(FIRST, call, [FIRST, SECOND], [], 1)
    lineage.lost(FIRST)
    lineage.lost(FIRST)
    lineage.lost(SECOND)
    assert commands(lineage) == [Resubmit(call, ())]
    lineage.finished(FIRST, call, [FIRST, SECOND], [], 1)
    lineage.lost(SECOND)
    assert commands(lineage) == [Resubmit(call, ())]


def test_an_argument_that_can_be_made_again_is_only_noted(lineage):
    lineage.finished(FIRST, Call(), [FIRST], [], 1)
    assert lineage.can_make(FIRST)
    assert not lineage.can_make(SECOND)
    call = Call()
    lineage.finished(SECOND, call, [SECOND], [FIRST], 1)
    assert FIRST in lineage.needed
    lineage.lost(SECOND)
    assert commands(lineage) == [Resubmit(call, (FIRST,)), Settle(FIRST)]
    assert not lineage.needed


def test_the_last_result_that_is_dropped_lets_go_of_the_arguments(lineage):
    first, call = Call(), Call()
    lineage.finished(FIRST, first, [FIRST], [], 1)
    lineage.finished(SECOND, call, [SECOND, THIRD], [FIRST], 1)
    lineage.dropped(SECOND)
    assert commands(lineage) == []
    lineage.dropped(THIRD)
    assert commands(lineage) == [Settle(FIRST), Forget(call)]
    lineage.dropped(FIRST)
    assert commands(lineage) == [Forget(first)]
    assert (lineage.size, lineage.tasks, lineage.makers) == (0, {}, {})


def test_a_task_that_nobody_waits_for_any_more_is_not_kept(lineage):
    call = Call()
    lineage.finished(FIRST, call, [FIRST], [], 1)
    lineage.lost(FIRST)
    lineage.dropped(FIRST)
    assert commands(lineage) == [Resubmit(call, ())]
    lineage.finished(FIRST, call, [], [], 1)
    assert commands(lineage) == [Forget(call)]


def test_without_retries_an_object_stays_lost(lineage):
    call = Call(retries=1)
    lineage.finished(FIRST, call, [FIRST], [], 1)
    lineage.lost(FIRST)
    lineage.finished(FIRST, call, [FIRST], [], 1)
    commands(lineage)
    lineage.lost(FIRST)
    assert commands(lineage) == [Forget(call), Fail(FIRST, Why.NO_RETRIES)]


def test_the_reason_is_known(lineage):
    lineage.not_kept(FIRST, [FIRST], Why.METHOD)
    lineage.lost(FIRST)
    lineage.lost(SECOND)
    assert commands(lineage) == [Fail(FIRST, Why.METHOD), Fail(SECOND, Why.PUT)]
    lineage.dropped(FIRST)
    assert not lineage.reasons


def test_the_oldest_lineage_is_dropped_first(lineage):
    calls = [Call() for _ in range(3)]
    for call, task in zip(calls, [FIRST, SECOND, THIRD], strict=True):
        lineage.finished(task, call, [task], [], 400)
    assert commands(lineage) == [Forget(calls[0])]
    assert lineage.size == 800
    lineage.lost(FIRST)
    lineage.lost(SECOND)
    assert commands(lineage) == [Fail(FIRST, Why.EVICTED), Resubmit(calls[1], ())]


def test_a_generator_that_is_past_what_is_lost_is_run_again(lineage):
    call = Generator(retries=1)
    lineage.yielded(FIRST, call, SECOND)
    lineage.yielded(FIRST, call, THIRD)
    assert lineage.can_make(SECOND)
    lineage.lost(SECOND)
    lineage.lost(THIRD)
    assert commands(lineage) == [Interrupt(call)], "one run makes both"
    lineage.lost(SECOND)
    assert commands(lineage) == [Fail(SECOND, Why.NO_RETRIES)]


def test_a_generators_values_that_are_dropped_while_it_runs_are_forgotten(lineage):
    call = Generator()
    lineage.yielded(FIRST, call, SECOND)
    lineage.dropped(SECOND)
    assert (lineage.tasks, lineage.makers, commands(lineage)) == ({}, {}, [])
    lineage.yielded(FIRST, call, THIRD)
    lineage.finished(FIRST, call, [THIRD], [], 1)
    lineage.lost(THIRD)
    assert commands(lineage) == [Resubmit(call, ())]


class Task(Call):
    """A task of the model: what it needs, what it returns, and what it holds.

    One that streams makes its values one after the other, and a run of it makes those that were lost when it began.
    """

    def __init__(self, number, arguments, count, retries, streams):
        super().__init__(retries)
        self.streams = streams
        self.begun = self.interrupted = False
        self.missing, self.arrived, self.todo = set(), set(), []
        self.id = number * 10
        self.returns = [number * 10 + index for index in range(count)]
        self.arguments = arguments
        self.held = list(arguments)
        self.runs = 0

    def lost(self, object_id):
        if not self.streams or object_id in self.missing:
            return True
        self.missing.add(object_id)
        return self.interrupted or not self.begun


class World:
    """One process: its objects, who holds them, the tasks that are queued; losses come between any two steps."""

    def __init__(self, most_bytes, retries):
        self.evicts = most_bytes < 1000  # what the test's tasks take never comes to that
        self.lineage = Lineage(most_bytes)
        self.retries = retries
        self.tasks = []
        self.values = {}  # "there", "failed", or None: gone
        self.user = set()
        self.queue = deque()
        self.chances = Counter()  # how often each task may have been run again

    def holders(self, object_id):
        strong = any(object_id in task.held for task in self.tasks)
        return object_id in self.user or strong

    def settle(self, object_id):
        if object_id not in self.values or self.holders(object_id):
            return
        if object_id in self.lineage.needed:
            if self.values[object_id] is not None:
                self.lose_value(object_id)
            return
        del self.values[object_id]
        self.lineage.dropped(object_id)

    def lose_value(self, object_id):
        self.values[object_id] = None
        self.chances[object_id // 10 * 10] += 1

    def submit(self, which, count, streams=False):
        held = sorted(self.user)
        arguments = [held[index % len(held)] for index in which] if held else []
        task = Task(len(self.tasks) + 1, arguments, count, self.retries, streams)
        self.tasks.append(task)
        for object_id in task.returns:
            self.values[object_id] = None
            self.user.add(object_id)
        self.queue.append(task)

    def drop(self, which):
        held = sorted(self.user)
        if held:
            object_id = held[which % len(held)]
            self.user.discard(object_id)
            self.settle(object_id)

    def lose(self, which):
        there = sorted(object_id for object_id, value in self.values.items() if value == "there")
        if there:
            object_id = there[which % len(there)]
            self.lose_value(object_id)
            self.lineage.lost(object_id)
            self.lineage.lost(object_id)

    def run(self, which):
        """Run a task whose arguments are there, if one is queued; of one that streams, make one value."""
        ready = [task for task in self.queue if task.begun or all(self.values[need] for need in task.arguments)]
        if not ready:
            return False
        task = ready[which % len(ready)]
        if not task.begun:
            task.runs += 1
            task.failed = any(self.values[argument] == "failed" for argument in task.arguments)
        if task.streams and self.go_on(task):
            return True
        self.queue.remove(task)
        task.begun = False
        unmade = [object_id for object_id in task.returns if object_id in self.values and not self.values[object_id]]
        kept = set()
        for object_id in unmade:
            if task.streams and not task.failed and object_id in task.arrived:
                kept.add(object_id)  # it was let go of: it can be made again
            else:
                self.values[object_id] = "failed" if task.failed else "there"
        results = [
            object_id for object_id in task.returns if self.values.get(object_id) == "there" or object_id in kept
        ]
        if task.retries == 0 or not results:
            self.lineage.not_kept(task.id, results, Why.NO_RETRIES)
            self.let_go(task, task.held)
        else:
            noted = [argument for argument in task.held if self.lineage.can_make(argument)]
            self.let_go(task, noted, lambda: self.lineage.finished(task.id, task, results, noted, 1))
        for object_id in results:
            self.settle(object_id)
        return True

    def go_on(self, task):
        """Make one more value of a stream; False if it is at its end."""
        if not task.begun:
            task.begun, task.interrupted = True, False
            new = [object_id for object_id in task.returns if object_id not in task.arrived]
            task.todo = [] if task.failed else sorted(task.missing) + new
            return True
        if task.interrupted:
            task.begun = False
            return True
        if not task.todo:
            return False
        object_id = task.todo.pop(0)
        task.missing.discard(object_id)
        if self.values.get(object_id, "dropped") is None:
            self.values[object_id] = "there"
            if object_id not in task.arrived:
                if task.retries == 0:
                    self.lineage.not_kept(object_id, [object_id], Why.NO_RETRIES)
                else:
                    self.lineage.yielded(task.id, task, object_id)
            self.settle(object_id)
        task.arrived.add(object_id)
        return True

    def let_go(self, task, arguments, first=lambda: None):
        task.held = [argument for argument in task.held if argument not in arguments]
        first()
        for argument in arguments:
            self.settle(argument)

    def act(self):
        while self.lineage.commands:
            command = self.lineage.commands.popleft()
            if isinstance(command, Resubmit):
                task = command.call
                assert task not in self.queue, "it is run again already"
                task.held = list(task.arguments)
                self.queue.append(task)
                for argument in task.arguments:
                    if self.values[argument] is None:
                        self.lineage.lost(argument)
            elif isinstance(command, Interrupt):
                assert command.call.streams
                assert command.call.begun
                command.call.interrupted = True
            elif isinstance(command, Fail):
                assert self.retries != -1 or command.why is Why.EVICTED
                self.values[command.object] = "failed"
            elif isinstance(command, Forget):
                self.let_go(command.call, command.call.held)
            else:
                self.settle(command.object)

    def check(self):
        queued = {object_id for task in self.queue for object_id in task.returns}
        for object_id in self.user:
            assert self.values[object_id] is not None or object_id in queued, "nobody makes it again"
        for task in self.tasks:
            assert task.runs <= 1 + self.chances[task.id], "it was run again though nothing of it was lost"
        if self.retries == -1 and not self.evicts:
            assert "failed" not in self.values.values()

    def finish(self):
        while self.queue:
            assert self.run(0), "all tasks that are queued wait for others"
            self.act()
            self.check()
        assert all(self.values[object_id] for object_id in self.user)
        while self.user:
            self.drop(0)
            self.act()
        assert (self.values, self.lineage.tasks, self.lineage.makers, self.lineage.needed) == ({}, {}, {}, {})
        assert self.lineage.size == 0


NUMBER = st.integers(0, 1000)
STEP = st.one_of(
    st.tuples(st.just("submit"), st.lists(NUMBER, max_size=3), st.integers(1, 3), st.booleans()),
    st.tuples(st.just("drop"), NUMBER),
    st.tuples(st.just("lose"), NUMBER),
    st.tuples(st.just("run"), NUMBER),
    st.tuples(st.just("run"), NUMBER),
)


@pytest.mark.parametrize("examples", [150, pytest.param(1000, marks=pytest.mark.slow)])
def test_every_object_that_is_held_is_made_again_and_no_task_runs_without_need(examples):
    @given(st.lists(STEP, max_size=60), st.sampled_from([1000, 5]), st.sampled_from([-1, 0, 1, 2]))
    @settings(max_examples=examples, deadline=None)
    def holds(steps, most_bytes, retries):
        world = World(most_bytes, retries)
        for what, *arguments in steps:
            getattr(world, what)(*arguments)
            world.act()
            world.check()
        world.finish()

    holds()


def test_a_long_chain_is_made_again_and_let_go_without_recursion():
    world = World(10**9, -1)
    world.submit([], 1)
    for _ in range(400):
        world.run(0)
        world.submit([0], 1)
        world.drop(0)
        world.act()
    world.run(0)
    world.act()
    assert sum(value is not None for value in world.values.values()) == 1
    world.lose(0)
    world.act()
    world.finish()
