"""Process ↔ process: run this, here is the result, what is the value of, I (no longer) hold your object."""

from __future__ import annotations

import msgspec

from ...core.ids import ActorKey, ObjectId, ProcessId
from .wire import Awaited, Count, Demand, Message, Placement, Returns, Span, Value


class Hello(Message):
    """First on a new connection: the caller's id."""

    process: ProcessId


class Function(Message):
    """The code behind a function id; sent once per connection, before its first use."""

    id: bytes
    payload: bytes


class CallExtras(msgspec.Struct, array_like=True, gc=False):
    """What few calls say.

    Attributes:
        name: a name for messages.
        concurrency_group: instead of the method's.
        retry: after which exceptions to answer with TryAgain: a pickled tuple of types, b"" for all; None: after none.
        skip: of a stream: so many of its first values have arrived in an earlier attempt,
        missing: but these of them are lost, and to be made again.
        taken: of a stream: so many of its values were taken.
        window: of a stream: how many values may wait to be taken; 0: any number.
    """

    name: str | None = None
    concurrency_group: str | None = None
    retry: bytes | None = None
    skip: Count = 0
    taken: Count = 0
    window: Count = 0
    missing: list[int] = []


class Push(Message):
    """Run a task on the worker that the sender has leased. `slots` are the values of arguments that were references.

    `num_returns` is -1 for a stream of values, which come as Items.
    """

    task: ObjectId
    function: bytes
    name: str
    arguments: Value
    slots: list[Value]
    num_returns: Returns
    extras: CallExtras | None = None


class Construct(Message):
    """To a fresh worker: you are this actor. `identity`: what it may know of itself; `restarts`: how often it was."""

    actor: ActorKey
    function: bytes
    name: str
    arguments: Value
    slots: list[Value]
    identity: bytes
    max_concurrency: int | None
    concurrency_groups: dict[str, int]
    restarts: Count = 0
    restoration: Restoration | None = None


class Call(Message):
    """Call a method of the actor that lives here."""

    task: ObjectId
    method: str
    arguments: Value
    slots: list[Value]
    num_returns: Returns
    extras: CallExtras | None = None


class Reply(Message):
    """A task has ended: its values, and the seconds that it took."""

    task: ObjectId
    values: list[Value]
    seconds: float


class TryAgain(Message):
    """A task has raised one of the exceptions after which its caller wants it to be run again."""

    task: ObjectId
    failure: Value


class Item(Message):
    """The next value of a task's stream; `index` counts from 0."""

    task: ObjectId
    index: Count
    value: Value


class Taken(Message):
    """So many values of that task's stream have been taken, in all; only said where there is a window."""

    task: ObjectId
    count: Count


class StopStream(Message):
    """Nobody wants more values of that task's stream."""

    task: ObjectId


class CancelTask(Message):
    """To the process that runs a task, from its caller: don't begin it, or interrupt it; `force`: end with it.

    `recursive`: cancel also what it has submitted.
    """

    task: ObjectId
    force: bool
    recursive: bool


class CancelObject(Message):
    """To an object's owner, from a borrower: cancel the task that makes it."""

    object: ObjectId
    force: bool
    recursive: bool


class Bounce(Message):
    """To a worker, from the process that has leased it: return the tasks that were not started."""


class Bounced(Message):
    """Tasks that were not started, since the task before them waits for others or takes long; run them elsewhere."""

    tasks: list[ObjectId]


class Request(Message):
    """To an object's owner: send its value when there is one."""

    object: ObjectId


class NotYet(Message):
    """From an object's owner: there is no value yet; it comes when it is there."""

    object: ObjectId


class Ready(Message):
    """From an object's owner: the value."""

    object: ObjectId
    value: Value


class Lend(Message):
    """To an object's owner: I passed a reference on to that process."""

    object: ObjectId
    to: ProcessId


class Release(Message):
    """To an object's owner: of the references that I was given, so many are gone, and I hold none any more."""

    object: ObjectId
    count: Count


class LogEntry(msgspec.Struct, array_like=True, gc=False):
    """A call that an actor has run since its last checkpoint. `in_doubt`: its caller may not have the answer."""

    call: Call
    in_doubt: bool


class Restoration(msgspec.Struct, array_like=True, gc=False):
    """How an actor that comes back with its state is made: see `actors.log`. `every`: calls between checkpoints."""

    every: int
    state: Value | None = None
    entries: list[LogEntry] = []


class Logged(Message):
    """From an actor to its owner: this call of another process has run; the arguments are the owner's now."""

    actor: ActorKey
    call: Call


class Delivered(Message):
    """From an actor to its owner: the caller that made this call again has its answer."""

    actor: ActorKey
    task: ObjectId


class Checkpointed(Message):
    """From an actor to its owner: its state after all calls that it has told of."""

    actor: ActorKey
    state: Value


class Lost(Message):
    """To an object's owner: that block of its value cannot be read; send the value once it is there again."""

    object: ObjectId
    span: Span


class ArgumentLost(Message):
    """From a worker: a task, call or constructor was not run, since that block of an argument cannot be read.

    For a constructor, `task` is the actor's key, and `restarts` as it was told.
    """

    task: bytes
    span: Span
    restarts: Count = 0


class Free(Message):
    """From an object's owner to the block's maker, or to the node if that one is dead: the blocks are not needed."""

    spans: list[Span]


class Assigned(Message):
    """To a worker, before the first task or the constructor: the resources that it has, and where they come from.

    Attributes:
        gpus: ids of its GPUs.
        placement: in which placement group it runs, if in any; `bundles` and `group_name` are what a handle needs.
    """

    demand: Demand
    gpus: list[str]
    placement: Placement | None = None
    bundles: list[dict[str, float]] | None = None
    group_name: str = ""


class WhoMakes(Message):
    """To an object's owner: which processes have to go on for its value to come?"""

    object: ObjectId


class MadeBy(Message):
    """The answer."""

    object: ObjectId
    by: Awaited
