"""How the serial engine makes a call, repeats one that has failed, and makes a generator's values when asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar

from ..core.generators import Stream
from ..core.private_loop import PrivateLoop
from ..core.refs import ObjectRef
from ..core.results import values_of
from ..core.values.packed_exceptions import describe_here, pack_exception
from ..exceptions import DeadlockError, ShoalError, TaskCancelledError, WorkerCrashedError

if TYPE_CHECKING:
    from ..core.engine import Running
    from ..core.options import MethodOptions, TaskOptions

T = TypeVar("T")


class SerialCall:
    """A task or call, and how often it is made.

    Args:
        running: the call as the code inside it sees it.
        options: which exceptions are retried.
        retries: how many times; -1: without limit.
        within: what must surround the user's code.
        loop: the actor's event loop, if it has one.
    """

    def __init__(
        self,
        running: Running,
        options: TaskOptions | MethodOptions,
        *,
        retries: int,
        within: Callable[[], AbstractContextManager],
        loop: PrivateLoop | None = None,
    ) -> None:
        self.running, self.name = running, running.name
        self.num_returns = options.num_returns
        self.within, self.loop = within, loop
        kinds = options.retry_exceptions
        self._kinds: tuple[type[BaseException], ...] = (Exception,) if kinds is True else tuple(kinds or ())
        self._left = retries
        self._number = 1

    def again(self, error: BaseException) -> bool:
        """Return whether the call is to be made again after this exception, and count that."""
        if self._left == 0 or not isinstance(error, self._kinds):
            return False
        if self._left > 0:
            self._left -= 1
        self._number += 1
        return True

    def failure(self, error: BaseException) -> bytes | BaseException:
        """Return what stands for the last attempt's exception, with its number if it is not the only one."""
        if isinstance(error, SystemExit):
            return self.left(error)
        most = "" if self._left < 0 else f" of {self._number + self._left}"
        words = f", attempt {self._number}{most}" if self._number > 1 else ""
        return pack_exception(error, self.name, describe_here("serial") + words)

    def check_left(self) -> None:
        """Raise SystemExit again if the code has caught that of `exit_actor`."""

    def left(self, request: SystemExit) -> ShoalError:
        """Return what becomes of a call that has asked for the end of its process."""
        return WorkerCrashedError(f"task {self.name} ended its process with {request!r}")


def within(surroundings: Callable[[], AbstractContextManager], action: Callable[[], T]) -> T:
    """Call code of the user's within something, and raise what it raises.

    Not through it: contextlib writes on the exceptions that pass, which some refuse, such as frozen dataclasses.
    """
    with surroundings():
        try:
            return action()
        except BaseException as error:  # raised again below
            raised = error
    try:
        raise raised
    finally:
        del raised  # it holds this frame: in a circle, the call's arguments would stay


class SerialStream(Stream):
    """The values of a generator, each made when it is asked for.

    Args:
        keep, keep_failure: make objects of values, and of an exception that stands for one.
        begin: calls the generator function.
        call: how often it may be called again, and within what.
    """

    def __init__(
        self,
        keep: Callable[[Any], ObjectRef],
        keep_failure: Callable[[BaseException], ObjectRef],
        begin: Callable[[], Any],
        call: SerialCall,
    ) -> None:
        self._keep, self._keep_failure, self._begin, self._call = keep, keep_failure, begin, call
        self._values: Iterator[Any] | None = None
        self._refs: deque[ObjectRef] = deque()
        self._made = 0
        self._completed: ObjectRef | None = None

    def head(self) -> ObjectRef | None:
        """Return the next value's object, made now; None at the end."""
        if not self._refs and self._completed is None:
            self._make()
        return self._refs[0] if self._refs else None

    def take(self, head: ObjectRef) -> bool:
        if not self._refs or self._refs[0] is not head:
            return False
        self._refs.popleft()
        return True

    def is_finished(self) -> bool:
        """Whether no value is left; the next one is made to find out."""
        return self.head() is None

    def completed(self) -> ObjectRef:
        """Return the reference of the end; all values are made first."""
        while self._completed is None:
            self._make()
        return self._completed

    def cancel(self, force: bool, recursive: bool) -> None:
        """Make no more: the next value is the error."""
        if self._completed is None:
            self._end_values()
            error = TaskCancelledError(f"{self._call.name} was cancelled")
            self._completed = self._keep_failure(error)
            self._refs.append(self._completed)

    def _end_values(self) -> None:
        close = getattr(self._values, "close", None)
        if close is not None:
            with self._call.within():
                close()

    def close(self) -> None:
        if self._completed is None:
            self._end_values()
        self._refs.clear()
        self._completed = self._completed or self._keep(None)

    def _make(self) -> None:
        try:
            value = within(self._call.within, self._next)
            self._refs.append(self._keep(value))
            self._made += 1
        except StopIteration:
            self._completed = self._keep(None)
        except DeadlockError:  # the caller's mistake, not the task's
            raise
        except SystemExit as request:
            self._completed = self._keep_failure(request)
            self._refs.append(self._completed)
        except KeyboardInterrupt:  # the user's Ctrl-C
            raise
        except BaseException as error:  # a task's exception is a value
            if self._call.again(error):
                self._values = None
                self._make()
            else:
                self._completed = self._keep_failure(error)
                self._refs.append(self._completed)

    def _next(self) -> Any:
        if self._values is None:
            self._values = values_of(self._begin(), self._call.loop)
            for _ in range(self._made):  # they came in an earlier attempt
                next(self._values)
        return next(self._values)
