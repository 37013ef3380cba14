"""A process's part in sharing the object store: asks the node for memory, gives it back, moves objects to disk.

Whoever owns an object moves it, wherever its blocks lie: it copies them into its own arena on disk, writes the new
place into its record and frees the blocks as it frees any. Others, who know only the old place, find the blocks gone
and tell it, as they do when blocks are lost (`recovery.py`); the answer is the new place.
"""

from __future__ import annotations

import gc
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ...exceptions import InternalError, ObjectStoreFullError, ShoalError
from ..process.objects import FreeBlocks, spans_of
from ..process.reactor import Waiter
from ..protocol import messages as m
from ..protocol.wire import node_of
from .views import StaleBlockError

if TYPE_CHECKING:
    from ..process.client import Client

# The node asks again and again while it wants memory back; so long after the last time it does not any more.
_PRESSED = 0.2
_MOST_NAMED = 1000
# While others wait for memory, a process looks for garbage at most one part in so many of its time.
_COLLECTION_EVERY = 20
_LARGEST_SHOWN = 3


class Memory:
    """What a process does about the store's capacity; see the module.

    Attributes:
        needed: what yields blocks that this process needs besides its objects' values.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self.needed: list[Callable[[], Iterable[m.Span]]] = []
        self._requests: dict[int, tuple[Waiter, list[str]]] = {}
        self._pressed_until = 0.0
        self._collecting = False
        self._next_collection = 0.0
        self._moving: set[bytes] = set()
        client.handlers |= {
            m.Free: lambda peer, message: self._free_own(message.spans),
            m.MemoryGranted: lambda node, message: self._on_granted(message),
            m.MemoryRefused: lambda node, message: self._on_refused(message),
            m.Trim: lambda node, message: self._on_trim(message),
            m.Spill: lambda node, message: self._on_spill(message),
            m.AskNeeded: lambda node, message: self._on_ask_needed(message),
        }
        client.on_node_lost.append(self._node_lost)

    def hand_over(self, fd: int, on_disk: bool) -> int:
        """Give an arena's descriptor to the node; return the number that the node holds it under."""
        return self._client.ask_node(m.NewArena(on_disk), (fd,)).arena

    # Asking for memory ------------------------------------------------------------------------------------------

    def want(self, request: int, size: int) -> None:
        """Wait until the node has granted so many bytes more to this process's arena.

        Raises:
            ObjectStoreFullError: everything is in use, and stays so.
            ShoalError: the node is gone; see `Links.check`.
        """
        client, waiter, refusal = self._client, Waiter(), list[str]()
        with client.lock:
            client.check()
            self._requests[request] = waiter, refusal
            client.node.send(m.WantMemory(request, size))
        # Not as a task that waits for others: its CPU would go to tasks that need memory, too.
        client.reactor.wait(waiter)
        if refusal:
            raise ObjectStoreFullError(refusal[0])
        if not waiter.ready:
            raise client.gone()
        client.check()

    def _on_granted(self, message: m.MemoryGranted) -> None:
        self._client.store.arena.grant(message.request, message.size)
        self._answer(message.request)

    def _on_refused(self, message: m.MemoryRefused) -> None:
        self._answer(message.request, message.reason)

    def _answer(self, number: int, refusal: str | None = None) -> None:
        # Whoever was interrupted while it waited is not there any more; what was granted is for the next one.
        waiter, box = self._requests.pop(number)
        if refusal is not None:
            box.append(refusal)
        waiter.finish()

    def _node_lost(self) -> None:
        for waiter, _ in self._requests.values():
            waiter.finish()

    # Giving it back ---------------------------------------------------------------------------------------------

    def _on_trim(self, message: m.Trim) -> None:
        if self._collecting:
            return  # which answers when it has ended
        client = self._client
        may_help = bool(client.objects.records) or client.store.is_viewing()
        if may_help and (message.last or time.monotonic() >= self._next_collection):
            # Finalisers may run any code of the user's: not in the thread that reads, under the process's lock.
            self._collecting = True
            threading.Thread(target=self._collect, args=(message,), name="shoal-collect", daemon=True).start()
        else:
            self._answer_trim(message)

    def _collect(self, message: m.Trim) -> None:
        """Find references and views that only garbage in circles holds; then answer."""
        begun = time.monotonic()
        gc.collect()
        now = time.monotonic()
        self._next_collection = now + _COLLECTION_EVERY * (now - begun)
        with self._client.lock:
            self._collecting = False
            if self._client.broken is None:
                self._answer_trim(message)

    def _answer_trim(self, message: m.Trim) -> None:
        client = self._client
        client.store.drain()
        client.settle_drops()
        returned = client.store.trim()
        self._pressed_until = time.monotonic() + _PRESSED
        movable, holdings = self._look_around(message.wanted)
        client.node.send(m.Trimmed(returned, movable, bool(self._moving), holdings))

    def free(self, spans: list[m.Span]) -> None:
        """Tell the makers of blocks that they can be reused."""
        client = self._client
        by_maker: dict[bytes, list[m.Span]] = {}
        for span in spans:
            by_maker.setdefault(span.maker, []).append(span)
        for maker, theirs in by_maker.items():
            if maker == client.me:
                try:
                    self._free_own(theirs)
                except InternalError:  # a leak at worst, and not the fault of who reads now
                    traceback.print_exc()
                continue
            peer = client.peer(maker)
            if peer is not None:
                peer.post(m.Free(theirs))
                client.reactor.flush_soon(peer)
            else:
                client.node.send(m.Free(theirs))

    def _free_own(self, spans: list[m.Span]) -> None:
        self._client.store.free(spans)
        self._freed()

    def _freed(self) -> None:
        """Blocks of this process's own were freed: while others wait for memory, they are to have it at once."""
        if self._pressed_until and time.monotonic() < self._pressed_until:
            size = self._client.store.trim()
            if size:
                self._client.node.send(m.MemoryReturned(size))

    def _look_around(self, wanted: int) -> tuple[list[m.Movable], m.Holdings]:
        """Return the least recently used objects that could be moved, and what this process holds at all."""
        client = self._client
        held, holdings = client.store.held(), client.store.holdings()
        movable: list[m.Movable] = []
        largest: list[m.LargeObject] = []
        for object_id, used in client.objects.large.items():
            value = client.objects.records[object_id].value
            spans = [] if value is None else [span for span in spans_of(value) if not span.on_disk]
            if not spans or node_of(spans[0].maker) != node_of(client.me):  # memory of another node is its affair
                continue
            size, viewed = sum(span.size for span in spans), any((s.arena, s.offset) in held for s in spans)
            holdings.objects += 1
            holdings.size += size
            holdings.viewed += size * viewed
            largest.append(m.LargeObject(object_id, size, viewed, (client.sites or {}).get(object_id, "")))
            if not viewed and object_id not in self._moving:
                movable.append(m.Movable(object_id, size, used))
        holdings.largest = sorted(largest, key=lambda item: -item.size)[:_LARGEST_SHOWN]
        movable.sort(key=lambda item: item.used)
        named = 0
        for index, item in enumerate(movable):
            named += item.size
            if named >= wanted or index == _MOST_NAMED:
                del movable[index + 1 :]
                break
        return movable, holdings

    def _on_ask_needed(self, message: m.AskNeeded) -> None:
        client = self._client
        values = [client.objects.records[object_id].value for object_id in client.objects.large]
        spans = [span for value in values if value is not None for span in spans_of(value)]
        spans += [span for needed in self.needed for span in needed()]
        client.node.send(m.StillNeeded(message.maker, [span for span in spans if span.maker == message.maker]))

    # Moving objects to disk -------------------------------------------------------------------------------------

    def _on_spill(self, message: m.Spill) -> None:
        self._moving.update(message.objects)
        # Writing takes long, and whoever reads messages must not be held up.
        threading.Thread(target=self._spill, args=(message.objects,), name="shoal-spill", daemon=True).start()

    def _spill(self, objects: list[bytes]) -> None:
        moved, trouble = 0, ""
        try:
            for object_id in objects:
                try:
                    moved += self._move(object_id)
                except (OSError, ShoalError) as error:  # the disk is full, say; the object stays where it is
                    says = error.strerror if isinstance(error, OSError) else error
                    trouble = trouble or f"{self._client.spill_directory}: {says}"
        finally:
            with self._client.lock:
                self._moving.difference_update(objects)
                if self._client.broken is None:
                    self._client.store.drain()
                    self._freed()
                    self._client.node.send(m.Spilled(moved, trouble))

    def _move(self, object_id: bytes) -> int:
        client = self._client
        with client.lock:
            record = client.objects.records.get(object_id)
            value = None if record is None else record.value
        if record is None or value is None:
            return 0
        try:
            copy, size = client.store.on_disk(value)
        except StaleBlockError:  # freed meanwhile
            return 0
        with client.lock:
            if client.objects.records.get(object_id) is record and record.value is value:
                record.value = copy
                client.objects.commands.append(FreeBlocks(spans_of(value)))
            else:
                client.objects.commands.append(FreeBlocks(spans_of(copy)))
                size = 0
            client.act()
        return size
