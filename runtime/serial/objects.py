"""The objects of the serial engine: serialised as on the other engines, and kept in this process."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from .. import serialization
from ..buffers import aligned
from ..exceptions import ObjectLostError
from ..failure import unpack_exception
from ..futures import ValueFuture
from ..introspection.events import EVENTS_KEPT, FREED, PUT, Event, call_site
from ..ready_queue import ReadyQueue
from ..refs import ObjectRef, object_gone
from ..unread import UnreadFailures
from ..unsealed import Unsealed
from .records import Value, size_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike

# Of the whole process, so that a reference that outlives its runtime is none to an object of the next one.
_IDS = itertools.count(1)


class SerialObjects:
    """Values and the references to them; see `shoal.runtime.engine.Engine` for the methods."""

    def __init__(self, record_call_sites: bool) -> None:
        self._sites: dict[bytes, str] | None = {} if record_call_sites else None
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._values: dict[bytes, Value] = {}
        self._unsealed = Unsealed()
        self._unread = UnreadFailures()
        self._dropped: deque[bytes] = deque()
        self._kept: set[ObjectRef] = set()

    def note(self, event: Event) -> None:
        """Remember something that has happened."""
        self._events.append(event)

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """Return an array of ordinary memory."""
        return self._unsealed.empty(shape, dtype)

    def adopt(self, object_id: bytes) -> ObjectRef:
        """Return one more reference to an object."""
        self._values.setdefault(object_id, Value(failure=ObjectLostError("the object is gone"))).count += 1
        return ObjectRef(object_id, self._dropped.append)

    def borrow(self, kept: bytes) -> ObjectRef:
        """Return one more reference to an object."""
        return self.adopt(kept)

    def keep(self, ref: ObjectRef) -> bytes:
        """Keep a reference until the end."""
        self._kept.add(ref)
        return ref.id

    def _new_id(self) -> bytes:
        return next(_IDS).to_bytes(16, "big")

    def _store(self, value: Value, object_id: bytes | None = None) -> ObjectRef:
        self._collect()
        object_id = object_id or self._new_id()
        self._values[object_id] = value
        if self._sites is not None:
            self._sites[object_id] = call_site()
        return self.adopt(object_id)

    def _collect(self) -> None:
        """Forget objects whose last reference is gone."""
        while self._dropped:
            object_id = self._dropped.popleft()
            value = self._values[object_id]
            value.count -= 1
            if value.count == 0:
                if isinstance(value.failure, bytes) and not value.read:
                    self._unread.drop(value.failure)
                del self._values[object_id]
                if self._sites is not None:
                    self._sites.pop(object_id, None)
                self.note((time.monotonic(), FREED, object_id, None))
                self._gone(object_id)

    def _gone(self, object_id: bytes) -> None:
        """Event: the last reference to an object is gone."""

    def _pack(self, value: Any, seal: bool = True) -> Value:
        stream, buffers, inner = serialization.dumps(value)
        return Value(stream, [self._keep(memoryview(buffer.raw()), seal) for buffer in buffers], inner)

    def _keep(self, view: memoryview, seal: bool) -> Any:
        """Return a read-only buffer with these contents: the array itself if it came from `empty`, else a copy."""
        array = self._unsealed.seal(view) if seal else None
        if array is None:
            return aligned(view).toreadonly()
        return memoryview(array.reshape(-1).view("uint8"))  # type: ignore[arg-type]  # numpy 1 does not say so

    def _load(self, value: Value, copy: bool = False) -> Any:
        if value.failure is not None:
            self._note_read(value)
            raise unpack_exception(value.failure) if isinstance(value.failure, bytes) else value.failure
        return serialization.loads(value.stream, map(aligned, value.buffers) if copy else value.buffers)

    def _note_read(self, value: Value) -> None:
        value.read = True
        if isinstance(value.failure, bytes):
            self._unread.read(value.failure)

    def put(self, value: Any) -> ObjectRef:
        """Store a value."""
        packed = self._pack(value)
        ref = self._store(packed)
        self.note((time.monotonic(), PUT, ref.id, size_of(packed)))
        return ref

    def get(self, refs: Sequence[ObjectRef], timeout: float | None, copy: bool = False) -> list[Any]:
        """Return the values; here they are always there."""
        self._collect()
        for ref in refs:
            if ref.id not in self._values:
                raise object_gone(ref.id)
        return [self._load(self._values[ref.id], copy) for ref in refs]

    def wait(
        self, refs: Sequence[ObjectRef], num_returns: int, timeout: float | None
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        """Return the first `num_returns` as ready."""
        self._collect()
        return list(refs[:num_returns]), list(refs[num_returns:])

    def future(self, ref: ObjectRef) -> Future:
        """Return a finished future."""
        future = ValueFuture()
        try:
            future.set_result(self.get([ref], None)[0])
        except BaseException as error:  # whatever the task raised belongs to whoever asks the future
            future.set_exception(error)
        return future

    def when_ready(self, ref: ObjectRef, action: Callable[[], None]) -> None:
        """Call it now."""
        action()

    def ready_queue(self) -> ReadyQueue:
        """Return a queue that is in the order of `add`."""
        return ReadyQueue(self.when_ready)
