"""How the learners of a group put a gradient together, each a part of it.

    round 0    each computes its shards' gradients, adds what the tree lets it add, and offers these nodes to the others
    round 1    each adds all learners' nodes for its range of the parameters, and offers that part of the sum

The tree is that of the shards (see `reduction_tree`), so who adds what does not change a bit. What somebody else should
have given and doesn't (its process died, it stands still) everybody computes by itself, from the same rows: so nobody
must agree with anybody on who is there, and nothing is done over. A small gradient is not worth the second round.

This module doesn't import torch (see `lazy`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...runtime import ActorHandle, ObjectRef, empty, exceptions, get, put
from ..lazy import torch
from .lost import StateLostError
from .mailbox import Mailbox
from .reduction_tree import Node, cover, even_parts, total

if TYPE_CHECKING:
    from torch import Tensor

    from .shards import ShardedLoss

PATIENCE = 60.0
"""Seconds that a learner waits for another one before it does the other's part itself."""
_SPLIT = 1 << 16
"""Parameters from which on a second round is worth its 0.4 ms: the sums over a few shards take longer."""
_VECTORS = 64
"""Parameters that a part of them is a multiple of: no vector of a processor is wider."""
_BOXED = 100_000
"""Bytes from which on what is offered is put into the store once, not sent to each of the others."""
_GONE = (exceptions.ActorError, exceptions.ObjectLostError, exceptions.WorkerCrashedError, exceptions.NodeDiedError)

logger = logging.getLogger("shoal")


@dataclass(frozen=True)
class Membership:
    """Who takes part in an update, in an order that is the same for all of them; and which of them is asked."""

    attempt: int
    members: tuple[ActorHandle, ...]
    index: int
    world: str | None = None
    """Where they meet to be a world of torch.distributed; None: they are a team."""
    divides: bool = False
    """Whether each keeps the moments of a part of the parameters."""


