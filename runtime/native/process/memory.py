"""A process's part in sharing the object store: asks its node for memory, gives it back, moves objects to disk.

The owner of an object moves it, wherever its blocks lie: it copies them into its own arena on disk, writes the new
place into its record and frees the blocks as it frees any. Others, who know only the old place, find the blocks gone
and tell it, as they do when blocks are lost (`recovery.py`); the answer is the new place.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable

from ...core.ids import node_of
from ...exceptions import ObjectStoreFullError, ShoalError
from ..protocol import messages as m
from ..protocol.connection import Connection
from ..store.store import Provider, Store
from ..store.views import StaleBlockError
from .actors import Actors
from .links import Links
from .objects import FreeBlocks, spans_of
from .reactor import Waiter
from .values import Values

_MOST_NAMED = 1000
# While others wait for memory, a process looks for garbage at most one part in so many of its time.
_COLLECTION_EVERY = 20
_LARGEST_SHOWN = 3
# The node asks again and again while it wants memory back; so long after the last time, seconds, it does not any more.
_PRESSED = 0.2


class NodeMemory(Provider):
    """What this process's store gets from the node: who holds its arenas, and memory for them."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._requests: dict[int, tuple[Waiter, list[str], Callable[[int, int], None]]] = {}
        self._pressed_until = 0.0

    def hand_over(self, fd: int, on_disk: bool) -> int:
        return self._links.ask_node(m.NewArena(on_disk), (fd,))

    def want(self, request: int, size: int, grant: Callable[[int, int], None]) -> None:
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

    def on_memory_granted(self, node: Connection, message: m.MemoryGranted) -> None:
        waiter, _, grant = self._requests.pop(message.request)
        grant(message.request, message.size)
        waiter.finish()

    def on_memory_refused(self, node: Connection, message: m.MemoryRefused) -> None:
        waiter, refusal, _ = self._requests.pop(message.request)
        refusal.append(message.reason)
        waiter.finish()

    def on_node_lost(self) -> None:
        """Event: the node is gone."""
        for waiter, _, _ in self._requests.values():
            waiter.finish()

    def expect_pressure(self) -> None:
        """Event: others wait for memory."""
        self._pressed_until = time.monotonic() + _PRESSED

    def offer(self, trim: Callable[[], int]) -> None:
        if self._pressed_until and time.monotonic() < self._pressed_until:
            size = trim()
            if size:
                self._links.node.send(m.MemoryReturned(size))


class Memory:
    """What a process does about the store's capacity; see the module."""

    def __init__(self, links: Links, values: Values, store: Store, node: NodeMemory, actors: Actors) -> None:
        self._links, self._values, self._store, self._node, self._actors = links, values, store, node, actors
        self._collecting = False
        self._next_collection = 0.0
        self._moving: set[bytes] = set()

    # Giving it back ---------------------------------------------------------------------------------------------

    def on_trim(self, node: Connection, message: m.Trim) -> None:
        if self._collecting:
            return  # which answers when it has ended
        may_help = bool(self._values.objects.records) or self._store.is_viewing()
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
        with self._links.lock:
            self._collecting = False
            if self._links.broken is None:
                self._answer_trim(message)

    def _answer_trim(self, message: m.Trim) -> None:
        self._store.drain()
        self._values.settle_drops()
        returned = self._store.trim()
        self._node.expect_pressure()
        movable, holdings = self._look_around(message.wanted)
        self._links.node.send(m.Trimmed(returned, movable, bool(self._moving), holdings))

    def _look_around(self, wanted: int) -> tuple[list[m.Movable], m.Holdings]:
        """Return the least recently used objects that could be moved, and what this process holds at all."""
        held, holdings = self._store.held(), self._store.holdings()
        movable: list[m.Movable] = []
        largest: list[m.LargeObject] = []
        for object_id, used in self._values.objects.large.items():
            value = self._values.objects.records[object_id].value
            spans = [] if value is None else [span for span in spans_of(value) if not span.on_disk]
            if not spans or node_of(spans[0].maker) != node_of(self._links.me):  # memory of another node is its affair
                continue
            size, viewed = sum(span.size for span in spans), any((s.arena, s.offset) in held for s in spans)
            holdings.objects += 1
            holdings.size += size
            holdings.viewed += size * viewed
            largest.append(m.LargeObject(object_id, size, viewed, self._values.site_of(object_id)))
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

    def on_ask_needed(self, node: Connection, message: m.AskNeeded) -> None:
        values = [self._values.objects.records[object_id].value for object_id in self._values.objects.large]
        spans = [span for value in values if value is not None for span in spans_of(value)]
        spans += self._actors.needed_by_logs()
        self._links.node.send(m.StillNeeded(message.maker, [span for span in spans if span.maker == message.maker]))

    # Moving objects to disk -------------------------------------------------------------------------------------

    def on_spill(self, node: Connection, message: m.Spill) -> None:
        self._moving.update(message.objects)
        # Writing takes long, and the thread that reads must not be held up.
        threading.Thread(target=self._spill, args=(message.objects,), name="shoal-spill", daemon=True).start()

    def _spill(self, objects: list[bytes]) -> None:
        moved, trouble = 0, ""
        try:
            for object_id in objects:
                try:
                    moved += self._move(object_id)
                except (OSError, ShoalError) as error:  # the disk is full, say; the object stays where it is
                    says = error.strerror if isinstance(error, OSError) else error
                    trouble = trouble or f"{self._links.welcome.spill_directory}: {says}"
        finally:
            with self._links.lock:
                self._moving.difference_update(objects)
                if self._links.broken is None:
                    self._store.drain()
                    self._node.offer(self._store.trim)
                    self._links.node.send(m.Spilled(moved, trouble))

    def _move(self, object_id: bytes) -> int:
        with self._links.lock:
            record = self._values.objects.records.get(object_id)
            value = None if record is None else record.value
        if record is None or value is None:
            return 0
        try:
            copy, size = self._store.on_disk(value)
        except StaleBlockError:  # freed meanwhile
            return 0
        with self._links.lock:
            if self._values.objects.records.get(object_id) is record and record.value is value:
                record.value = copy
                self._values.objects.commands.append(FreeBlocks(spans_of(value)))
            else:
                self._values.objects.commands.append(FreeBlocks(spans_of(copy)))
                size = 0
            self._values.act()
        return size
