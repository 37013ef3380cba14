"""Process ↔ node: what drivers and workers ask of their node, and what it tells them."""

from __future__ import annotations

import msgspec

from ...core.ids import ActorKey, GroupId, NodeId, ObjectId, ProcessId
from ...core.reports.rows import PlacementGroupState
from .peer_messages import Assigned, Construct, Function
from .wire import Awaited, Count, Demand, Environment, Job, Message, NodeInfo, Placement, Question, Span, Units

# Who is there ------------------------------------------------------------------------------------------------------


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


# Workers -----------------------------------------------------------------------------------------------------------


class WantLeases(Message):
    """I could use so many more workers with these resources; replaces what I said before about `key`.

    `inputs`: bytes that the first of the tasks will read, by the node that they lie on. `spread`: on different nodes.
    """

    key: int
    demand: Demand
    count: Count
    job: Job
    environment: Environment | None = None
    placement: Placement | None = None
    retriable: bool = True
    inputs: dict[NodeId, Count] = msgspec.field(default_factory=dict)
    spread: bool = False


class EnvironmentFailed(Message):
    """The workers that you want for kind `key` cannot be had: their environment fails, for this reason."""

    key: int
    reason: str


class Leased(Message):
    """You may push tasks of kind `key` to that worker, which has these GPUs."""

    key: int
    worker: ProcessId
    gpus: list[str]


class Recall(Message):
    """Others have waited for long: give that worker back when the tasks that you have pushed to it have ended."""

    worker: ProcessId


class ReturnLease(Message):
    """I don't need that worker any more; `reusable`: others may have it."""

    worker: ProcessId
    reusable: bool = True


class KillWorker(Message):
    """Kill the worker that I have leased: the task that it runs was cancelled, and it does not listen."""

    worker: ProcessId


class Blocked(Message):
    """My task waits for others; its CPUs may be used meanwhile."""


class Unblocked(Message):
    """My task goes on."""


# Actors ------------------------------------------------------------------------------------------------------------


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


class ReserveName(Question[bytes | None]):
    """Declare that actor, and let it have this name. `identity`: see `actors.pack_identity`; opaque to the node.

    The answer: None, or the identity of the living actor that has the name.
    """

    create: CreateActor
    namespace: str
    name: str
    identity: bytes


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


class FindActor(Question[bytes | None]):
    """What is the identity of the living actor of that name?"""

    namespace: str
    name: str


class ListNames(Question[list[tuple[str, str]]]):
    """Which namespaces and names do living actors have?"""


# Placement groups --------------------------------------------------------------------------------------------------


class GroupRefused(msgspec.Struct, array_like=True):
    """Why a group is not made, and whether that is for want of resources: it may wait for some, if that is allowed."""

    reason: str
    infeasible: bool = False


class CreateGroup(Question[GroupRefused | None]):
    """Reserve these bundles, all of them or none; `detached`: for longer than the creator lives."""

    group: GroupId
    bundles: list[Demand]
    strategy: str
    name: str
    detached: bool


class WatchGroup(Message):
    """Tell me the state of that group, now and whenever it changes."""

    group: GroupId


class GroupState(Message):
    """How a group is: "PENDING", "CREATED" or "REMOVED" (`reason`)."""

    group: GroupId
    state: str
    reason: str = ""


class GroupReserved(Message):
    """Said by a node: all bundles of that group are reserved."""

    group: GroupId


class RemoveGroup(Message):
    """Give back the bundles of that group, and end what runs in it."""

    group: GroupId


class AskGroups(Question[list[PlacementGroupState]]):
    """Which groups are there?"""


# The object store: who may use how much memory, what moves to disk, who holds what ---------------------------------


