"""A worker's main loop: the main thread reads, runs what it read, and replies.

A plain worker runs tasks of the process that leases it. When its task waits for others (`get`, `wait`), it gives its
CPU back, and the tasks that were queued behind that one go back to their callers: they might be what it waits for. An
actor's process constructs the actor first and then runs its methods in the order of arrival: one at a time, or, where
the actor is to run several at the same time, by handing them over to threads or event loops (`place.py`).
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import signal
import threading
import time
from collections import deque
from typing import Any

from ...core.actors.checkpoints import RESTORE
from ...core.current import set_engine
from ...core.engine import Host
from ...core.options import STREAMING, limits_of_groups
from ...core.signatures import is_async
from ...core.values.packed_exceptions import not_made, pack_exception
from ..engine import NativeEngine
from ..process.actors import unpack_identity
from ..process.blocked_waits import BlockedWaits
from ..process.environments import Environments
from ..process.lending import Lender
from ..process.links import Links
from ..process.packages import packages_of
from ..process.reactor import Handler, Reactor, Waiter
from ..protocol import messages as m
from ..protocol.connection import Connection, remember
from ..protocol.local_sockets import SocketNames
from ..store.views import StaleBlockError
from .event_loops import EventLoops
from .executor import Code, Executor, Item
from .place import Place, Threads
from .signals import limit_end

# How often, in seconds, a worker that is not wanted any more looks whether what it owns still is.
_LOOK_AGAIN = 0.5


class Worker(Lender):
    """The state of one worker process.

    Args:
        names: those of the session's sockets.
        process: the id that the node has given it.
        environment: its surroundings, which are set up already.
    """

    def __init__(self, names: SocketNames, process: bytes, environment: m.Environment | None) -> None:
        self._links = links = Links(names, process)
        self._engine = NativeEngine(links, Environments(packages_of(links.welcome.folder), environment))
        self._parts = parts = self._engine.parts
        self._values = parts.values
        self._executor = Executor(self._engine, self._send_reply, self._on_leave)
        self._place: Place | None = None
        self._leaving = False
        self._items: deque[Item] = deque()
        self._running = False
        self._waits = False
        self._exiting = False
        self._arrival: Waiter | None = None
        parts.lending.lender = self
        records = self._values.objects.records
        parts.waits.blocked = blocked = BlockedWaits(parts.links, records, parts.makers, self._waiting_call)
        parts.links.on_death.append(self._executor.producer.on_death)
        parts.links.start({**parts.handlers(), **self._handlers(blocked)})

    def _handlers(self, blocked: BlockedWaits) -> dict[type, Handler]:
        """Return which message goes to which method, of those that only a worker gets."""
        return {
            m.Assigned: self._parts.groups.on_assigned,
            m.Function: self._on_function,
            m.Push: self._on_push,
            m.Call: self._on_call,
            m.Construct: self._on_item,
            m.CancelTask: self._on_cancel,
            m.Bounce: self._on_bounce,
            m.Exit: self._on_exit,
            m.Taken: self._executor.producer.on_taken,
            m.StopStream: self._executor.producer.on_stop,
            m.MadeBy: blocked.on_made_by,
            m.AskWait: blocked.on_ask_wait,
            m.Deadlocked: blocked.on_deadlocked,
        }

    # Arrivals; in whichever thread reads ------------------------------------------------------------------------

    def _on_function(self, caller: Connection, message: m.Function) -> None:
        remember(caller.code, message.id, Code(message.payload))

    def _on_push(self, caller: Connection, message: m.Push) -> None:
        if self._waits:
            self._bounce([(caller.peer or b"", message)])
            # Lent to us all the same: taken, and dropped at once.
            self._values.adopt_all((message.arguments, *message.slots), caller.peer)
        else:
            self._on_item(caller, message)

    def _on_item(self, caller: Connection, message: m.Push | m.Construct) -> None:
        self._items.append(self._item(caller, message, caller.code[message.function]))
        self._wake()

    def _on_call(self, caller: Connection, message: m.Call) -> None:
        item = self._item(caller, message, None)
        if self._place is None:
            self._items.append(item)
            self._wake()
        elif not self._leaving:
            self._place.begin(item)

    def _item(self, caller: Connection, message: Any, code: Code | None) -> Item:
        if not isinstance(message, m.Construct) and message.num_returns == STREAMING:
            self._executor.producer.expect(caller.peer or b"", message)
        refs = self._values.adopt_all((message.arguments, *message.slots), caller.peer)
        return Item(caller.peer or b"", message, refs, code)

    def _on_bounce(self, caller: Connection, message: m.Bounce) -> None:
        returned = []
        for item in [item for item in list(self._items) if item.caller == caller.peer]:
            with contextlib.suppress(ValueError):  # the main thread has just begun it
                self._items.remove(item)
                returned.append((item.caller, item.message))
        self._bounce(returned)

    def _on_cancel(self, caller: Connection, message: m.CancelTask) -> None:
        if message.recursive:
            self._parts.cancelling.cancel_children(message.task, message.force)
        self._engine.cancelled.add(message.task)
        self._executor.producer.cancel(message.task)
        if self._place is not None:
            self._place.cancel(message)
            return
        item = next((item for item in list(self._items) if getattr(item.message, "task", None) == message.task), None)
        if item is not None:
            with contextlib.suppress(ValueError):  # the main thread has just begun it
                self._items.remove(item)
                self._executor.refuse(item)
                return
        if self._executor.class_name is None:
            self._interrupt(message)

    def _interrupt(self, message: m.CancelTask) -> None:
        if message.force and message.task in self._parts.reporting.begun:
            # It is what runs: its reply cannot leave, nor the next task begin, while this thread has the lock.
            self._links.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        self._executor.interrupts.request(message)

    def _on_exit(self, node: Connection, message: m.Exit) -> None:
        self._exiting = True
        self._wake()

    def _on_leave(self) -> None:
        with self._links.lock:
            self._leaving = True
            self._wake()
        self._links.reactor.nudge()

    def _wake(self) -> None:
        arrival = self._arrival
        if arrival is not None:
            arrival.finish()

    # Waiting inside a task --------------------------------------------------------------------------------------

    def can_lend(self) -> bool:
        """Whether the calling thread has a CPU to lend: it is the one that runs a task."""
        return self._running and threading.current_thread() is threading.main_thread()

    def _waiting_call(self) -> str:
        """Return the name of what the calling thread runs, if nothing else can run here until it goes on; else ""."""
        if self._place is not None or not self.can_lend():
            return ""
        names = [name for name, _ in self._parts.reporting.begun.values()]
        return names[-1] if names else f"{self._executor.class_name}.__init__"

    def on_block(self) -> None:
        if self._place is not None:
            self._place.on_block()

    def lend(self) -> None:
        """Give the CPU to the node, and return the tasks that have not begun: they may be what is awaited."""
        with self._links.lock:
            self._waits = self._executor.class_name is None
            if self._waits:
                self._bounce([(item.caller, item.message) for item in self._items])
                self._items.clear()
            self._links.node.send(m.Blocked())

    def take_back(self) -> None:
        self._waits = False
        self._links.node.send(m.Unblocked())

    def _bounce(self, items: list[tuple[bytes, m.Push]]) -> None:
        tasks: dict[bytes, list[bytes]] = {}
        for caller, message in items:
            self._executor.producer.forget(message.task)
            tasks.setdefault(caller, []).append(message.task)
        for caller, theirs in tasks.items():
            peer = self._links.peer(caller)
            if peer is not None:
                peer.send(m.Bounced(theirs))

    # Running ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run what arrives until told to exit, or until what runs asks for it; then clean up.

        Raises:
            SystemExit: with the code that was asked for, unless that is 0.
        """
        set_engine(self._engine)
        self._run_items()
        self._close()
        if self._executor.exit_code:
            raise SystemExit(self._executor.exit_code)

    def _run_items(self) -> None:
        items = self._items
        while True:
            while not self._leaving:
                try:
                    item = items.popleft()
                except IndexError:  # asked first, it might be there, and be sent back by the thread that reads
                    break
                self._run(item)
            if self._leaving or (self._exiting and not self._is_needed()):
                break
            self._executor.interrupts.forget()
            if self._place is None:
                self._engine.cancelled.clear()  # they came too late
            waiter = Waiter()
            self._arrival = waiter
            if not items and not self._leaving:
                self._sleep(waiter, _LOOK_AGAIN if self._exiting else None)
            self._arrival = None
            if self._links.broken is not None:
                return
        with self._links.lock:
            leaving, self._leaving = self._leaving, True  # nothing is handed over any more
        limit_end()
        if self._place is not None:
            self._place.finish(leaving)

    def _sleep(self, waiter: Waiter, seconds: float | None) -> None:
        if self._place is not None and self._place.reads:
            waiter.sleep(seconds)
        else:
            self._links.reactor.wait(waiter, None if seconds is None else time.monotonic() + seconds)

    def _is_needed(self) -> bool:
        """Return whether others hold objects that tasks have made here: they would be lost with us, their owner."""
        if self._executor.class_name is not None:
            return False  # what an actor owns ends with it
        with self._links.lock:
            self._values.settle_drops()
            return self._values.objects.owns_any()

    def _run(self, item: Item) -> None:
        self._running = True
        try:
            if isinstance(item.message, m.Construct):
                self._construct(item)
            else:
                self._executor.run(item)
        finally:
            self._running = False

    def _construct(self, item: Item) -> None:
        message = item.message
        assert item.code is not None
        executor, method = self._executor, "__init__"
        executor.class_name, item.name = message.name, f"{message.name}.{method}"
        actor, _, name, namespace = unpack_identity(message.identity)
        self._engine.hosted = item.host = Host(actor, name, namespace, message.restarts)
        failure, reason = None, ""
        try:
            cls: Any = item.code.load()
            self._place = place = self._place or _place_for(cls, message, executor, self._links.reactor)
            if place is None:
                executor.construct(item, cls)
                if message.restoration is not None:
                    method = RESTORE
                    executor.restore(message, item.caller, message.restoration)
            else:
                place.apply(lambda: executor.construct(item, cls))
        except StaleBlockError as loss:
            executor.give_back(item, loss.span)
            return
        except SystemExit as request:
            executor.leave(f"{message.name}.{method}", request)
            return
        except BaseException as error:  # a constructor's exception is the reason of the actor's death
            failure = pack_exception(error, f"{message.name}.{method}", executor.where)
            reason = not_made(method, failure)
        self._links.node.send(m.Constructed(message.actor, failure, reason))

    def _send_reply(self, peer: Connection) -> None:
        if self._place is not None:
            self._place.flush(peer)
        else:  # with more to run, the reply goes out with the next ones, or when the background thread comes by
            self._links.reactor.flush_soon(peer) if self._items else peer.flush()

    def _close(self) -> None:
        """Run the clean-up of the actor and of the interpreter."""
        self._executor.shut_down_actor()
        gc.collect()
        threading._shutdown()  # type: ignore[attr-defined]  # joins threads, and ends idle pools, as Python does
        self._parts.task_queues.give_all_back()
        self._links.flush()
        self._parts.reporting.say_last()
        atexit._run_exitfuncs()


def _place_for(cls: type, message: m.Construct, executor: Executor, reactor: Reactor) -> Place | None:
    """Return where the calls of an actor are to run; None: one by one in the main thread."""
    groups = dict(message.concurrency_groups)
    limits = limits_of_groups(is_async(cls), message.max_concurrency, groups)
    if is_async(cls):
        return EventLoops(executor, cls, limits, reactor)
    return Threads(executor, cls, limits) if groups or (message.max_concurrency or 1) > 1 else None
