"""What the Ray engine runs in Ray's processes: the user's functions, hosts of the user's actors, and the board."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import cloudpickle
import ray

from ..engine import ActorId, Host
from ..failure import describe_here, pack_error, pack_exception
from ..results import died, how_it_left, split_returns
from ..runtime_context import running
from .errors import Failure, Retry

if TYPE_CHECKING:
    from .values import Packed, RayValues


class Order(NamedTuple):
    """A task or call, beside its arguments.

    Attributes:
        function: ``function`` or ``Class.method``.
        name: for messages.
        num_returns: how many values it returns; STREAMING: it yields them.
        retry: the exceptions after which it is made again, as `options.retry` has them.
        attempts: how many there may be; 0: without limit.
    """

    function: str
    name: str
    num_returns: int
    retry: bytes | None
    attempts: int


@dataclass(frozen=True)
class Running:
    """What runs here, for `get_runtime_context`."""

    name: str
    function_name: str
    host: Host | None
    task_id: bytes | None

    @classmethod
    def of(cls, order: Order, host: Host | None) -> Running:
        """Return what is to be known of a call."""
        # The id of the first object that it returns, as on the other engines.
        task = bytes.fromhex(ray.get_runtime_context().get_task_id() or "") + (1).to_bytes(4, "little")
        return cls(order.name, order.function, host, task)


def here() -> str:
    """Return the text that says where this process runs."""
    return describe_here(ray.get_runtime_context().get_node_id()[:8])


def _attempts_before() -> int:
    """Return how often the task or call was made before; for a constructor: how often the actor was restarted."""
    return ray._private.worker.global_worker.core_worker.get_current_task_attempt_number()


def _failure(order: Order, error: BaseException) -> Failure:
    number = _attempts_before() + 1
    where = here()
    if number > 1:
        where += f", attempt {number}" + (f" of {order.attempts}" if order.attempts else "")
    again = order.retry is not None and isinstance(error, cloudpickle.loads(order.retry) if order.retry else Exception)
    return (Retry if again else Failure)(pack_exception(error, order.name, where))


def echo(packed: Packed) -> Packed:
    """Return what it is given."""
    return packed


class Work:
    """A task or call that has arrived in its process.

    Args:
        engine: this process's.
        order: what it is.
        find: returns the function or method.
        packed, slots: its arguments.
        host: the actor, for its calls.
    """

    def __init__(  # noqa: PLR0917
        self,
        engine: RayValues,
        order: Order,
        find: Callable[[], Callable],
        packed: Packed,
        slots: tuple[Packed, ...],
        host: Host | None = None,
    ) -> None:
        self._engine, self._order, self._find, self._host = engine, order, find, host
        self._packed, self._slots = packed, slots

    def _begin(self) -> Any:
        running.set(Running.of(self._order, self._host))
        args, kwargs = self._engine.load_arguments(self._packed, self._slots)
        return self._find()(*args, **kwargs)

    def _values(self, result: Any) -> Any:
        number = self._order.num_returns
        values = [self._engine.pack(value) for value in split_returns(self._order.name, result, number)]
        return values[0] if number == 1 else values

    def _checked(self, values: Any, kinds: tuple[type, ...]) -> Any:
        if not isinstance(values, kinds):
            raise TypeError(f"num_returns='streaming' is for generators, but it returned a {type(values).__name__}")
        return values

    def run(self) -> Any:
        """Run it; whatever it raises leaves this process as a `Failure`."""
        try:
            return self._values(self._begin())
        except Exception as error:  # a task's exception is a value
            raise _failure(self._order, error) from None
        except SystemExit as request:
            self._leave(request)

    def stream(self) -> Iterator[Packed]:
        """Run it, and yield what it yields."""
        try:
            values = self._checked(self._begin(), (Iterator, AsyncIterator))
            for value in _drive(values) if isinstance(values, AsyncIterator) else values:
                yield self._engine.pack(value)
                if ray.get_runtime_context().is_canceled():
                    getattr(values, "close", lambda: None)()
                    return
        except Exception as error:  # a task's exception is a value
            raise _failure(self._order, error) from None
        except SystemExit as request:
            self._leave(request)

    async def run_async(self) -> Any:
        """As `run`, on the event loop of an async actor."""
        try:
            result = self._begin()
            return self._values(await result if inspect.iscoroutine(result) else result)
        except Exception as error:  # a task's exception is a value
            raise _failure(self._order, error) from None
        except SystemExit as request:
            self._leave(request)

    async def stream_async(self) -> AsyncIterator[Packed]:
        """As `stream`, on the event loop of an async actor."""
        try:
            values = self._checked(self._begin(), (Iterator, AsyncIterator))
            if isinstance(values, AsyncIterator):
                async for value in values:
                    yield self._engine.pack(value)
            else:
                for value in values:
                    yield self._engine.pack(value)
        except Exception as error:  # a task's exception is a value
            raise _failure(self._order, error) from None
        except SystemExit as request:
            self._leave(request)

    def _leave(self, request: SystemExit) -> None:
        """End this process, as a call asks."""
        if self._host is None:
            raise request
        how = how_it_left(self._order.name, request)
        ray.get(self._engine.board.note_end.remote(self._host.actor.id.hex(), how))
        if request.code:
            os._exit(request.code if isinstance(request.code, int) else 1)
        ray.actor.exit_actor()


def _drive(values: AsyncIterator[Any]) -> Iterator[Any]:
    """Yield what an asynchronous generator yields, on an event loop of its own."""
    with asyncio.Runner() as runner:
        end = object()

        async def step() -> Any:
            return await anext(values, end)

        while (value := runner.run(step())) is not end:
            yield value


class ActorHost:
    """Holds a user's actor in a process of Ray; subclasses know how to `join`."""

    join: Callable[[], RayValues]

    def __init__(self, draft: ActorId, name: tuple[str | None, str | None], code: Any, packed: Packed, *slots: Packed):
        engine, context = self.join(), ray.get_runtime_context()
        self._engine, self._instance, self._death = engine, None, b""
        actor = replace(draft, id=bytes.fromhex(context.get_actor_id()))
        host = Host(actor, actor.id, name[0], name[1] or context.namespace, _attempts_before())
        self._host = engine.hosted = host
        call = f"{draft.class_name}.__init__"
        running.set(Running(call, call, host, None))
        try:
            args, kwargs = engine.load_arguments(packed, slots)
            self._instance = engine.unship(code)(*args, **kwargs)
        except Exception as error:  # Ray would keep only its text: calls raise it instead
            self._die("its constructor failed", pack_exception(error, call, here()))
        except SystemExit as request:
            self._die(how_it_left(call, request), None)

    def _die(self, death: str, cause: bytes | None) -> None:
        error = died(self._host.actor.class_name, self._host.actor, death, None)
        self._death = pack_error(error, cause)

    def about(self) -> ActorId:
        """Return what makes a handle."""
        return self._host.actor

    def _work(self, order: Order, method: str, packed: Packed, slots: tuple[Packed, ...]) -> Work:
        if self._death:
            raise Failure(self._death)
        return Work(self._engine, order, lambda: getattr(self._instance, method), packed, slots, self._host)


