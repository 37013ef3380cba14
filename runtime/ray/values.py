"""Values on the Ray engine: how they travel through Ray, and how one gets them, waits for them, or streams them.

A value travels as a `Packed`: our own pickle, its buffers (which Ray keeps out of band, in its object store), and what
Ray counts references of. Hence arguments, results and errors are exactly those of the other engines.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

import ray
from ray import exceptions as theirs

from .. import serialization
from ..engine import Arguments, Host
from ..exceptions import InputError, ObjectLostError
from ..generators import ObjectRefGenerator
from ..refs import ObjectRef, short
from ..remote import load_function
from ..unsealed import Unsealed
from .errors import translated

# Pickle, buffers, and by id what Ray keeps alive for us: its references and actors' handles.
Packed = tuple[bytes, list[Any], dict[bytes, Any]]
# A function or class: its id, its payload, and what it captures.
Code = tuple[bytes, bytes, dict[bytes, Any]]

#: How names of boards begin.
BOARD = "shoal: the board of job "


class _Held:
    """What Ray counts, kept as long as our reference to it; stands where other engines have a callback."""

    __slots__ = ("arrived", "of")

    def __init__(self, of: Any) -> None:
        self.of = of
        self.arrived: Future | None = None

    def __call__(self, object_id: bytes) -> None:
        """Do nothing: Ray sees the end of what is held."""


def held(ref: ObjectRef | None) -> Any:
    """Return Ray's reference, or handle of an actor, behind ours."""
    assert ref is not None  # detached actors have a lifetime here, too: Ray knows that it keeps nothing alive
    return ref._dropped.of  # type: ignore[attr-defined]


def wrapped(ref: Any, object_id: bytes | None = None) -> ObjectRef:
    """Return our reference to something of Ray's."""
    return ObjectRef(ref.binary() if object_id is None else object_id, _Held(ref))


