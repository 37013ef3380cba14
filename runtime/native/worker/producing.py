"""The streams of values that tasks of this process make, one value at a time, for their callers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from msgspec import Struct

from ...core.refs import short
from ...core.results import check_yields
from ...exceptions import TaskCancelledError
from ..process.parts import Parts
from ..process.reactor import Waiter
from ..protocol import messages as m
from ..protocol.connection import Connection
from .user_code import UserCode


class _Output(Struct, eq=False):
    """One stream: which values are wanted, how many were taken, whether more are wanted, and what waits for either."""

    caller: bytes
    told: m.CallExtras
    taken: int
    stopped: bool = False
    cancelled: bool = False
    wake: Callable[[], object] | None = None

    def has_room(self, made: int) -> bool:
        """Whether the next value may be made, after so many, or is not wanted any more."""
        return not self.told.window or made - self.taken < self.told.window or self.stopped


class Producer:
    """Sends what generators yield to their callers.

    Args:
        pack: serialises a value for a process.
    """

    def __init__(self, parts: Parts, pack: Callable[[Any, bytes], m.Value], user_code: UserCode) -> None:
        self._links, self._values, self._waits = parts.links, parts.values, parts.waits
        self._untaken = parts.reporting.untaken
        self._pack, self._user_code = pack, user_code
        self._outputs: dict[bytes, _Output] = {}

    def expect(self, caller: bytes, message: m.Push | m.Call) -> None:
        """Event: a call has arrived whose values are wanted one by one: what its caller says from here on counts."""
        assert message.extras is not None
        self._outputs[message.task] = _Output(caller, message.extras, message.extras.taken)

    def forget(self, task: m.ObjectId) -> None:
        """Event: a call has ended, or was sent back."""
        self._outputs.pop(task, None)

    # Events -----------------------------------------------------------------------------------------------------

    def on_taken(self, caller: Connection, message: m.Taken) -> None:
        output = self._outputs.get(message.task)
        if output is not None:
            output.taken = max(output.taken, message.count)
            self._wake(output)

    def on_stop(self, caller: Connection, message: m.StopStream) -> None:
        """Event: a caller wants no more values."""
        output = self._outputs.get(message.task)
        if output is not None:
            self._stop(output)

    def cancel(self, task: m.ObjectId) -> None:
        """Raise TaskCancelledError in a task that makes values at its next yield, if nothing else ends it earlier."""
        output = self._outputs.get(task)
        if output is not None:
            output.cancelled = True
            self._stop(output)

    def on_death(self, process: bytes, reason: str) -> None:
        """Event: a process is dead."""
        for output in list(self._outputs.values()):
            if output.caller == process:
                self._stop(output)

    def _stop(self, output: _Output) -> None:
        output.stopped = True
        self._wake(output)

    @staticmethod
    def _wake(output: _Output) -> None:
        if output.wake is not None:
            output.wake()

    # Making values ----------------------------------------------------------------------------------------------

    def produce(self, caller: bytes, message: Any, values: Any, step: Callable[[Callable], Any]) -> list[m.Value]:
        """Send what an iterator yields until it ends or no more is wanted; return what to reply.

        Args:
            caller: the process that gets the values.
            message: the Push or Call.
            values: the iterator.
            step: calls the user's code.

        Raises:
            TypeError: it is not an iterator.
        """
        check_yields(values)
        if isinstance(values, AsyncIterator):
            return step(lambda: asyncio.run(self.produce_async(message, values)))
        output, index, end = self._outputs[message.task], 0, object()
        while not output.stopped:
            with self._user_code:
                value = step(lambda: next(values, end))
            if value is end:
                break
            self._send(output, message.task, index, value)
            index += 1
            self._wait_for_room(output, message.task, index)
        else:
            with self._user_code:  # not as a step, which an interrupt would end before the user's cleanup
                getattr(values, "close", lambda: None)()
        return self._end(output, message.task)

    def _end(self, output: _Output, task: m.ObjectId) -> list[m.Value]:
        if output.cancelled:
            raise TaskCancelledError(f"task {short(task)} was cancelled while it yielded values")
        return [self._pack(None, output.caller)]

    def _wait_for_room(self, output: _Output, task: m.ObjectId, made: int) -> None:
        while not output.has_room(made):
            waiter = Waiter()
            output.wake = waiter.finish
            with self._seen_to_wait(output, task, made):
                if not output.has_room(made):
                    self._links.check()
                    self._waits.block(waiter, None)

    @contextlib.contextmanager
    def _seen_to_wait(self, output: _Output, task: m.ObjectId, made: int) -> Iterator[None]:
        self._untaken[task] = made - output.taken
        try:
            yield
        finally:
            del self._untaken[task]

    async def produce_async(self, message: Any, values: Any) -> list[m.Value]:
        """As `produce`, on the event loop of this thread."""
        check_yields(values)
        if not isinstance(values, AsyncIterator):
            values = _as_async(values)
        output, index, end = self._outputs[message.task], 0, object()
        while not output.stopped:
            with self._user_code:
                value = await anext(values, end)
            if value is end:
                break
            self._send(output, message.task, index, value)
            index += 1
            await self._wait_for_room_async(output, message.task, index)
        else:
            close = getattr(values, "aclose", None)
            if close is not None:
                with self._user_code:
                    await close()
        return self._end(output, message.task)

    async def _wait_for_room_async(self, output: _Output, task: m.ObjectId, made: int) -> None:
        loop = asyncio.get_running_loop()
        while not output.has_room(made):
            room = asyncio.Event()
            output.wake = lambda room=room: loop.call_soon_threadsafe(room.set)
            with self._seen_to_wait(output, task, made):
                if not output.has_room(made):
                    self._links.check()
                    await room.wait()
            output.wake = None

    def _send(self, output: _Output, task: m.ObjectId, index: int, value: Any) -> None:
        if index < output.told.skip and index not in output.told.missing:
            return  # it arrived in an earlier attempt
        packed = self._pack(value, output.caller)
        with self._links.lock:
            peer = self._links.peer(output.caller)
            if peer is not None:
                peer.send(m.Item(task, index, packed))
                return
            output.stopped = True
            self._values.free(packed)


async def _as_async(values: Iterator[Any]) -> AsyncIterator[Any]:
    for value in values:
        yield value
        await asyncio.sleep(0)  # the other calls' turn