class SyncHost(ActorHost):
    """Of an actor whose calls run one by one, or in threads."""

    def call(self, order: Order, method: str, packed: Packed, *slots: Packed) -> Any:
        """Call a method."""
        return self._work(order, method, packed, slots).run()

    def stream(self, order: Order, method: str, packed: Packed, *slots: Packed) -> Iterator[Packed]:
        """Call a method that yields its values."""
        yield from self._work(order, method, packed, slots).stream()


class AsyncHost(ActorHost):
    """Of an actor whose calls run on an event loop."""

    async def call(self, order: Order, method: str, packed: Packed, *slots: Packed) -> Any:
        """Call a method."""
        return await self._work(order, method, packed, slots).run_async()

    async def stream(self, order: Order, method: str, packed: Packed, *slots: Packed) -> AsyncIterator[Packed]:
        """Call a method that yields its values."""
        async for value in self._work(order, method, packed, slots).stream_async():
            yield value


class Board:
    """An actor of the job, for what Ray has no place for: published values, how actors ended, handles to be kept."""

    def __init__(self, is_fixed: bool) -> None:
        self._is_fixed = is_fixed
        self._values: dict[str, bytes] = {}
        self._ends: dict[str, str] = {}
        self._pinned: dict[bytes, Any] = {}

    def is_fixed(self) -> bool:
        """Return whether the nodes that there are are all that there will be."""
        return self._is_fixed

    def publish(self, key: str, payload: bytes) -> None:
        """Keep a value."""
        self._values[key] = payload

    def lookup(self, key: str) -> bytes | None:
        """Return a value."""
        return self._values.get(key)

    def note_end(self, actor: str, how: str) -> None:
        """Remember how an actor has ended itself."""
        self._ends[actor] = how

    def end_of(self, actor: str) -> str:
        """Return how an actor has ended itself, "" if it has not."""
        return self._ends.get(actor, "")

    def pin(self, key: bytes, held: list[Any]) -> None:
        """Keep a handle or reference until the job ends."""
        self._pinned[key] = held

    def pinned(self, key: bytes) -> list[Any] | None:
        """Return what is kept."""
        return self._pinned.get(key)
