"""The protocol: everything that processes of the native engine say to each other.

A message is one msgpack array, tagged with its class, behind its length as four bytes. Processes are named by eight
bytes (node and number), objects and tasks by sixteen (owning process and number); a task has the id of the first
object that it returns. Four kinds of conversation, two of them in `peer_messages` and `node_messages`:

    process ↔ process   run this, here is the result, what is the value of, I (no longer) hold your object
    process ↔ node      leases of workers, actors, names, shared memory, who died and why
    node ↔ node         pass this on, who is there, what is free, what are a block's bytes
    node ↔ fork server  make a process, this one ended
"""

from __future__ import annotations

from typing import Union

import msgspec

from ...ids import ActorKey, GroupId, NodeId, ObjectId, ProcessId  # noqa: F401

# One name for the whole protocol: the others say `m.Push`, wherever it is written.
from .group_messages import *  # noqa: F403
from .lease_messages import *  # noqa: F403
from .lease_messages import Environment
from .node_messages import *  # noqa: F403
from .node_messages import NodeInfo
from .peer_messages import *  # noqa: F403
from .peer_messages import Assigned, Construct, Function
from .state_messages import *  # noqa: F403
from .store_messages import *  # noqa: F403
from .wait_messages import *  # noqa: F403
from .wire import Count, Demand, Job, Message, Placement, Span, Units, Value  # noqa: F401

# Process ↔ node ---------------------------------------------------------------------------------------------------


class Register(Message):
    """First to the node. `process`: the id that a worker was forked with, None for a driver, which is given one."""

    process: ProcessId | None
    log_to_driver: bool = False
    namespace: str = ""


class Registered(Message):
    """The node's answer; the descriptor of the board of holders travels with it."""

    process: ProcessId
    index: Count
    node_pid: int
    nodes: list[NodeInfo]
    infeasible: str
    folder: str
    max_lineage_bytes: int
    spill_directory: str
    store_memory: Count
    job: Job


class KeptConstructor(msgspec.Struct, array_like=True):
    """What makes a detached actor, whose creator may be gone when it is made again; complete in itself."""

    assigned: Assigned
    function: Function
    construct: Construct


class CreateActor(Message):
    """The sender owns this actor. `ready`: start it; without, its constructor's arguments are still awaited.

    A detached one outlives its creator from the moment that it is ready: then `kept` is what makes it.
    """

    actor: ActorKey
    class_name: str
    demand: Demand
    max_restarts: int
    ready: bool
    job: Job
    environment: Environment | None = None
    placement: Placement | None = None
    detached: bool = False
    kept: KeptConstructor | None = None
    spread: bool = False


class ReserveName(Message):
    """Declare that actor, and let it have this name. `identity`: see `actors.pack_identity`; opaque to the node."""

    create: CreateActor
    namespace: str
    name: str
    identity: bytes


class NameReserved(Message):
    """The answer: None, or the identity of the living actor that has the name."""

    taken_by: bytes | None


class WithdrawActor(Message):
    """From the process that has declared a named actor: drop it, since the caller was interrupted before the answer."""

    actor: ActorKey


class ActorFailed(Message):
    """From its owner: that actor cannot be started, for this reason and exception."""

    actor: ActorKey
    reason: str
    failure: bytes | None


class ActorGranted(Message):
    """Of an actor's process, said by its node: it is being made."""

    actor: ActorKey


class ActorUp(Message):
    """Of an actor's process, said by its node: it is up, and has these GPUs."""

    actor: ActorKey
    gpus: list[str]


class StartActor(Message):
    """To the owner of an actor: this fresh worker is to become it; send it what it needs. `restarts`: so far."""

    actor: ActorKey
    process: ProcessId
    restarts: Count
    gpus: list[str]


class PostponeActor(Message):
    """From its owner: an argument of its constructor is lost; end that process, and take its resources back."""

    actor: ActorKey
    process: ProcessId


class ResumeActor(Message):
    """From its owner: the argument is there again; start the actor as soon as it can have its resources."""

    actor: ActorKey


class WatchActor(Message):
    """Tell me the state of that actor, now and whenever it changes."""

    actor: ActorKey


class ActorState(Message):
    """How an actor is: "pending", "alive" (in `process`), "restarting" or "dead" (`reason`, `failure`)."""

    actor: ActorKey
    state: str
    process: ProcessId | None = None
    reason: str = ""
    failure: bytes | None = None


class Constructed(Message):
    """The actor is made; or the last step of that has failed with this exception, which the reason says in words."""

    actor: ActorKey
    failure: bytes | None
    reason: str = ""


class ActorExiting(Message):
    """From an actor: I end myself on purpose, as soon as what runs has finished; do not start me again."""

    reason: str


class KillActor(Message):
    """End that actor at once."""

    actor: ActorKey
    no_restart: bool


class ActorReleased(Message):
    """The last handle of that actor is gone."""

    actor: ActorKey


class FindActor(Message):
    """Which living actor has that name?"""

    namespace: str
    name: str


class ActorFound(Message):
    """The answer to the last FindActor: its identity, or None."""

    identity: bytes | None


class ListNames(Message):
    """Which names do living actors have?"""


class Names(Message):
    """The answer to the last ListNames: namespaces and names."""

    names: list[tuple[str, str]]


class Publish(Message):
    """Keep a value under a name."""

    key: str
    payload: bytes


class Lookup(Message):
    """What is kept under that name?"""

    key: str


class Found(Message):
    """The answer to the last Lookup."""

    payload: bytes | None


class AskResources(Message):
    """What is free?"""


class Resources(Message):
    """What is free, now."""

    available: Units


class Preload(Message):
    """Import these modules in the fork server; look for them, and for what workers import, there."""

    modules: list[str]
    sys_path: list[str] | None = None


class ProcessDied(Message):
    """A process is gone; `reason` is a sentence with its signal or exit code and last words."""

    process: ProcessId
    reason: str
    out_of_memory: bool = False


class Label(Message):
    """From an actor: mark what I print with this, if anything; and whether it is to hear of the runtime's end."""

    text: str
    hears_end: bool = False


class Output(Message):
    """Lines that a worker printed."""

    who: str
    text: str
    error: bool


class NotUnderstood(Message):
    """That process has said what makes no sense: end it, for its caller would wait for it for ever."""

    process: ProcessId
    reason: str


class Exit(Message):
    """To a worker: end when what you run has ended."""


class Shutdown(Message):
    """From the driver: end everything."""


# Node ↔ fork server -----------------------------------------------------------------------------------------------


class Fork(Message):
    """Make a worker; the write ends of its standard output and error travel with this."""

    process: ProcessId
    title: str
    environment: Environment | None = None


class Forked(Message):
    """It runs under this pid."""

    process: ProcessId
    pid: int


class Exited(Message):
    """A child has ended, with this status as `os.wait4` gives it; `peak`: the most memory that it held, bytes."""

    pid: int
    status: int
    peak: int


_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Union[tuple(Message.__subclasses__())])  # noqa: UP007  # made of a list
_encode_into = msgspec.msgpack.Encoder().encode_into


def encode(message: Message) -> bytearray:
    """Return the message as a frame, its length before it."""
    frame = bytearray(4)
    _encode_into(message, frame, 4)
    frame[:4] = (len(frame) - 4).to_bytes(4, "little")
    return frame


def decode(payload: bytes | memoryview) -> Message:
    """Return the message in a frame's payload."""
    return _decoder.decode(payload)
