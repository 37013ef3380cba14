"""An event loop that turns only while something waits for it, also for what yields asynchronously."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any


class PrivateLoop:
    """The event loop of an async actor: it turns only while a call runs, also inside of another actor's call."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def run(self, function: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function on the loop, and await its result if it is a coroutine."""

        async def call() -> Any:
            result = function(*args, **kwargs)
            return await result if inspect.iscoroutine(result) else result

        return self._complete(call())

    def _complete(self, work: Any) -> Any:
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(None)  # asyncio refuses to nest loops, as a call inside a call must
        try:
            return self._loop.run_until_complete(work)
        finally:
            asyncio._set_running_loop(outer)

    def close(self) -> None:
        """Cancel what is left on the loop."""
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        if left:
            self._complete(asyncio.wait(left, timeout=1))
        self._loop.close()


def drive(values: AsyncIterator[Any], loop: PrivateLoop | None = None) -> Iterator[Any]:
    """Yield what an asynchronous generator yields, on the given loop or one of its own."""
    own = None if loop is not None else PrivateLoop()
    end = object()

    async def step() -> Any:
        return await anext(values, end)

    try:
        while (value := (loop or own).run(step, (), {})) is not end:  # type: ignore[union-attr]
            yield value
    finally:
        if own is not None:
            own.close()
