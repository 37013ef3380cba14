"""Which node takes what another one cannot grant: pure functions and a state machine without I/O, for the head.

Scheduling is bottom-up: each node grants what it can by itself, and tells the head what is free and what it could
not grant. A request stays where it was made until another node has room for it at once, so it is never bound to a
queue that turns out to be the slower one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from ...core.resources.amounts import UNIT, Demand
from ..protocol.messages import ActorKey, NodeId, NodeLoad, Wish

# So many decisions may be under way to a node: one that does not say what it has seen is given no more.
_MOST_UNSEEN = 1000
#: Bytes that come from another node per second, to weigh waiting for a CPU against fetching inputs.
BANDWIDTH = 2e8


@dataclass
class NodeState:
    """What the head knows of a node: what it has, its last report, and what was decided since.

    Attributes:
        sent: how many decisions the node was told so far.
        unseen: those that its last report did not know of: number, resources taken, or the wish taken from it.
    """

    total: Demand
    available: Demand
    wishes: list[Wish] = field(default_factory=list)
    seconds: float = 0.0
    sent: int = 0
    unseen: deque[tuple[int, Demand | Wish]] = field(default_factory=deque)

    def apply(self, decision: Demand | Wish) -> None:
        """Change what is known by a decision that the node's report does not know of."""
        if isinstance(decision, dict):
            self.available = {name: free - decision.get(name, 0) for name, free in self.available.items()}
        else:
            for wish in self.wishes:
                if wish.is_of(decision):
                    wish.count -= 1

    def note(self, decision: Demand | Wish) -> None:
        """A decision is sent to the node."""
        self.sent += 1
        self.unseen.append((self.sent, decision))
        self.apply(decision)

    def report(self, load: NodeLoad) -> None:
        """The node says how it is."""
        self.available, self.wishes, self.seconds = dict(load.available), load.wishes, load.seconds
        while self.unseen and self.unseen[0][0] <= load.seen:
            self.unseen.popleft()
        for _, decision in self.unseen:
            self.apply(decision)


class Move(msgspec.Struct, frozen=True):
    """One of a wish that `home` could not grant is granted by `to`."""

    home: NodeId
    to: NodeId
    wish: Wish


def in_group(wish: Wish) -> bool:
    """Return whether it is to run in a placement group."""
    return wish.request.placement is not None


def fits(free: Demand, demand: Demand) -> bool:
    """Return whether so much is free."""
    return all(free.get(name, 0) >= units for name, units in demand.items())


def estimated_wait(node: NodeState, demand: Demand, missing: float) -> float:
    """Return after how many seconds a node could begin: queue × average time of a lease + missing input / bandwidth.

    Args:
        node: the node.
        demand: the resources; infinite if the node never has them.
        missing: bytes of input that lie on other nodes.
    """
    if not fits(node.total, demand):
        return float("inf")
    queue = 0.0
    if not fits(node.available, demand):
        waiting = 1 + sum(wish.count for wish in node.wishes)
        queue = waiting * max(node.seconds, 1e-3) / max(1, node.total.get("CPU", 0) // UNIT)
    return queue + missing / BANDWIDTH


def choose(
    nodes: Mapping[NodeId, NodeState], home: NodeId, demand: Demand, inputs: Mapping[NodeId, int]
) -> NodeId | None:
    """Return the node that a request of `home`'s is to wait on: that of the lowest estimated wait, if in doubt home.

    Args:
        nodes: all that live.
        home: the node of whoever asks.
        demand: the resources.
        inputs: bytes of input by the node that they lie on.

    Returns:
        None if no node can ever meet the demand.
    """
    total = sum(inputs.values())
    waits = {
        name: estimated_wait(nodes[name], demand, total - inputs.get(name, 0)) for name in _candidates(nodes, demand)
    }
    best = min(waits, key=lambda name: (waits[name], name != home), default=None)
    return best if best is not None and waits[best] < float("inf") else None


def _candidates(nodes: Mapping[NodeId, NodeState], demand: Demand) -> list[NodeId]:
    """Return the nodes that a request may go to: one that asks for nothing goes where there is a CPU, if anywhere."""
    workers = [name for name, node in nodes.items() if node.total.get("CPU")]
    return list(nodes) if demand or not workers else workers


class Spreading:
    """What the head knows of all nodes, and what it decides. Bundles of placement groups are reserved on the head."""

    def __init__(self, head: NodeId) -> None:
        self._head = head
        self.nodes: dict[NodeId, NodeState] = {}
        self._turns: dict[NodeId, int] = {}  # when something that is to be spread was last sent there
        self._turn = 0
        self._actors: dict[ActorKey, tuple[NodeId, Wish]] = {}  # given to a node that has not made a process yet

    def joined(self, node: NodeId, total: Demand) -> None:
        """Event: a node is there."""
        self.nodes[node] = NodeState(total, dict(total))

    def died(self, node: NodeId) -> list[Wish]:
        """Event: a node is gone. Return the actors that it was to make and had not made."""
        self.nodes.pop(node, None)
        self._turns.pop(node, None)
        lost = {key: wish for key, (to, wish) in self._actors.items() if to == node}
        for key in lost:
            del self._actors[key]
        return list(lost.values())

    def actor_made(self, actor: ActorKey) -> None:
        """Event: a process is made for an actor, or the actor is not wanted any more."""
        self._actors.pop(actor, None)

    def available(self) -> Demand:
        """Return what is free, on all nodes together."""
        together: Demand = {}
        for node in self.nodes.values():
            for name, units in node.available.items():
                together[name] = together.get(name, 0) + max(0, units)
        return together

    def moves(self) -> Iterable[Move]:
        """Return what to move now; it counts as done from here on."""
        for home, state in self.nodes.items():
            for wish in list(state.wishes):
                while (
                    wish.count > 0 and len(state.unseen) < _MOST_UNSEEN and (to := self._taker(home, wish)) is not None
                ):
                    state.note(wish)
                    self.give(to, wish)
                    yield Move(home, to, wish)

    def _taker(self, home: NodeId, wish: Wish) -> NodeId | None:
        """Return the other node that can grant one of a wish now."""
        if wish.request.spread:
            return self.next_node(wish.request.demand)
        to = self._head if in_group(wish) else choose(self.nodes, home, wish.request.demand, wish.inputs)
        if to is None or to == home:
            return None
        return to if in_group(wish) or fits(self.nodes[to].available, wish.request.demand) else None

    def next_node(self, demand: Demand) -> NodeId | None:
        """Return where the next of what is spread runs: the node whose turn was longest ago, best one that has room."""
        able = [name for name in _candidates(self.nodes, demand) if fits(self.nodes[name].total, demand)]
        if not able:
            return None
        room = {name: fits(self.nodes[name].available, demand) for name in able}
        chosen = min(able, key=lambda name: (not room[name], self._turns.get(name, 0)))
        self._turn += 1
        self._turns[chosen] = self._turn
        return chosen

    def give(self, to: NodeId, wish: Wish) -> None:
        """A node is told to grant one of a wish."""
        self.nodes[to].note({} if in_group(wish) else wish.request.demand)
        if isinstance(wish.key, bytes):
            self._actors[wish.key] = (to, wish)
