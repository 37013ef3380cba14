"""The objects of the serial engine: serialised as on the other engines, and kept in this process."""

from __future__ import annotations

import itertools
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..core.current import AwaitsValues
from ..core.engine import Arguments, KeepsValues
from ..core.refs import ObjectRef, object_gone
from ..core.reports.events import EVENTS_KEPT, FREED, PUT, Event, call_site
from ..core.reports.rows import ObjectState
from ..core.values import serialization
from ..core.values.buffers import aligned
from ..core.values.packed_exceptions import unpack_exception
from ..core.values.unread import UnreadFailures
from ..exceptions import ObjectLostError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike

#: The only process of the serial engine; its objects' ids begin with the same bytes.
ME = bytes(8)
# Of the whole process, so that a reference that outlives its runtime is none to an object of the next one.
_IDS = itertools.count(1)


@dataclass
class Value:
    """A stored object: its pickle and buffers, or a serialised exception.

    Attributes:
        inner: keeps what it refers to alive.
        when_freed: for what keeps an actor alive: called when its last reference is gone.
    """

    stream: bytes = b""
    buffers: list[Any] = field(default_factory=list)
    inner: list[ObjectRef] = field(default_factory=list)
    failure: bytes | BaseException | None = None
    when_freed: Callable[[], None] | None = None
    count: int = 0
    read: bool = False
    site: str = ""

    @property
    def size(self) -> int:
        """Its bytes."""
        return len(self.stream) + sum(memoryview(buffer).nbytes for buffer in self.buffers)


class Unsealed:
    """Arrays from `empty`, until they are put or returned: knows them again by where their memory lies."""

    def __init__(self) -> None:
        self._arrays: dict[int, weakref.ref[np.ndarray]] = {}

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """Return a new array, to be recognised by `seal`."""
        import numpy as np

        array = np.empty(shape, dtype)
        if array.nbytes and not array.dtype.hasobject:
            address = array.__array_interface__["data"][0]
            self._arrays[address] = weakref.ref(array, lambda _: self._arrays.pop(address, None))
        return array

    def seal(self, view: memoryview) -> np.ndarray | None:
        """Make the array read-only whose memory this is, and return it; None if it is none of these."""
        if not self._arrays:
            return None
        address = serialization.address_of(view)
        found = self._arrays.get(address)
        array = None if found is None else found()
        if array is None or array.nbytes != view.nbytes:
            return None
        del self._arrays[address]
        array.flags.writeable = False
        return array


class SerialObjects(KeepsValues, AwaitsValues):
    """Values and the references to them.

    Attributes:
        events: what has happened, the latest last.
    """

    def __init__(self, record_call_sites: bool) -> None:
        self.events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._record_call_sites = record_call_sites
        self._values: dict[bytes, Value] = {}
        self._unsealed = Unsealed()
        self._unread = UnreadFailures()
        self._dropped: deque[bytes] = deque()
        self._kept: set[ObjectRef] = set()

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """Return an array of ordinary memory."""
        return self._unsealed.empty(shape, dtype)

    def adopt(self, object_id: bytes) -> ObjectRef:
        self._values.setdefault(object_id, Value(failure=ObjectLostError("the object is gone"))).count += 1
        return ObjectRef(object_id, self._dropped.append)

    def borrow(self, kept: bytes) -> ObjectRef:
        return self.adopt(kept)  # there is no other process

    def keep(self, ref: ObjectRef) -> bytes:
        self._kept.add(ref)
        return ref.id

    def new_id(self) -> bytes:
        """Return an id that nothing has."""
        return next(_IDS).to_bytes(16, "big")

    def store(self, value: Value, object_id: bytes | None = None) -> ObjectRef:
        """Keep a value as an object; return its first reference."""
        self.collect()
        object_id = object_id or self.new_id()
        self._values[object_id] = value
        if self._record_call_sites:
            value.site = call_site()
        return self.adopt(object_id)

    def collect(self) -> None:
        """Forget objects whose last reference is gone."""
        while self._dropped:
            object_id = self._dropped.popleft()
            value = self._values[object_id]
            value.count -= 1
            if value.count == 0:
                if isinstance(value.failure, bytes) and not value.read:
                    self._unread.drop(value.failure)
                del self._values[object_id]
                self.events.append((time.monotonic(), FREED, object_id, None))
                if value.when_freed is not None:
                    value.when_freed()

    def pack(self, value: Any, seal: bool = True) -> Value:
        """Serialise a value; `seal`: an array from `empty` is kept as it is, not copied."""
        stream, buffers, inner = serialization.dumps(value)
        return Value(stream, [self._keep(memoryview(buffer.raw()), seal) for buffer in buffers], inner)

    def _keep(self, view: memoryview, seal: bool) -> Any:
        """Return a read-only buffer with these contents: the array itself if it came from `empty`, else a copy."""
        array = self._unsealed.seal(view) if seal else None
        if array is None:
            return aligned(view).toreadonly()
        return memoryview(array.reshape(-1).view("uint8"))  # type: ignore[arg-type]  # numpy 1 does not say so

    def load(self, value: Value, copy: bool = False) -> Any:
        """Rebuild a value, or raise the exception that stands for it."""
        if value.failure is not None:
            self._note_read(value)
            raise unpack_exception(value.failure) if isinstance(value.failure, bytes) else value.failure
        return serialization.loads(value.stream, map(aligned, value.buffers) if copy else value.buffers)

    def _note_read(self, value: Value) -> None:
        value.read = True
        if isinstance(value.failure, bytes):
            self._unread.read(value.failure)

    def pack_arguments(self, arguments: Arguments) -> tuple[Value, list[ObjectRef]]:
        """Serialise a call's arguments; return the references among them, too."""
        args, kwargs, refs = serialization.take_out_refs(*arguments)
        return self.pack((args, kwargs), seal=False), refs

    def load_arguments(self, packed: Value, refs: list[ObjectRef]) -> Arguments:
        """Rebuild a call's arguments, with the values of the references among them."""
        args, kwargs = self.load(packed)
        return serialization.fill_slots(args, kwargs, self.get(refs)) if refs else (args, kwargs)

    def failure_among(self, refs: list[ObjectRef]) -> bytes | BaseException | None:
        """Return the first exception that stands for one of these objects; it counts as read."""
        for ref in refs:
            value = self._values[ref.id]
            if value.failure is not None:
                self._note_read(value)
                return value.failure
        return None

    def put(self, value: Any) -> ObjectRef:
        packed = self.pack(value)
        ref = self.store(packed)
        self.events.append((time.monotonic(), PUT, ref.id, packed.size))
        return ref

    def get(self, refs: Sequence[ObjectRef], timeout: float | None = None, copy: bool = False) -> list[Any]:
        self.collect()
        for ref in refs:
            if ref.id not in self._values:
                raise object_gone(ref.id)
        return [self.load(self._values[ref.id], copy) for ref in refs]

    def wait(
        self, refs: Sequence[ObjectRef], num_returns: int, timeout: float | None
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        """Return the first ones as ready: all are."""
        self.collect()
        return list(refs[:num_returns]), list(refs[num_returns:])

    def report(self) -> list[ObjectState]:
        """Return a row for each object."""
        return [
            ObjectState(
                object_id=object_id.hex(),
                where="actor" if value.when_freed else "message" if value.failure is None else "failure",
                object_size=value.size,
                local_references=value.count,
                call_site=value.site,
            )
            for object_id, value in self._values.items()
        ]

    def clear(self) -> None:
        """Forget all of them."""
        self._values.clear()
