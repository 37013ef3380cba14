"""Blocks of shared memory that lie on other nodes: fetched when they are first read, and kept while they are in use.

The reader asks for a block piece by piece, a few pieces at a time, so that neither the nodes on the way nor the line
between them ever hold more than that. It has a reference to the object all the while, so the owner keeps the block.
"""

from __future__ import annotations

import mmap
import weakref
from collections import deque
from collections.abc import Callable, Iterable

from ...core.ids import node_of
from ..protocol import messages as m
from ..protocol.connection import Connection
from ..store.views import StaleBlockError
from .links import Links
from .objects import Record, spans_of
from .reactor import Waiter

_PIECE = 1 << 20
_MOST_UNDER_WAY = 8


class _Transfer:
    """A block that is being fetched."""

    def __init__(self, span: m.Span) -> None:
        self.span = span
        self.copy = mmap.mmap(-1, span.size)
        self.missing = -(-span.size // _PIECE)
        self.then: list[Callable[[], None]] = []


class Fetching:
    """One process's copies of other nodes' blocks: each is fetched once, however many want it."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._copies: weakref.WeakValueDictionary[m.Span, mmap.mmap] = weakref.WeakValueDictionary()
        self._transfers: dict[m.Span, _Transfer] = {}
        self._pieces: deque[m.ReadBlock] = deque()
        self._under_way: set[tuple[m.Span, int]] = set()  # by span and start

    def absent(self, value: m.Value) -> list[m.Span]:
        """Return the blocks of a value that must be fetched before it can be read."""
        here = node_of(self._links.me)
        return [span for span in spans_of(value) if node_of(span.maker) != here and span not in self._copies]

    def fetch(self, spans: Iterable[m.Span], then: Callable[[], None]) -> dict[m.Span, mmap.mmap]:
        """Fetch blocks; called under the lock. `then` is called, under it, when all are there or lost.

        Returns:
            the copies, which live as long as anyone holds them.
        """
        left = [1]  # counted one up, so that nothing happens before all have been looked at
        copies = {}

        def arrived() -> None:
            left[0] -= 1
            if left[0] == 0:
                then()

        for span in spans:
            copy = self._copies.get(span)
            if copy is None:
                transfer = self._transfers.get(span) or self._begin(span)
                transfer.then.append(arrived)
                left[0] += 1
                copy = transfer.copy
            copies[span] = copy
        self._ask()
        arrived()
        return copies

    def wait(self, spans: Iterable[m.Span]) -> dict[m.Span, mmap.mmap]:
        """As `fetch`; blocks until all that can be had are here, and returns only these."""
        waiter = Waiter()
        with self._links.lock:
            copies = self.fetch(spans, waiter.finish)
        self._links.reactor.wait(waiter)
        return {span: copy for span, copy in copies.items() if span in self._copies}

    def fetch_values(self, records: Iterable[Record]) -> None:
        """Fetch the values that lie on other nodes, all at once, and keep them as long as the records; blocks."""
        wanted = [(record, self.absent(record.value)) for record in records if record.value is not None]
        copies = self.wait([span for _, spans in wanted for span in spans])
        for record, spans in wanted:
            if spans:
                record.keep(copies[span] for span in spans if span in copies)

    def view(self, span: m.Span) -> memoryview:
        """Return a block of another node; blocks until it is here.

        Raises:
            StaleBlockError: it is not there any more.
        """
        copy = self.wait([span]).get(span)
        if copy is None:
            raise StaleBlockError(span)
        return memoryview(copy).toreadonly()

    # Pieces -----------------------------------------------------------------------------------------------------

    def _begin(self, span: m.Span) -> _Transfer:
        transfer = self._transfers[span] = _Transfer(span)
        for start in range(0, span.size, _PIECE):
            self._pieces.append(m.ReadBlock(span, start, min(_PIECE, span.size - start)))
        return transfer

    def _ask(self) -> None:
        while self._pieces and len(self._under_way) < _MOST_UNDER_WAY:
            piece = self._pieces.popleft()
            self._under_way.add((piece.span, piece.start))
            self._links.node.send(piece)

    def on_block_read(self, node: Connection, message: m.BlockRead) -> None:
        self._under_way.discard((message.span, message.start))
        transfer = self._transfers.get(message.span)
        if transfer is not None:
            if message.problem:
                self._end(transfer, lost=True)
            else:
                transfer.copy[message.start : message.start + len(message.data)] = message.data
                transfer.missing -= 1
                if transfer.missing == 0:
                    self._end(transfer, lost=False)
        self._ask()

    def _end(self, transfer: _Transfer, lost: bool) -> None:
        del self._transfers[transfer.span]
        if lost:
            self._pieces = deque(piece for piece in self._pieces if piece.span != transfer.span)
        else:
            self._copies[transfer.span] = transfer.copy
        for then in transfer.then:
            then()

    def on_node_death(self, node: bytes, reason: str) -> None:
        """Event: a node is dead, and all blocks there are lost."""
        self._under_way = {piece for piece in self._under_way if node_of(piece[0].maker) != node}
        for transfer in [one for span, one in self._transfers.items() if node_of(span.maker) == node]:
            self._end(transfer, lost=True)
        self._ask()
