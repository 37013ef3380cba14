"""Blocks that are not needed any more go back to the processes that have made them, and from there to the node."""

from __future__ import annotations

import time
import traceback

from ...exceptions import InternalError
from ..protocol import messages as m
from ..protocol.connection import Connection
from ..store.store import Store
from .links import Links

# The node asks again and again while it wants memory back; so long after the last time it does not any more.
_PRESSED = 0.2


class Freeing:
    """What a process does with blocks that are freed."""

    def __init__(self, links: Links, store: Store) -> None:
        self._links, self._store = links, store
        self._pressed_until = 0.0

    def free(self, spans: list[m.Span]) -> None:
        """Tell the makers of blocks that they can be reused."""
        links = self._links
        by_maker: dict[bytes, list[m.Span]] = {}
        for span in spans:
            by_maker.setdefault(span.maker, []).append(span)
        for maker, theirs in by_maker.items():
            if maker == links.me:
                try:
                    self._free_own(theirs)
                except InternalError:  # a leak at worst, and not the fault of the thread that reads now
                    traceback.print_exc()
                continue
            peer = links.peer(maker)
            if peer is not None:
                peer.post(m.Free(theirs))
                links.reactor.flush_soon(peer)
            else:
                links.node.send(m.Free(theirs))

    def on_free(self, peer: Connection, message: m.Free) -> None:
        self._free_own(message.spans)

    def _free_own(self, spans: list[m.Span]) -> None:
        self._store.free(spans)
        self.trim_if_pressed()

    def expect_pressure(self) -> None:
        """Event: others wait for memory."""
        self._pressed_until = time.monotonic() + _PRESSED

    def trim_if_pressed(self) -> None:
        """Blocks of this process's own were freed: while others wait for memory, they are to have it at once."""
        if self._pressed_until and time.monotonic() < self._pressed_until:
            size = self._store.trim()
            if size:
                self._links.node.send(m.MemoryReturned(size))