class RayValues:
    """Objects and references to them; see `shoal.runtime.engine.Engine` for the methods."""

    def __init__(self) -> None:
        self._arriving = threading.local()
        self._loaded: dict[bytes, Callable] = {}
        self._unsealed = Unsealed()
        self.empty = self._unsealed.empty
        self._classes: dict[str, str] = {}
        self._closing: SimpleQueue[Any] | None = None
        self._board: Any = None
        #: The actor that this process is.
        self.hosted: Host | None = None

    @property
    def board(self) -> Any:
        """The handle of this job's board."""
        if self._board is None:
            self._board = ray.get_actor(self.board_name())
        return self._board

    @staticmethod
    def board_name() -> str:
        """Return the name of this job's board."""
        return BOARD + ray.get_runtime_context().get_job_id()

    # Packing ----------------------------------------------------------------------------------------------------

    def pack(self, value: Any, seal: bool = True) -> Packed:
        """Serialise a value for Ray."""
        stream, buffers, refs = serialization.dumps(value)
        views = [memoryview(buffer.raw()) for buffer in buffers]
        if seal:
            for view in views:
                self._unsealed.seal(view)
        # Views of plain bytes: Ray 2.60 crashes where it reads a buffer that says nothing of its strides.
        return stream, [pickle.PickleBuffer(view) for view in views], {ref.id: held(ref) for ref in refs}

    def pack_arguments(self, arguments: Arguments) -> tuple[Packed, list[Any]]:
        """Serialise arguments; beside them, Ray's references that it is to replace by their values."""
        args, kwargs, slots = serialization.take_out_refs(*arguments)
        return self.pack((args, kwargs), seal=False), [held(ref) for ref in slots]

    def load(self, packed: Packed | None, copy: bool = False) -> Any:
        """Rebuild a value; the end of a stream is None."""
        if packed is None:
            return None
        stream, buffers, carried = packed
        return self._with(carried, lambda: serialization.loads(stream, map(bytearray, buffers) if copy else buffers))

    def load_arguments(self, packed: Packed, slots: Sequence[Packed]) -> Arguments:
        """Rebuild arguments."""
        args, kwargs = self.load(packed)
        return serialization.fill_slots(args, kwargs, [self.load(slot) for slot in slots])

    def unship(self, code: Code) -> Callable:
        """Return a function or class that has arrived."""
        key, payload, carried = code
        if key not in self._loaded:
            self._loaded[key] = self._with(carried, lambda: load_function(payload))
        return self._loaded[key]

    def _with(self, carried: dict[bytes, Any], rebuild: Callable[[], Any]) -> Any:
        before, self._arriving.carried = getattr(self._arriving, "carried", {}), carried
        try:
            return rebuild()
        finally:
            self._arriving.carried = before

    def adopt(self, object_id: bytes) -> ObjectRef:
        """Return a reference that arrived inside the value that is being loaded."""
        return wrapped(self._arriving.carried[object_id], object_id)

    def pin(self, ref: ObjectRef) -> None:
        """Have the board keep what is held."""
        ray.get(self.board.pin.remote(ref.id, [held(ref)]))

    def borrow(self, object_id: bytes) -> ObjectRef:
        """Return this process's own actor, or what the board keeps."""
        if self.hosted is not None and self.hosted.actor.id == object_id:
            return wrapped(ray.get_runtime_context().current_actor, object_id)
        kept = ray.get(self.board.pinned.remote(object_id))
        if kept is None:
            raise ObjectLostError(f"nobody keeps {short(object_id)}: it was not pickled by a process of this job")
        return wrapped(kept[0], object_id)

    # Objects ----------------------------------------------------------------------------------------------------

    def put(self, value: Any) -> ObjectRef:
        """Store a value."""
        return wrapped(ray.put(self.pack(value)))

    def get(self, refs: Sequence[ObjectRef], timeout: float | None, copy: bool = False) -> list[Any]:
        """Return the values."""
        failure = None
        try:
            # Whoever awaits has been given the value already; asking again would block the event loop.
            arrived = refs[0]._dropped.arrived if timeout == 0 and len(refs) == 1 else None  # type: ignore[attr-defined]
            if arrived is not None and arrived.done():
                packed = [arrived.result()]
            else:
                packed = ray.get([held(ref) for ref in refs], timeout=timeout)
        except theirs.RayError as error:
            failure = self.translated(error)
        if failure is not None:
            raise failure  # out here: what Ray raised is no context of it
        return [self.load(each, copy) for each in packed]

    def translated(self, error: BaseException) -> BaseException:
        """Return what the other engines would raise."""
        return translated(error, self._describe)

    def _describe(self, actor: str | None) -> tuple[str, str]:
        if actor is None:
            return "the actor", ""
        try:
            end = ray.get(self.board.end_of.remote(actor), timeout=5)
        except (theirs.RayError, ValueError):  # the board ends with its job
            end = ""
        return f"actor {self._classes.get(actor, 'of Ray')} ({actor[-10:]})", end

    def wait(
        self, refs: Sequence[ObjectRef], num_returns: int, timeout: float | None
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        """Split into ready and not ready."""
        waited = [held(ref) for ref in refs]
        ready, _ = ray.wait(waited, num_returns=num_returns, timeout=timeout)
        if len(ready) < len(refs):  # Ray returns those that it sees first; the first ones that are ready are wanted
            ready, _ = ray.wait(waited, num_returns=len(refs), timeout=0)
        found = {ref.binary() for ref in ready}
        chosen = [ref for ref in refs if ref.id in found][:num_returns]
        taken = set(chosen)
        return chosen, [ref for ref in refs if ref not in taken]

    def future(self, ref: ObjectRef) -> Future:
        """Return a future of the value."""
        future: Future = Future()
        future.set_running_or_notify_cancel()

        def arrived(packed: Future) -> None:
            error = packed.exception()
            try:
                if error is not None:
                    raise self.translated(error)
                future.set_result(self.load(packed.result()))
            except BaseException as failure:  # whatever the task raised belongs to whoever asks the future
                future.set_exception(failure)

        held(ref).future().add_done_callback(arrived)
        return future

    def when_ready(self, ref: ObjectRef, action: Callable[[], None]) -> None:
        """Have Ray call it."""
        kept: _Held = ref._dropped  # type: ignore[assignment]
        if kept.arrived is None:
            kept.arrived = kept.of.future()
        kept.arrived.add_done_callback(lambda _: action())

    def ready_queue(self) -> ReadyQueue:
        """Return a queue of references in the order in which their values arrive."""
        return ReadyQueue(self)

    def cancel(self, ref: ObjectRef, force: bool, recursive: bool) -> None:
        """Have Ray cancel the task."""
        self.cancel_task(held(ref), held(ref), force, recursive)

    @staticmethod
    def cancel_task(task: Any, completed: Any, force: bool, recursive: bool) -> None:
        """Cancel a task of Ray's, unless `completed`, a reference to its end, is there."""
        # Ray 2.60 aborts this process if a task is cancelled while Ray is still noting that it has ended.
        if ray.wait([completed], timeout=0, fetch_local=False)[0]:
            return
        try:
            ray.cancel(task, force=force, recursive=recursive)
        except ValueError as error:
            raise InputError(f"cancel: {str(error).rstrip('.')}. Use kill(actor) to end an actor") from error
        except TypeError:  # no task made it: it was put
            return

    # Streams ----------------------------------------------------------------------------------------------------

    def stream(self, generator: Any) -> ObjectRefGenerator:
        """Return our generator for one of Ray's; the task ends when nobody has it any more."""
        if self._closing is None:
            self._closing = SimpleQueue()
            threading.Thread(target=_close_streams, args=(self._closing,), name="shoal-streams", daemon=True).start()
        # The queue may be used in any allocation, when the last reference goes; Ray's lock may not.
        dropped = self._closing.put
        stream = RayStream(generator)
        return ObjectRefGenerator(stream, ObjectRef(generator.completed().binary(), lambda _: dropped(stream)))


def _close_streams(queue: SimpleQueue[Any]) -> None:
    while ray.is_initialized():
        try:
            queue.get(timeout=1).close()
        except (Empty, theirs.RayError, RuntimeError):  # nothing to do; or the job is ending
            continue


class ReadyQueue:
    """References in the order in which their values arrive."""

    def __init__(self, engine: RayValues) -> None:
        self._engine = engine
        self._ready: SimpleQueue[ObjectRef] = SimpleQueue()

    def add(self, ref: ObjectRef) -> None:
        """Have `pop` return the reference once its value is there."""
        self._engine.when_ready(ref, partial(self._ready.put, ref))

    def pop(self, timeout: float | None) -> ObjectRef | None:
        """Return the next reference that is ready; None if there is none within `timeout` seconds."""
        try:
            return self._ready.get(timeout=timeout)
        except Empty:
            return None


class RayStream:
    """The values of one of Ray's generators; its exception is the last of them."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator
        self._lock = threading.Lock()
        self._head: ObjectRef | None = None
        self._ended = False

    def head(self) -> ObjectRef | None:
        """Return the object that the next value will be, or is; None at the end."""
        with self._lock:
            if self._head is None and not self._ended:
                self._head = wrapped(self._generator._get_next_ref_n(1)[0])
            return self._head

    def take(self, head: ObjectRef) -> bool:
        """Take the value, which is there; False if it is the end after all, or another thread was quicker."""
        with self._lock:
            if head is not self._head:
                return False
            self._head = None
            if self._ended:  # it was the exception
                return True
            try:
                taken = next(self._generator)
            except StopIteration:
                self._ended = True
                return False
            if taken.binary() == head.id:
                return True
            self._head, self._ended = wrapped(taken), True
            return False

    def completed(self) -> ObjectRef:
        """Return the reference of the task's end."""
        return wrapped(self._generator.completed())

    def cancel(self, force: bool, recursive: bool) -> None:
        """Cancel the task."""
        RayValues.cancel_task(self._generator, self._generator.completed(), force, recursive)

    def close(self) -> None:
        """Drop what was not taken, and cancel the task."""
        with self._lock:
            ended, self._ended, self._head = self._ended, True, None
        if not ended:
            self.cancel(force=False, recursive=True)
