"""References of the Ray engine: ours hold Ray's. And streams, whose references Ray makes one by one."""

from __future__ import annotations

import functools
import threading
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

import ray
from ray import exceptions as theirs

from ..exceptions import InputError
from ..generators import ObjectRefGenerator
from ..refs import ObjectRef


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


def arrival(ref: ObjectRef) -> Future:
    """Return Ray's future of the value, the same at each call."""
    kept: _Held = ref._dropped  # type: ignore[assignment]
    if kept.arrived is None:
        kept.arrived = kept.of.future()
    return kept.arrived


def has_arrived(ref: ObjectRef) -> bool:
    """Return whether `arrival` has been asked for, and is done."""
    arrived = ref._dropped.arrived  # type: ignore[attr-defined]
    return arrived is not None and arrived.done()


def cancel(task: Any, completed: Any, force: bool, recursive: bool) -> None:
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
        cancel(self._generator, self._generator.completed(), force, recursive)

    def close(self) -> None:
        """Drop what was not taken, and cancel the task."""
        with self._lock:
            ended, self._ended, self._head = self._ended, True, None
        if not ended:
            self.cancel(force=False, recursive=True)


def stream(generator: Any) -> ObjectRefGenerator:
    """Return our generator for one of Ray's; the task ends when nobody has it any more."""
    # A queue may be used in any allocation, when the last reference goes; Ray's lock may not.
    dropped, values = _closing().put, RayStream(generator)
    return ObjectRefGenerator(values, ObjectRef(generator.completed().binary(), lambda _: dropped(values)))


@functools.cache
def _closing() -> SimpleQueue[RayStream]:
    queue: SimpleQueue[RayStream] = SimpleQueue()
    threading.Thread(target=_close_streams, args=(queue,), name="shoal-streams", daemon=True).start()
    return queue


def _close_streams(queue: SimpleQueue[RayStream]) -> None:
    while True:
        dropped = queue.get()
        try:
            dropped.close()
        except (theirs.RayError, RuntimeError, ValueError):  # its job has ended meanwhile
            continue
