"""How one item is run: begun, its result turned into values, its failure packed, the reply sent.

Everything that happens to a task, a call or a constructor between its arrival and its reply is here, in whichever
thread it happens; which thread that is, and when, is decided by the caller of `run`.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import cloudpickle

from ...core.actors.instances import has_shutdown, method_of, shut_down
from ...core.engine import Host, running
from ...core.ids import owner_of
from ...core.options import STREAMING
from ...core.refs import ObjectRef, short
from ...core.reports.events import RAN
from ...core.results import exit_code, how_it_left, keep_returns
from ...core.telling import tell_exception
from ...core.values.functions import callable_name, load_function
from ...core.values.packed_exceptions import describe_here, pack_exception
from ...core.values.serialization import fill_slots
from ...exceptions import ObjectLostError, TaskCancelledError
from ..engine import NativeEngine
from ..process.calls import parent
from ..protocol import messages as m
from ..protocol.connection import Connection
from ..store.views import StaleBlockError
from .drafts import Drafts
from .printing import PrintedStream
from .producing import Producer
from .restorable import Restorable
from .signals import TaskInterrupts
from .user_code import UserCode


class Code:
    """A function or class that a caller has sent; rebuilt when it is first used."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._loaded: Callable | None = None

    def load(self) -> Callable:
        """Return the function or class."""
        if self._loaded is None:
            self._loaded, self._payload = load_function(self._payload), b""
        return self._loaded


@dataclass(slots=True, eq=False)
class Item:
    """A task, call or constructor that has arrived.

    Attributes:
        caller: the process that waits for the reply.
        message: the Push, Call or Construct.
        refs: references that were lent to us with it; they live until it has ended.
        code: what a task or constructor runs; None for a call.
        host: the actor, if it is a call or constructor.
        name: function or ``Class.method``, for messages.
        cancelled: why it was cancelled on its event loop, if so.
        left: it has asked for the end of the actor: whatever becomes of it, no reply is sent.
        started: when it began, in seconds of `time.perf_counter`.
    """

    caller: bytes
    message: Any
    refs: list[ObjectRef]
    code: Code | None
    host: Host | None = None
    name: str = ""
    cancelled: m.CancelTask | None = None
    left: bool = False
    started: float = 0.0

    @property
    def task_id(self) -> bytes | None:
        """The id of the task or call; a constructor has none."""
        return None if type(self.message) is m.Construct else self.message.task

    @property
    def function_name(self) -> str:
        """The function's name, or ``Class.method``."""
        if self.host is None:
            return callable_name(self.code.load()) if self.code is not None else self.name
        method = "__init__" if type(self.message) is m.Construct else self.message.method
        return f"{self.host.actor.class_name}.{method}"


