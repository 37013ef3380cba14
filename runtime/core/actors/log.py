"""Actors that come back with their state: the log of their calls and which have had an answer, two state machines.

An actor's owner keeps its last checkpoint and, in the order in which they ran, the calls since. The actor's process
tells it of each call before it replies, by writing to a socket; what is written is read even if the writer dies, so
no acknowledgement is needed:

    call of another process   Record ──▶ owner,   then the reply ──▶ caller
    call of the owner itself  the reply ──▶ owner is the record, too
    every so many calls       the checkpoint ──▶ owner, after all replies

No call begins before the last one's reply is written. So when the process dies, at most one call is in doubt: the
last recorded one, whose caller may wait for its answer and make the call again. The next process restores the
checkpoint, runs the recorded calls in order, and keeps the answers of those in doubt for callers that ask again; until
they have, it sends no checkpoint, so that the answers can always be made again.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..ids import ObjectId, ProcessId, owner_of

Call = TypeVar("Call")
State = TypeVar("State")
Answer = TypeVar("Answer")


@dataclass
class Entry(Generic[Call]):
    """A call that has run. `in_doubt`: its caller may not have the answer."""

    task: ObjectId
    call: Call
    in_doubt: bool


class ActorLog(Generic[Call, State]):
    """For the owner: what brings the actor back.

    Attributes:
        state: the last checkpoint; None: there is none yet, it begins with its constructor.
        entries: the calls since, in order.
    """

    def __init__(self) -> None:
        self.state: State | None = None
        self.entries: list[Entry[Call]] = []
        self._last: Entry[Call] | None = None

    def ran(self, task: ObjectId, call: Call, in_doubt: bool) -> None:
        """Event: the actor has run a call; `in_doubt`: of another process, which is about to be answered."""
        if self._last is not None:
            self._last.in_doubt = False  # it was answered before this call began
        self._last = Entry(task, call, in_doubt)
        self.entries.append(self._last)

    def checkpointed(self, state: State) -> list[Call]:
        """Event: here is the actor's state; return the calls that it covers."""
        covered = [entry.call for entry in self.entries]
        self.state, self.entries, self._last = state, [], None
        return covered

    def delivered(self, task: ObjectId) -> None:
        """Event: a caller that made a call again has its answer."""
        for entry in self.entries:
            if entry.task == task:
                entry.in_doubt = False

    def restarts(self) -> None:
        """Event: the actor's process is gone, and all that it wrote is read."""
        self._last = None

    def caller_died(self, process: ProcessId) -> None:
        """Event: a caller is gone and asks no more."""
        for entry in self.entries:
            if owner_of(entry.task) == process:
                entry.in_doubt = False


class Step(enum.Enum):
    """What the actor's process does once a call has run, in this order; each is written out before the next."""

    RECORD = "tell the owner that it has run"
    REPLY = "answer the caller"
    CHECKPOINT = "send the state to the owner"


class Journal(Generic[Answer]):
    """For the actor's process: what to do after each call.

    Args:
        owner: the process that keeps the log.
        every: calls between two checkpoints.

    Attributes:
        answers: of the calls in doubt that were run again, until their callers ask.
    """

    def __init__(self, owner: ProcessId, every: int) -> None:
        self._owner = owner
        self._every = every
        self._since = 0
        self.answers: dict[ObjectId, Answer] = {}

    def replayed(self, task: ObjectId, answer: Answer | None) -> None:
        """Event: a recorded call was run again; its answer, if it is in doubt."""
        self._since += 1
        if answer is not None:
            self.answers[task] = answer

    def arrived(self, task: ObjectId) -> Answer | None:
        """Event: a call is about to begin; return its answer if it has run already: it must not run twice."""
        return self.answers.pop(task, None) if self.answers else None

    def ran(self, caller: ProcessId) -> list[Step]:
        """Event: a call has run; return what to do now."""
        self._since += 1
        steps = [Step.REPLY] if caller == self._owner else [Step.RECORD, Step.REPLY]
        if self._since >= self._every and not self.answers:
            steps.append(Step.CHECKPOINT)
        return steps

    def caller_died(self, process: ProcessId) -> None:
        """Event: a caller is gone and asks no more."""
        for task in [task for task in self.answers if owner_of(task) == process]:
            del self.answers[task]

    def checkpointed(self) -> None:
        """Event: the state was sent to the owner."""
        self._since = 0
