"""What a process's own part of the store asks of the node: to hold its arenas, and memory for them."""

from __future__ import annotations

from collections.abc import Callable

from ...exceptions import ObjectStoreFullError
from ..protocol import messages as m
from ..protocol.connection import Connection
from ..store.store import Keeper
from .links import Links
from .reactor import Waiter


class NodeMemory(Keeper):
    """The `Keeper` of a process's store."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._requests: dict[int, tuple[Waiter, list[str], Callable[[int, int], None]]] = {}

    def hand_over(self, fd: int, on_disk: bool) -> int:
        return self._links.ask_node(m.NewArena(on_disk), (fd,)).arena

    def want(self, request: int, size: int, grant: Callable[[int, int], None]) -> None:
        """Wait until the node has granted so many bytes more, of which `grant` is told.

        Raises:
            ObjectStoreFullError: everything is in use, and stays so.
            ShoalError: the node is gone; see `Links.check`.
        """
        links, waiter, refusal = self._links, Waiter(), list[str]()
        with links.lock:
            links.check()
            self._requests[request] = waiter, refusal, grant
            links.node.send(m.WantMemory(request, size))
        # Not as a task that waits for others: its CPU would go to tasks that need memory, too.
        links.reactor.wait(waiter)
        if refusal:
            raise ObjectStoreFullError(refusal[0])
        if not waiter.ready:
            raise links.gone()
        links.check()

    # A thread that was interrupted while it waited is not there any more; what was granted is for the next one.

    def on_granted(self, node: Connection, message: m.MemoryGranted) -> None:
        """Event: a request is granted."""
        waiter, _, grant = self._requests.pop(message.request)
        grant(message.request, message.size)
        waiter.finish()

    def on_refused(self, node: Connection, message: m.MemoryRefused) -> None:
        """Event: a request is refused."""
        waiter, refusal, _ = self._requests.pop(message.request)
        refusal.append(message.reason)
        waiter.finish()

    def on_node_lost(self) -> None:
        """Event: the node is gone."""
        for waiter, _, _ in self._requests.values():
            waiter.finish()