@dataclass
class Team:
    """A learner's company in one update. It notes who is missing."""

    membership: Membership
    mailbox: Mailbox
    exchanges: int = 0
    present: list[int] = field(init=False)
    """Indices of those who are there, one's own included."""

    def __post_init__(self) -> None:
        self.present = list(range(len(self.membership.members)))

    def gradient(self, loss: ShardedLoss) -> list[tuple[int, np.ndarray]]:
        """The sum of the gradients of all shards, in pieces: where each begins, and its numbers. What the losses tell
        is noted in `loss`."""
        exchange, self.exchanges = self.exchanges, self.exchanges + 1
        whole = (0, loss.shards)
        if loss.size * 4 >= _BOXED:
            loss.keep = _in_the_store
        nodes = self._nodes(loss, exchange)

        def sum_of(start: int, stop: int) -> np.ndarray:
            def shard_of(shard: int) -> np.ndarray | None:
                own = (shard, shard + 1)
                if own not in nodes:
                    nodes[own] = _array(loss.gradient(shard))
                return _part(nodes[own], start, stop)

            known = {node: _part(values, start, stop) for node, values in nodes.items()}
            found = total(whole, known, shard_of, _add)
            assert found is not None, "a minibatch has rows"
            return found

        if loss.size < _SPLIT or len(self.present) == 1:
            return [(0, sum_of(0, loss.size))]
        ranges = even_parts(loss.size, len(self.present))
        asked = self._ask(exchange, 1)
        start, stop = ranges[self.present.index(self.membership.index)]
        own = sum_of(start, stop)
        self._offer(exchange, 1, (start, own))
        pieces = [(start, own), *self._receive(asked).values()]
        return pieces + [(start, sum_of(start, stop)) for start, stop in gaps(pieces, loss.size)]

    def part(self, size: int) -> Node:
        """As `Share.part`. Parts begin at whole vectors of the processor's: a number's bits are the same at the end of
        one. Moments that are few all keep."""
        if size < _SPLIT:
            return 0, size
        blocks = even_parts(-(-size // _VECTORS), len(self.membership.members))
        start, stop = blocks[self.membership.index]
        return start * _VECTORS, min(stop * _VECTORS, size)

    def others(self, start: int, own: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """As `Share.others`."""
        exchange, self.exchanges = self.exchanges, self.exchanges + 1
        asked = self._ask(exchange, 1)
        self._offer(exchange, 1, (start, own.copy()))
        found = self._receive(asked)
        if len(found) + 1 < len(self.membership.members):
            raise StateLostError("a learner is missing, and with it the moments of its part of the parameters")
        return list(found.values())

    def _nodes(self, loss: ShardedLoss, exchange: int) -> dict[Node, np.ndarray | None]:
        """What is known of the tree after the first round; and what the losses of those shards tell, in `loss`."""
        asked = self._ask(exchange, 0)
        whole = (0, loss.shards)
        start, stop = even_parts(loss.shards, len(self.present))[self.present.index(self.membership.index)]
        nodes = {
            node: _array(total(node, {}, loss.gradient, lambda left, right: left.add_(right)))
            for node in cover((start, stop), whole)
        }
        self._offer(exchange, 0, (nodes, loss.packed(range(start, stop))))
        for found, told in self._receive(asked).values():
            nodes |= found
            loss.unpack(told)
        for shard in range(loss.shards):  # what losses tell is wanted of all shards
            if shard not in loss.told and not loss.is_empty(shard):
                nodes[shard, shard + 1] = _array(loss.gradient(shard))
        return nodes

    def _ask(self, exchange: int, part: int) -> dict[int, ObjectRef]:
        """Ask the others for what they will offer. A call to one that dies fails, so nobody need watch them."""
        key, me = (self.membership.attempt, exchange, part), self.membership.index
        members = self.membership.members
        return {index: members[index].take.remote(key) for index in self.present if index != me}

    def _offer(self, exchange: int, part: int, value: Any) -> None:
        arrays = [array for array in (value[0].values() if part == 0 else value[1:]) if array is not None]
        large = sum(array.nbytes for array in arrays) >= _BOXED
        self.mailbox.post((self.membership.attempt, exchange, part), [put(value)] if large else value)

    def _receive(self, asked: Mapping[int, ObjectRef]) -> dict[int, Any]:
        """What the others offer, by their indices; who offers nothing is not there any more."""
        found, deadline = {}, time.monotonic() + PATIENCE
        for index, ref in asked.items():
            try:
                value = get(ref, timeout=max(0.0, deadline - time.monotonic()))
                found[index] = get(value[0]) if isinstance(value, list) else value
            except (*_GONE, exceptions.GetTimeoutError) as error:
                logger.debug("learner %d offers nothing: %s", index, error)
                found[index] = None
            if found[index] is None:
                del found[index]
                self.present.remove(index)
                logger.warning("learner %d of a group is missing: the others do its part", index)
        return found


def gaps(pieces: Sequence[tuple[int, np.ndarray]], size: int) -> list[Node]:
    """What pieces, which may overlap, leave out of the first `size` numbers."""
    found, reached = [], 0
    for start, values in sorted(pieces, key=lambda piece: piece[0]):
        if start > reached:
            found.append((reached, start))
        reached = max(reached, start + len(values))
    return [*found, (reached, size)] if reached < size else found


def _array(tensor: Any) -> np.ndarray | None:
    """A tensor as an array that is not changed any more: others read it."""
    if tensor is None:
        return None
    found: np.ndarray = tensor.cpu().numpy()
    found.flags.writeable = False
    return found


def _in_the_store(gradient: Tensor) -> Tensor:
    """A copy that can be offered without another one: an array from `empty` is sealed where it lies."""
    return torch.from_numpy(empty(len(gradient), np.float32)).copy_(gradient)


def _part(values: np.ndarray | None, start: int, stop: int) -> np.ndarray | None:
    return None if values is None else values[start:stop]


def _add(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Their sum, in the memory of one that is only ours, or in memory that can be offered without a copy."""
    own = [array for array in (left, right) if array.flags.writeable]
    if not own and left.nbytes >= _BOXED:
        own = [empty(len(left), np.float32)]
    return np.add(left, right, out=own[0] if own else None)