class Executor:
    """Runs items; holds the actor that they are called on.

    Args:
        engine: this process's.
        flush: has a reply sent that was queued on a connection; now, or soon together with others.
        on_leave: called when a call has asked for the end of this process, which is to have `exit_code`.

    Attributes:
        where: the words that say where this process runs.
        producer: sends what generators yield.
        actor: the instance, once it is constructed; None in a worker that runs tasks.
        class_name: what the actor is; None in a worker that runs tasks.
        interrupts: what cancels tasks that run.
        restorable: for an actor that comes back with its state: what it tells its owner.
        leaving: whether a call has asked for the end of this process.
    """

    def __init__(self, engine: NativeEngine, flush: Callable[[Connection], None], on_leave: Callable[[], None]) -> None:
        self._engine, self._flush, self._on_leave, parts = engine, flush, on_leave, engine.parts
        self._links, self._values, self._store = parts.links, parts.values, parts.store
        self._begun, self._cancelling = parts.reporting.begun, parts.cancelling
        self._user_code, self.where = UserCode(), describe_here(engine.whereabouts.node)
        self._printed = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, PrintedStream)]
        self.producer = Producer(parts, self._pack, self._user_code)
        self.actor: Any = None
        self.class_name: str | None = None
        self.restorable: Restorable | None = None
        self.interrupts = TaskInterrupts(parts.busy, parts.cancelling.cancel_children)
        self.exit_code, self.leaving = 0, False
        engine.on_exit_actor = self._exit_actor

    def run(self, item: Item) -> None:
        """Run a task or call in this thread, and reply."""
        if self.restorable is not None and self.restorable.answered(item.caller, item.message.task):
            item.refs = []
            return
        values: list[m.Value] | None
        try:
            values, failure = self._succeed(item, self._begin(item))
        except BaseException as error:  # a task's exception is a value
            values, failure = self._raised(item, error)
        finally:
            self._note_end(item.message.task)
        if values is not None and not item.left:
            self._end(item, values, failure)
        del failure  # its traceback holds this frame: in a circle, the call's arguments would stay

    async def run_async(self, item: Item) -> None:
        """Run a call on the event loop of this thread, and reply."""
        values: list[m.Value] | None
        try:
            result = self._begin(item)
            if inspect.iscoroutine(result):
                with self._user_code:
                    result = await result
            if item.message.num_returns == STREAMING:
                values, failure = await self.producer.produce_async(item.message, result), None
            else:
                values, failure = self._succeed(item, result)
        except BaseException as error:  # a task's exception is a value
            values, failure = self._raised(item, error)
        finally:
            self._note_end(item.message.task)
        if values is not None and not item.left:
            self._end(item, values, failure)
        del failure  # its traceback holds this frame: in a circle, the call's arguments would stay

    def _raised(self, item: Item, error: BaseException) -> tuple[list[m.Value] | None, BaseException | None]:
        """Return the values that stand for what a run has raised, and that; no values where nothing is replied."""
        if isinstance(error, StaleBlockError):
            self.give_back(item, error.span)
        elif isinstance(error, SystemExit):
            if not item.left:
                self.leave(item.name, error)
        elif item.cancelled is not None:
            failure = self._cancelled(item, "while it ran")
            return self._fail(item, failure), failure
        elif not (self.leaving and isinstance(error, asyncio.CancelledError)):
            return self._fail(item, error), error
        return None, None  # … or the actor ends: that is what its caller is told

    def construct(self, item: Item, cls: type) -> None:
        """Make the actor; raises what the constructor raises."""
        running.set(item)
        self.actor = self._apply(cls, item.message)
        named, hears_end = type(self.actor).__repr__ is not object.__repr__, has_shutdown(type(self.actor))
        if named or hears_end:
            text = repr(self.actor).partition("\n")[0][:100] if named else ""
            self._links.node.send(m.Label(text, hears_end))

    def restore(self, message: m.Construct, owner: bytes, restoration: m.Restoration) -> None:
        """Bring the constructed actor to where it was; raises what its `__restore__` raises."""
        self.restorable = Restorable(self._engine.parts, self._user_code, owner, message.actor, restoration)
        try:
            self.restorable.restore(self.actor, self._run_again)
        except StaleBlockError as loss:
            raise ObjectLostError(
                f"{message.name} cannot be restored: its checkpoint, or an argument of a call since, is lost: {loss}"
            ) from loss

    def _run_again(self, call: m.Call, in_doubt: bool) -> m.Reply | None:
        """Run a recorded call; return its answer if that is in doubt."""
        item = Item(owner_of(call.task), call, [], None)
        try:
            result = self._begin(item)
            values = self._succeed(item, result)[0] if in_doubt else []
        except (StaleBlockError, SystemExit):
            raise
        except BaseException as error:  # a task's exception is a value
            values = self._fail(item, error)
        finally:
            self._note_end(call.task)
        return m.Reply(call.task, values, 0.0) if in_doubt else None

    def leave(self, name: str, request: SystemExit) -> None:
        """End this process, as a call asks: nothing new begins, what runs finishes, no reply is sent; in any thread."""
        self.exit_code, self.leaving = exit_code(request), True
        if self.class_name is not None and self.exit_code == 0:
            self._links.node.send(m.ActorExiting(how_it_left(name, request)))
        self._on_leave()

    def _exit_actor(self, request: SystemExit) -> None:
        """End the actor although the exception that is about to be raised may be caught."""
        item = running.get()
        if isinstance(item, Item):
            item.left = True
        self.leave(f"a thread of {self.class_name}" if item is None else item.name, request)

    def shut_down_actor(self) -> None:
        """Drop the actor's instance; one that ends on purpose is told before."""
        actor, self.actor = self.actor, None
        if actor is None or self.exit_code != 0:
            return
        try:
            with self._user_code:
                shut_down(actor)
        except BaseException:  # the actor ends, whatever it says
            tell_exception()

    @staticmethod
    def crash() -> NoReturn:
        """End this process because of the exception that is being handled, which would be lost otherwise."""
        tell_exception()
        os._exit(1)

    def give_back(self, item: Item, span: m.Span) -> None:
        """Tell the caller that an argument cannot be read; nothing was run."""
        item.refs = []
        message = item.message
        construct = isinstance(message, m.Construct)
        if not construct:
            self.producer.forget(message.task)
        lost = (
            m.ArgumentLost(message.actor, span, message.restarts) if construct else m.ArgumentLost(message.task, span)
        )
        with self._links.lock:
            peer = self._links.peer(item.caller)
            if peer is not None:
                peer.send(lost)

    def refuse(self, item: Item) -> None:
        """Reply that an item was cancelled before it began."""
        item.name = item.message.name if item.code is not None else f"{self.class_name}.{item.message.method}"
        error = self._cancelled(item, "before it began")
        self._end(item, self._fail(item, error), error)

    def _cancelled(self, item: Item, when: str) -> TaskCancelledError:
        task = item.message.task
        if item.cancelled is not None and item.cancelled.recursive:
            self._cancelling.cancel_children(task, False)
        return TaskCancelledError(f"{item.name} ({short(task)}) was cancelled {when}")

    # Steps of a run ---------------------------------------------------------------------------------------------

    def _begin(self, item: Item) -> Any:
        """Call the function or method; return its result."""
        message = item.message
        item.started = time.perf_counter()
        item.host = self._engine.hosted
        running.set(item)
        if item.code is not None:
            item.name = message.name
        elif message.extras is not None and message.extras.name is not None:
            item.name = message.extras.name
        else:
            item.name = f"{self.class_name}.{message.method}"
        self._begun[message.task] = (item.name, item.started)
        parent.set(message.task)
        if item.code is None:
            return self._apply(method_of(self.actor, message.method), message)
        return self._apply(item.code.load(), message, partial(self.interrupts.call, message.task, item.name))

    def _apply(self, function: Callable, message: Any, guard: Callable | None = None) -> Any:
        store = self._store
        args, kwargs = store.load(message.arguments)
        if message.slots:
            args, kwargs = fill_slots(args, kwargs, [store.load(value) for value in message.slots])
        with self._user_code:
            return function(*args, **kwargs) if guard is None else guard(function, *args, **kwargs)

    def _succeed(self, item: Item, result: Any) -> tuple[list[m.Value], BaseException | None]:
        """Return the values to reply with, and what a generator raised after the first of them.

        Raises:
            BaseException: what a wrong or unpicklable result raises.
        """
        count = item.message.num_returns
        if count == 1:
            return [self._pack(result, item.caller)], None
        task = item.message.task
        step = _call if item.code is None else partial(self.interrupts.call, task, item.name)
        if count == STREAMING:
            return self.producer.produce(item.caller, item.message, result, step), None

        def next_value(advance: Callable[[], Any]) -> Any:
            with self._user_code:  # what is returned may be a generator
                return step(advance)

        drafts = Drafts(self._values, self._store, item.caller)
        error = keep_returns(item.name, result, count, drafts.add, next_value)
        if error is None:
            return drafts.hand_over(), None
        if not len(drafts) or isinstance(error, SystemExit) or self._is_to_be_run_again(item, error):
            raise error
        values = drafts.hand_over()
        return [*values, *self._fail(item, error)[len(values) :]], error

    def _pack(self, value: Any, caller: bytes) -> m.Value:
        packed, inner = self._store.pack(value, caller)
        if inner:
            with self._links.lock:
                self._values.lend_all(packed, caller)
        return packed

    def _fail(self, item: Item, error: BaseException) -> list[m.Value]:
        """Return the values that stand for an exception."""
        failure = m.Value(pack_exception(error, item.name, self.where), failed=True)
        return [failure] * abs(item.message.num_returns)  # that of a stream is -1

    def _note_end(self, task: bytes) -> None:
        for stream in self._printed:
            stream.end_of_task()
        begun = self._begun.pop(task, None)
        if begun is not None:
            self._links.note((time.perf_counter(), RAN, task, begun))

    @staticmethod
    def _is_to_be_run_again(item: Item, error: BaseException) -> bool:
        """Return whether the caller wants it to be run again after such an exception."""
        extras = item.message.extras
        if extras is None or extras.retry is None:
            return False
        try:
            return isinstance(error, cloudpickle.loads(extras.retry) if extras.retry else Exception)
        except Exception:  # the types cannot be had in this process, so that none of them was raised here
            return False

    def _end(self, item: Item, values: list[m.Value], error: BaseException | None = None) -> None:
        """Send the reply; `error`: what the values stand for, if it has failed."""
        self._engine.cancelled.discard(item.message.task)
        if item.message.num_returns == STREAMING:
            self.producer.forget(item.message.task)
        reply = m.Reply(item.message.task, values, time.perf_counter() - item.started)
        if self.restorable is not None:
            self.restorable.end(item.caller, item.message, reply)
            item.refs = []
            return
        answer: m.Message = reply
        if error is not None and values and self._is_to_be_run_again(item, error):
            answer = m.TryAgain(item.message.task, values[-1])
        item.refs = []
        with self._links.lock:
            peer = self._links.peer(item.caller)
            if peer is None:
                self._values.free(*values)
            elif peer.post(answer):
                self._flush(peer)


def _call(step: Callable[[], Any]) -> Any:
    return step()
