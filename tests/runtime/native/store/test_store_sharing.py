"""Several processes' budgets and their node together, events in random order: nobody is refused what can be had."""

import random
from collections import deque
from dataclasses import dataclass, field

import pytest

from shoal.runtime.native.node.store_budgets import CallMe, StoreBudgets, Tell
from shoal.runtime.native.protocol.process_messages import MemoryGranted, Movable, Spill, Trim
from shoal.runtime.native.store.budget import CHUNK, Budget, chunks

TOTAL = 64 * CHUNK
# Sizes in proportion to the store as arrays of 2.4 and 24 MB are to 64 MiB, the whole store, and values in many parts.
SIZES = [CHUNK // 10, 2 * CHUNK + 5, 24 * CHUNK - 100, 33 * CHUNK, 63 * CHUNK, TOTAL - 100]
PRESSED = 0.2


@dataclass
class Program:
    """A thread that makes one object after the other."""

    sizes: list[int]
    waits: int | None = None  # the request that it waits for
    granted: bool = False  # and will hear of when it wakes


@dataclass
class Process:
    """One process: its budget, memory that it keeps for later, and objects that it has made."""

    name: bytes
    budget: Budget
    programs: list[Program]
    cached: int = 0
    objects: dict[bytes, tuple[int, int]] = field(default_factory=dict)  # how much memory it takes, viewed until
    to_node: deque = field(default_factory=deque)
    from_node: deque = field(default_factory=deque)
    pressed_until: float = 0.0
    moving: deque = field(default_factory=deque)  # lists of objects on their way to disk


class World:
    """The node, its processes, and messages under way. Each process owns what it makes."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.now = 0.0
        self.node = StoreBudgets(TOTAL)
        self.timers = []
        self.made = 0
        self.processes = {}
        for index in range(self.chance.randint(1, 4)):
            name = b"process%d" % index
            programs = [
                Program([self.chance.choice(SIZES) for _ in range(self.chance.randint(1, 6))])
                for _ in range(self.chance.choice([1, 1, 2]))
            ]
            self.processes[name] = Process(name, Budget(TOTAL), programs)
            self.node.joined(name)

    # The process's side: what `Arena` and `Memory` do ---------------------------------------------------------------

    def make(self, process, program):
        size = program.sizes[0]
        if program.waits is not None:
            process.budget.settle(program.waits)
        # Some of what is kept may be of use again, more or less by chance; else all is fresh, in one chunk more or not.
        again = min(process.cached, self.chance.choice([0, chunks(size) // 2, chunks(size)]))
        takes = process.budget.most(size)
        if takes > chunks(size):
            takes -= self.chance.choice([0, CHUNK])
        if process.budget.use(max(0, takes - again)):
            process.cached -= min(again, takes)
            self.made += 1
            viewed_until = self.now + self.chance.choice([0, 0, 0, 0.01, 0.05, 0.2])
            process.objects[b"object%d" % self.made] = (takes, viewed_until)
            program.sizes.pop(0)
            program.waits, program.granted = None, False
            return
        assert program.waits is None, "what was granted is not enough"
        program.waits = process.budget.ask()
        process.to_node.append(("want", program.waits, process.budget.most(size)))

    def free(self, process, name):
        process.cached += process.objects.pop(name)[0]
        if self.now < process.pressed_until:
            process.to_node.append(("returned", self.give_back(process)))

    @staticmethod
    def give_back(process):
        process.budget.stop_using(process.cached)
        process.cached = 0
        return process.budget.give_back()

    def hear(self, process, message):
        if isinstance(message, MemoryGranted):
            process.budget.grant(message.request, message.size)
            for program in process.programs:
                program.granted |= program.waits == message.request
        elif isinstance(message, Trim):
            process.pressed_until = self.now + PRESSED
            movable = [
                Movable(name, takes, viewed) for name, (takes, viewed) in process.objects.items() if viewed <= self.now
            ]
            process.to_node.append(("trimmed", self.give_back(process), movable, bool(process.moving)))
        elif isinstance(message, Spill):
            process.moving.append(message.objects)

    def move(self, process):
        """A thread has written objects to disk; what has been viewed meanwhile stays in memory."""
        names = process.moving.popleft()
        moved = [name for name in names if name in process.objects and process.objects[name][1] <= self.now]
        size = sum(process.objects[name][0] for name in moved)
        for name in moved:
            self.free(process, name)
        process.to_node.append(("spilled", size))

    # The node's side: what `Storage` does -----------------------------------------------------------------------------

    def serve(self, process):
        kind, *what = process.to_node.popleft()
        if kind == "want":
            self.node.wanted(process.name, *what, self.now)
        elif kind == "returned":
            self.node.returned(process.name, *what, self.now)
        elif kind == "spilled":
            self.node.spilled(process.name, *what, self.now)
        else:
            returned, movable, moving = what
            self.node.returned(process.name, returned, self.now)
            self.node.trimmed(process.name, movable, moving, self.now)

    def obey(self):
        for command in self.node.commands:
            if isinstance(command, CallMe):
                self.timers.append(self.now + command.seconds)
            elif isinstance(command, Tell):
                self.processes[command.process].from_node.append(command.message)
            else:
                pytest.fail(f"refused: {command}")
        self.node.commands.clear()

    # Both together ----------------------------------------------------------------------------------------------------

    def step(self):
        """Have one thing happen that can; False if nothing will ever."""
        can = []
        for process in self.processes.values():
            can += [lambda process=process: self.serve(process)] * bool(process.to_node)
            can += [lambda process=process: self.hear(process, process.from_node.popleft())] * bool(process.from_node)
            can += [lambda process=process: self.move(process)] * bool(process.moving)
            for program in process.programs:
                can += [lambda process=process, program=program: self.make(process, program)] * (
                    program.granted if program.waits is not None else bool(program.sizes)
                )
        if can and self.chance.random() < 0.95:
            self.now += 0.001
            self.chance.choice(can)()
        elif self.timers:
            self.now = max(self.now, min(self.timers))
            self.timers.remove(min(self.timers))
            self.node.tick(self.now)
        self.obey()
        assert sum(self.node.budgets.values()) <= TOTAL
        return bool(can or self.timers)


@pytest.mark.parametrize(
    ("first", "count"), [(0, 300), pytest.param(300, 2000, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_nobody_is_refused_what_can_be_moved_away_or_will_be_free(first, count):
    """What is viewed here ends by itself within the node's patience. So all get what they ask for, and all end."""
    for seed in range(first, first + count):
        world = World(seed)
        wanted = sum(len(program.sizes) for process in world.processes.values() for program in process.programs)
        while world.step():
            assert world.now < 100, f"seed {seed}: somebody waits for ever"
        assert world.made == wanted, f"seed {seed}: all hold, and all wait"
        for process in world.processes.values():
            budget = process.budget
            in_use = process.cached + sum(takes for takes, _ in process.objects.values())
            assert (budget.used, budget.reserved, budget.granted) == (in_use, 0, world.node.budgets[process.name])