class Movable(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An object that its owner could move to disk: `size` bytes, last `used` at that time (monotonic seconds)."""

    object: ObjectId
    size: Count
    used: float


class LargeObject(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One of the largest objects of a process; `site`: where it was made, if that is recorded."""

    object: ObjectId
    size: Count
    viewed: bool
    site: str


class Holdings(msgspec.Struct, array_like=True, gc=False):
    """What a process owns in the store, and what it has made there for whomever; sizes in bytes.

    `lingering` is what it made, nobody refers to any more, and somebody still views.
    """

    objects: Count = 0
    size: Count = 0
    viewed: Count = 0
    blocks: Count = 0
    made: Count = 0
    lingering: Count = 0
    on_disk: Count = 0
    largest: list[LargeObject] = []


class NewArena(Question[int]):
    """The descriptor of my arena travels with this; the answer is the number that the node holds it under."""

    on_disk: bool = False


class WantMemory(Message):
    """I need so many bytes more of the store."""

    request: int
    size: Count


class MemoryGranted(Message):
    """You may use so many bytes more: at least what the request asked for."""

    request: int
    size: Count


class MemoryRefused(Message):
    """There is no room for what you asked for; the reason is for the user."""

    request: int
    reason: str


class Trim(Message):
    """Give back what you do not use, and name what you could move to disk, about `wanted` bytes of it.

    `last`: nothing was gained for long, so look for garbage, too, whatever that costs; if this brings nothing either,
    somebody is refused.
    """

    wanted: Count
    last: bool = False


class Trimmed(Message):
    """The answer. `moving`: objects are on their way to disk right now."""

    returned: Count
    movable: list[Movable]
    moving: bool
    holdings: Holdings


class MemoryReturned(Message):
    """I use so many bytes less."""

    size: Count


class Spill(Message):
    """Move these objects of yours to disk."""

    objects: list[ObjectId]


class Spilled(Message):
    """So many bytes were moved; `trouble`: why not all: the folder, and what its file system says."""

    size: Count
    trouble: str


class AskNeeded(Message):
    """That process is dead and has left blocks of yours: it may not have read which ones you freed last."""

    maker: ProcessId


class StillNeeded(Message):
    """The answer: of what it left I need these blocks, and no others."""

    maker: ProcessId
    spans: list[Span]


# Waits that last: which process waits for which, and which waits never end -----------------------------------------


class Waits(Message):
    """To the node: what runs here waits, without limit, for so many of these; `epoch` counts the waits."""

    epoch: int
    what: str
    needed: Count
    awaited: list[Awaited]


class GoesOn(Message):
    """To the node: the wait that was reported last is over."""


class AskWait(Message):
    """From the node: do you still wait, and for which processes?"""

    epoch: int


class Deadlocked(Message):
    """From the node: that wait would last for ever."""

    epoch: int
    reason: str


# What goes on; payloads are `core.reports.rows` ---------------------------------------------------------------------


class AskState(Message):
    """To the node, from a connection that has not registered, or from another node: how is everything?

    For sections see `rows.SECTIONS`. The answer comes once all processes have answered or `seconds` are over.
    """

    question: int
    sections: list[str]
    limit: Count
    seconds: float


class ReportState(Message):
    """From the node to a process: what is it that only you know?"""

    question: int
    sections: list[str]
    limit: Count


class StateReport(Message):
    """The process's answer: a packed ProcessReport; `metrics`: it holds some. Unasked (question 0) before it ends."""

    question: int
    payload: bytes
    metrics: bool


class State(Message):
    """The node's answer to AskState: a packed NodeReport, the processes' answers, and those that came too late.

    `others`: if it is the head, what the other nodes answered.
    """

    question: int
    node: bytes
    reports: list[bytes]
    silent: list[ProcessId]
    others: list[State] = msgspec.field(default_factory=list)


# Values by name, resources, what processes print, deaths, the end --------------------------------------------------


class Publish(Message):
    """Keep a value under a name."""

    key: str
    payload: bytes


class Lookup(Question[bytes | None]):
    """What is kept under that name?"""

    key: str


class AskResources(Question[Units]):
    """What is free, now?"""


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
