"""The fast way to put a gradient together: each learner sums its own shards, and torch.distributed the learners'.

The sum's bits follow from the number of learners and from the library; all must be there, and if one dies the update
is made again from the last state. This module doesn't import torch (see `lazy`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from ..lazy import torch
from .lost import StateLostError
from .reduction_tree import cover, even_parts, total
from .team import PATIENCE

if TYPE_CHECKING:
    from torch import Tensor

    from .shards import ShardedLoss

Found = TypeVar("Found")


class World:
    """This process's part in the worlds of torch.distributed that it belongs to, one after the other."""

    def __init__(self) -> None:
        self._address: str | None = None
        self._rendezvous: Any = None

    def open(self) -> str:
        """Make a place where the learners of a new world meet, on this machine; returns its address."""
        self.leave()
        self._rendezvous = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        return f"127.0.0.1:{self._rendezvous.port}"

    def join(self, address: str, rank: int, size: int, *, cuda: bool) -> None:
        """Belong to the world that meets at an address; waits until all are there. Does nothing if that is so."""
        if address == self._address:
            return
        own = self._rendezvous
        if rank or own is None:
            self.leave()
            host, port = address.split(":")
            own = torch.distributed.TCPStore(host, int(port), is_master=False)
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        # Else a call of NCCL's returns before it is done, and who waits in vain for a dead peer is ended, not told.
        os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
        patience = timedelta(seconds=PATIENCE)
        store = torch.distributed.PrefixStore(address, own)
        backend = "nccl" if cuda else "gloo"
        _all_there(
            lambda: torch.distributed.init_process_group(
                backend,
                store=store,
                rank=rank,
                world_size=size,
                timeout=patience,
                device_id=torch.device("cuda", torch.cuda.current_device()) if cuda else None,
            )
        )
        self._address, self._rendezvous = address, own

    def leave(self) -> None:
        """Belong to none."""
        if self._address is not None:
            torch.distributed.destroy_process_group()
        self._address = self._rendezvous = None

    @staticmethod
    def gradient(loss: ShardedLoss) -> list[tuple[int, Tensor]]:
        """As `Team.gradient`, of the world. Raises StateLostError if somebody is missing."""
        distributed = torch.distributed
        rank, size = distributed.get_rank(), distributed.get_world_size()
        start, stop = even_parts(loss.shards, size)[rank]
        own = torch.zeros_like(loss.gradients)
        for node in cover((start, stop), (0, loss.shards)):
            found = total(node, {}, loss.gradient, torch.Tensor.add_)
            if found is not None:
                own += found
        packed: list[Any] = [None] * size
        _all_there(lambda: distributed.all_reduce(own))
        _all_there(lambda: distributed.all_gather_object(packed, loss.packed(range(start, stop))))
        for other, told in enumerate(packed):
            if other != rank:
                loss.unpack(told)
        return [(0, own)]


def _all_there(call: Callable[[], Found]) -> Found:
    """What a call gives that all learners make. StateLostError if one of them doesn't."""
    try:
        return call()
    except RuntimeError as error:
        raise StateLostError(f"another learner does not take part: {error}") from error
