"""The shares that processes have of a node's object store, and what moves to disk when it is full: a state machine.

Processes get budgets in steps; what they use of them, and for what, is their affair as long as there is room. A
process that needs more than there is waits, and meanwhile the node goes round, again and again:

    trimming   all processes give back what they do not use, and name the objects that they could move to disk
    spilling   the owners of the least recently used ones, of all processes together, move them
    resting    a moment for the blocks to become free, since readers may just be ending

Rounds without any use for a while, in the last of which all processes have looked for garbage, mean that all of it is
in use: the process is told, with a table of who holds what.

Moving is the owner's business, since the owner is who can say where a value is: it writes the new place into its
record and frees the old blocks as it frees any. What is being viewed stays: moving it would free nothing.

Methods are events; what they ask the outside to do is appended to `commands`. Times are in seconds, sizes in bytes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import msgspec

from ...core.ids import ObjectId, ProcessId
from ..protocol.process_messages import MemoryGranted, Movable, Spill, Trim

_PATIENCE = 3.0
_LEAST_ROUNDS = 3
# Processes that do not answer, since they are just starting or compute without looking up, are waited for longer.
_LONGEST_PATIENCE = 30.0
_REST = 0.02
# What garbage has held becomes free by way of its owners, and looking for it takes long in a large process.
_REST_AT_LAST = 0.3
_LONGEST_LAST_TURN = 5.0
# A process that computes without looking up must not hold up the others.
_LONGEST_TURN = 0.5
# Of the whole store, this part is moved at least, once something must be: a round trip for each object is too many.
_LEAST_MOVED = 1 / 20
_LARGEST_STEP = 1 << 26
_SMALLEST_STEP = 1 << 18


class Tell(msgspec.Struct, frozen=True):
    """Tell a process: what it is granted, or what it is to give back, or to move; the last two it answers."""

    process: ProcessId
    message: MemoryGranted | Trim | Spill


class Refuse(msgspec.Struct, frozen=True):
    """There is no room; answers a request. `too_large`: there never will be."""

    process: ProcessId
    request: int
    size: int
    too_large: bool


class CallMe(msgspec.Struct, frozen=True):
    """Call `tick` after so many seconds."""

    seconds: float


Command = Tell | Refuse | CallMe


@dataclass
class _Request:
    process: ProcessId
    number: int
    size: int


@dataclass
class StoreBudgets:
    """All budgets of a node.

    Attributes:
        total: what all processes together may use.
        budgets: what each may use.
        of_dead: memory in arenas of dead processes, which living owners need.
    """

    total: int
    budgets: dict[ProcessId, int] = field(default_factory=dict)
    of_dead: int = 0
    commands: deque[Command] = field(default_factory=deque)
    _waiting: deque[_Request] = field(default_factory=deque)
    _phase: str = "idle"
    _awaited: set[ProcessId] = field(default_factory=set)
    _movable: dict[ProcessId, list[Movable]] = field(default_factory=dict)
    _useful: float = 0.0  # when something was last gained, or the waiting began
    _useless: int = 0  # rounds since then in which everybody has answered
    _last: bool = False  # whether this round is the last before somebody is refused
    _turn_ends: float = 0.0

    @property
    def free(self) -> int:
        """Bytes that are in no budget."""
        return self.total - self.of_dead - sum(self.budgets.values())

    def joined(self, process: ProcessId) -> None:
        """Event: a process is there."""
        self.budgets[process] = 0

    def wanted(self, process: ProcessId, number: int, size: int, now: float) -> None:
        """Event: a process needs more."""
        if size > self.total:
            self.commands.append(Refuse(process, number, size, too_large=True))
            return
        self._waiting.append(_Request(process, number, size))
        self._grant()
        if self._waiting and self._phase == "idle":
            self._gain(now)
            self._begin_trimming(now)

    def returned(self, process: ProcessId, size: int, now: float) -> None:
        """Event: a process has given something back."""
        if process in self.budgets and size:
            self.budgets[process] -= size
            self._gain(now)
            self._grant()

    def trimmed(self, process: ProcessId, movable: list[Movable], moving: bool, now: float) -> None:
        """Event: a process has named what it could move to disk; `moving`: some is on its way."""
        if moving:
            self._gain(now)
        self._movable[process] = movable
        self._answered(process, now)

    def spilled(self, process: ProcessId, size: int, now: float) -> None:
        """Event: a process has moved so much to disk; what becomes free by that comes back from the blocks' makers."""
        if size:
            self._gain(now)
        self._answered(process, now)

    def process_died(self, process: ProcessId, of_dead: int, now: float) -> None:
        """Event: a process is gone; `of_dead`: what arenas of dead processes still hold, all together."""
        self.budgets.pop(process, None)
        self._movable.pop(process, None)
        self._waiting = deque(request for request in self._waiting if request.process != process)
        self.dead_changed(of_dead, now)
        self._answered(process, now)

    def dead_changed(self, of_dead: int, now: float) -> None:
        """Event: arenas of dead processes hold so much now."""
        if of_dead < self.of_dead:
            self._gain(now)
        self.of_dead = of_dead
        self._grant()

    def tick(self, now: float) -> None:
        """Event: the time has come that `CallMe` named."""
        if self._phase == "idle" or now < self._turn_ends:
            return
        if self._phase == "resting":
            self._begin_trimming(now)
        else:
            self._awaited.clear()
            self._go_on(now)

    def _gain(self, now: float) -> None:
        self._useful, self._useless, self._last = now, 0, False

    def _grant(self) -> None:
        while self._waiting and self.free >= self._waiting[0].size:
            request = self._waiting.popleft()
            step = min(max(self.total // 64, _SMALLEST_STEP), _LARGEST_STEP)
            # While others wait, nobody gets more than needed.
            size = request.size if self._waiting else min(max(request.size, step), self.free)
            self.budgets[request.process] += size
            self.commands.append(Tell(request.process, MemoryGranted(request.number, size)))

    # Rounds -----------------------------------------------------------------------------------------------------

    def _missing(self) -> int:
        return max(0, sum(request.size for request in self._waiting) - self.free)

    def _begin_trimming(self, now: float) -> None:
        self._movable.clear()
        if not self._waiting:
            self._phase = "idle"
            return
        if self._last:
            request = self._waiting.popleft()
            self.commands.append(Refuse(request.process, request.number, request.size, too_large=False))
            self._gain(now)
            self._grant()
        waited = now - self._useful
        self._last = waited > _LONGEST_PATIENCE or (waited > _PATIENCE and self._useless >= _LEAST_ROUNDS)
        self._take_turn("trimming", now, _LONGEST_LAST_TURN if self._last else _LONGEST_TURN)
        wanted = max(self._missing(), int(self.total * _LEAST_MOVED))
        for process in self.budgets:
            self._awaited.add(process)
            self.commands.append(Tell(process, Trim(wanted, self._last)))

    def _take_turn(self, phase: str, now: float, seconds: float = _LONGEST_TURN) -> None:
        self._phase, self._turn_ends = phase, now + seconds
        self.commands.append(CallMe(seconds))

    def _answered(self, process: ProcessId, now: float) -> None:
        if process in self._awaited:
            self._awaited.remove(process)
            if not self._awaited:
                self._useless += 1
                self._go_on(now)

    def _go_on(self, now: float) -> None:
        """All have answered, or their time is over."""
        if self._phase == "trimming" and self._waiting:
            chosen = self._choose()
            if chosen:
                self._take_turn("spilling", now)
                for process, objects in chosen.items():
                    self._awaited.add(process)
                    self.commands.append(Tell(process, Spill(objects)))
                return
        rest = _REST_AT_LAST if self._last else _REST
        self._phase, self._turn_ends = "resting", now + rest
        self.commands.append(CallMe(rest))

    def _choose(self) -> dict[ProcessId, list[ObjectId]]:
        """Return the least recently used objects that are large enough together, by owner."""
        missing = self._missing()
        if missing == 0:
            return {}
        missing = max(missing, int(self.total * _LEAST_MOVED))
        chosen: dict[ProcessId, list[ObjectId]] = {}
        everything = [(item, process) for process, items in self._movable.items() for item in items]
        for item, process in sorted(everything, key=lambda pair: pair[0].used):
            chosen.setdefault(process, []).append(item.object)
            missing -= item.size
            if missing <= 0:
                break
        return chosen
