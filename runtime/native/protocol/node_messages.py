"""Node ↔ node, and what processes learn of other nodes: who is there, messages to pass on, load, blocks to read."""

from __future__ import annotations

from typing import Any

import msgspec

from ...core.ids import ActorKey, NodeId, ProcessId
from .process_messages import WantLeases
from .wire import Count, Demand, Environment, Job, Message, NodeInfo, Placement, Question, Span, Units


class ActorWanted(Message):
    """Between nodes: make a process for that actor as soon as it can have its resources; `owner`: b"" if detached."""

    actor: ActorKey
    owner: ProcessId
    class_name: str
    demand: Demand
    job: Job
    environment: Environment | None = None
    placement: Placement | None = None
    retriable: bool = False
    spread: bool = False


class Join(Message):
    """First from a node to the head: take me in."""

    node: NodeInfo


class Welcome(Message):
    """The head's answer: nodes, the head first; where others join; settings that are the same everywhere."""

    nodes: list[NodeInfo]
    address: str
    settings: dict[str, Any]


class NodeJoined(Message):
    """A node has joined."""

    node: NodeInfo


class NodeDied(Message):
    """A node is gone, and all its processes with it; their deaths were told before this."""

    node: NodeId
    reason: str


class Pass(Message):
    """Pass a message on to that process or node; from a process, or said by a node."""

    to: ProcessId | NodeId
    by: ProcessId | NodeId
    payload: bytes


class Relay(Message):
    """A message to that process of another node; when it arrives: from that one."""

    process: ProcessId
    payload: bytes


class StillHere(Message):
    """To the head, from time to time: the sending node's loop turns."""


class ProcessMade(Message):
    """The sending node has a new process."""

    process: ProcessId


class EndProcess(Message):
    """End that process of yours: gracefully, or at once."""

    process: ProcessId
    gracefully: bool


class ForgetActor(Message):
    """That actor is not to be started after all."""

    actor: ActorKey


class Wish(msgspec.Struct, array_like=True, gc=False):
    """What a node has not been able to grant so far: `count` workers for a process, or one actor."""

    asker: ProcessId
    count: Count
    request: WantLeases | ActorWanted

    @property
    def is_for_actor(self) -> bool:
        """Whether it is for an actor's process, and not for workers."""
        return isinstance(self.request, ActorWanted)

    @property
    def key(self) -> int | ActorKey:
        """Return the kind of the process's tasks, or the actor."""
        return self.request.key if isinstance(self.request, WantLeases) else self.request.actor

    def is_of(self, other: Wish) -> bool:
        """Return whether it is for the same request as another one."""
        ours, theirs = (self.asker, self.key, self.request.spread), (other.asker, other.key, other.request.spread)
        return ours == theirs

    @property
    def inputs(self) -> dict[NodeId, int]:
        """Return how many bytes the first task will read, by the node that they lie on."""
        return self.request.inputs if isinstance(self.request, WantLeases) else {}


class NodeLoad(Message):
    """To the head, whenever it changes: what is free, what was asked for in vain, how long a lease lasts (seconds).

    `seen`: how many Place and Placed had arrived by then.
    """

    available: Units
    wishes: list[Wish]
    seconds: float
    seen: Count


class Place(Message):
    """From the head: grant this, for another node, which has no room."""

    wish: Wish


class Placed(Message):
    """From the head: one of what you could not grant was taken over by another node."""

    asker: ProcessId
    key: int | ActorKey
    spread: bool


class ReadBlock(Message):
    """To the node of a block's maker: what are its bytes from `start` on, so many?"""

    span: Span
    start: Count
    size: Count


class BlockRead(Message):
    """The answer, or why there is none."""

    span: Span
    start: Count
    data: bytes
    problem: str = ""


class Nodes(msgspec.Struct, array_like=True):
    """The living and the dead, which one is the head, and at which address others can join (or "")."""

    alive: list[NodeInfo]
    dead: list[NodeInfo]
    head: NodeId
    address: str


class AskNodes(Question[Nodes]):
    """Which nodes are there, and which were?"""
