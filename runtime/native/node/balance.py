"""Work between nodes: each tells the head what is free and what it cannot grant; the head has others grant it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from ...core.ids import node_of
from ...core.resources.amounts import Demand
from ..protocol import messages as m
from .cluster import Cluster
from .leasing import Leasing
from .spreading import Move, Spreading

# In one round of the loop, so that the node goes on reading.
_MOST_MOVES = 1000


class Balance:
    """One node's part in sharing work; the head's part, too.

    Attributes:
        at_head: messages of processes that only the head can handle.
    """

    def __init__(self, cluster: Cluster, leasing: Leasing) -> None:
        self._cluster, self._leasing = cluster, leasing
        self._seen = 0
        self._told: m.NodeLoad | None = None
        self._spreading = Spreading(cluster.me)
        me = cluster.nodes[cluster.me]
        self._spreading.joined(me.id, me.resources)
        self.at_head = (m.AskResources,)
        self.handlers: dict[type, Callable[..., None]] = {
            m.NodeLoad: self._on_load,
            m.Place: cluster.by_head(lambda message: self._on_place(message.wish)),
            m.Placed: cluster.by_head(self._on_placed),
            m.ForgetActor: cluster.by_head(lambda message: leasing.forget_actor(message.actor)),
            m.AskResources: lambda process, message: cluster.tell(process, m.Answer.to(message, self._available())),
        }

    def changed(self, message: m.NodeJoined | m.NodeDied) -> None:
        """A node has joined or died."""
        if isinstance(message, m.NodeJoined):
            self._spreading.joined(message.node.id, message.node.resources)
        else:
            for wish in self._spreading.died(message.node):
                self._leasing.place(wish)
        nodes = self._cluster.nodes
        mine = nodes[self._cluster.me].resources
        others_work = any(node.resources.get("CPU") for node in nodes.values())
        self._leasing.leave_work(not mine.get("CPU") and others_work, len(nodes) > 1)

    def want_actor(self, wanted: m.ActorWanted) -> None:
        """An actor is to be made: on its owner's node, unless that has no room."""
        home = node_of(wanted.owner)
        if wanted.spread and len(self._spreading.nodes) > 1:
            self._look_here(self._leasing.load(0))
            home = self._spreading.next_node(wanted.demand) or home
        if home == self._cluster.me or home not in self._spreading.nodes or wanted.placement is not None:
            self._leasing.want_actor(wanted)
        else:
            wish = m.Wish(wanted.owner, 1, wanted)
            self._spreading.give(home, wish)
            self._cluster.tell_node(home, m.Place(wish))

    def grant(self) -> None:
        """Give out what has become free on this node."""
        self._leasing.grant()

    def actor_made(self, actor: m.ActorKey) -> None:
        """An actor that another node was to make has its process."""
        self._spreading.actor_made(actor)

    def forget_actor(self, actor: m.ActorKey) -> None:
        """An actor is not to be started after all, on whichever node it was to be."""
        self._leasing.forget_actor(actor)
        self._spreading.actor_made(actor)
        self._cluster.spread(m.ForgetActor(actor))

    def _available(self) -> Demand:
        self._look_here(self._leasing.load(0))
        return self._spreading.available()

    def _look_here(self, load: m.NodeLoad) -> None:
        here = self._spreading.nodes[self._cluster.me]
        here.unseen.clear()  # what is decided for this node is done at once
        here.report(load)

    def _on_load(self, node: m.NodeId, load: m.NodeLoad) -> None:
        # What is wanted by one that has died, or never was, nobody would withdraw; and of an actor there is one.
        lives = self._cluster.lives
        load.wishes = [w for w in load.wishes if (w.count == 1 if w.is_for_actor else lives(w.asker))]
        self._spreading.nodes[node].report(load)

    def _on_place(self, wish: m.Wish) -> None:
        self._seen += 1
        self._leasing.place(wish)
        self._leasing.grant()

    def _on_placed(self, message: m.Placed) -> None:
        self._seen += 1
        self._leasing.placed(message.asker, message.key, message.spread)

    def settle(self) -> bool:
        """Carry out what has become due; after each round of the loop. Return whether there is more."""
        if len(self._cluster.nodes) == 1:
            return False
        load = self._leasing.load(self._seen)
        if not self._cluster.is_head:
            if load != self._told:
                self._told = load
                self._cluster.tell_head(load)
            return False
        self._look_here(load)
        moves = list(islice(self._spreading.moves(), _MOST_MOVES))
        for move in moves:
            self._move(move)
        if moves:
            self._leasing.grant()
        return len(moves) == _MOST_MOVES

    def _move(self, move: Move) -> None:
        if move.to == self._cluster.me:
            self._leasing.place(move.wish)
        else:
            self._cluster.tell_node(move.to, m.Place(move.wish))
        wish = move.wish
        if move.home == self._cluster.me:
            self._leasing.placed(wish.asker, wish.key, wish.request.spread)
        else:
            self._cluster.tell_node(move.home, m.Placed(wish.asker, wish.key, wish.request.spread))
