"""The thread that reads a process's sockets, and handles what it reads: that which waits, for itself and all others.

A synchronous call must not pay for a hand-over between threads, so there is no receiver thread on its path: the
thread in `wait` polls the sockets itself (it *leads*), and handles whatever arrives. Threads that wait meanwhile
sleep until the leader finds their answer or stops leading. When no thread waits for anything, a background thread
leads, so that the process stays responsive while user code computes; it gives way at once to a thread that wants to
lead, and comes back only after none has led for a moment (`_GRACE`), so it never gets into the way of a loop of calls.
One that calls and calls without waiting wakes it once in a while (`_PAUSE`), and what has been said by then is written
together: woken by each call, it would ask for the interpreter's lock as often.

An event loop that waits for other things, too, may *attend*: it waits for the reactor's descriptor and has what has
arrived read. The background thread leads only once it finds that nobody has come for that, which it does not look at
more often than it must (`_REST`).
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...core.reports.events import Event, recent
from ..protocol.connection import Connection, Unreadable
from ..protocol.loop import LONGEST_POLL, Loop, show
from ..protocol.messages import Message

_GRACE = 0.002
_PAUSE = 0.0005
_REST = 0.02
# How long `close` waits for the thread that polls, seconds; twice.
_CLOSE_SECONDS = 1.0

#: What to do with a kind of message that came over a connection; called under the lock.
Handler = Callable[[Connection, Any], object]


class Waiter:
    """Something that one thread waits for: ready after `notify` was called `count` times."""

    __slots__ = ("_bed", "_woken", "count", "ready")

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self.ready = count <= 0
        self._woken = False
        self._bed: threading.Lock | None = None  # made on the first sleep: a thread that reads for itself never does

    def notify(self, by: int = 1) -> None:
        """Count down; wake the thread at zero."""
        self.count -= by
        if self.count <= 0 and not self.ready:
            self.ready = True
            self.wake()

    def finish(self) -> None:
        """Make it ready now, whatever the count."""
        self.notify(max(self.count, 1))

    def sleep(self, timeout: float | None) -> None:
        """Sleep until woken: by readiness, or since the leader's place is free."""
        bed = self._bed
        if bed is None:
            bed = self._bed = threading.Lock()
            bed.acquire()
        if not self._woken:  # looked at after the lock is there, as `wake` looks for the lock after it has set this
            bed.acquire(timeout=-1 if timeout is None else timeout)
        self._woken = False

    def wake(self) -> None:
        """Wake the thread without being ready."""
        self._woken = True
        if self._bed is not None:
            with contextlib.suppress(RuntimeError):  # a lock used as a binary semaphore: it was woken already
                self._bed.release()


class Reactor(Loop):
    """A loop, the rule of which thread polls it, and what becomes of what that thread has read.

    Args:
        name: of the background thread.
        events: what has happened in this process, to be shown beside an error of ours.
        hang_up: called under the lock to close a connection that has ended, or says nonsense: the reason, else None.

    Attributes:
        lock: guards all state of the process; held for short stretches, never while waiting or running user code.
        before_poll: called by the thread that is about to poll.
        after_messages: called under the lock after messages were handled.
    """

    def __init__(self, name: str, events: Iterable[Event], hang_up: Callable[[Connection, str | None], object]) -> None:
        super().__init__()
        self.lock = threading.RLock()
        self._events, self._hang_up = events, hang_up
        self._lead = threading.RLock()  # not a plain lock: `busy` asks whether this thread has it
        self._followers: deque[Waiter] = deque()
        self._leads = 0
        self._yield = False
        self._background_polls = False
        self._was_nudged = False
        self._in_poll = False
        self._nudged = False
        self._look_again = False
        self._closed = False
        self._attended = False
        self._dirty: set[Connection] = set()
        self._waker = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.before_poll: Callable[[], None] = lambda: None
        self.after_messages: Callable[[], object] = lambda: None
        self.watch(self._waker, self._drain_waker)
        self._thread = threading.Thread(target=self._background, name=name, daemon=True)
        self._thread.start()

    def flush_soon(self, connection: Connection) -> None:
        """Flush before the next poll, or now if some thread sleeps in one."""
        self._dirty.add(connection)
        self.nudge()

    def call_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action()` once so many seconds have passed, in whichever thread leads by then."""
        super().call_later(seconds, action)
        self.nudge()

    # Handling ---------------------------------------------------------------------------------------------------

    def follow(self, connection: Connection, handlers: Mapping[type, Handler]) -> None:
        """Read a connection from now on, and handle what it says."""
        self.watch(connection.fileno(), lambda mask: self._read(connection, handlers, mask))

    def _read(self, connection: Connection, handlers: Mapping[type, Handler], mask: int) -> None:
        if mask & select.EPOLLOUT and connection.blocked:
            connection.flush()
        with self.lock:
            messages = connection.receive()
            if messages is None:
                self._hang_up(connection, None)
                return
            self.handle(connection, handlers, messages)
            self.after_messages()

    def handle(self, connection: Connection, handlers: Mapping[type, Handler], messages: list[Message]) -> None:
        """Handle what a process says; if it makes no sense, that costs it its connection, and others nothing."""
        for message in messages:
            try:
                handlers[type(message)](connection, message)
            except Exception as error:  # an id or a state that cannot be, or a bug of ours, which must be seen
                kind = type(message).__name__
                if isinstance(message, Unreadable):
                    why = message.reason
                elif type(message) not in handlers:
                    why = f"nobody says {kind} to this process"
                else:
                    why = f"{kind}: {error!r}"
                    error.add_note(recent(self._events))
                    show()
                self._hang_up(connection, why)
                return

    # Waiting ----------------------------------------------------------------------------------------------------

    def wait(self, waiter: Waiter, deadline: float | None = None, until: Callable[[], bool] | None = None) -> bool:
        """Block until the waiter is ready; False if `deadline` (monotonic seconds) comes first, or `until` is so.

        `until` is looked at when something was read, or the waiter was woken.
        """
        while not waiter.ready:
            if self._is_over(deadline, until):
                return False
            if self._lead.acquire(False):
                self._lead_for(waiter, deadline, until)
            else:
                self._follow(waiter, deadline, until)
        return True

    def read_arrived(self) -> bool:
        """Read what has arrived, without waiting; False if another thread reads."""
        if not self._lead.acquire(False):
            self._ask_for_lead()
            return False
        self._leads += 1
        try:
            self.poll(0.0)
        finally:
            self._leave()
        return True

    def attend(self, attended: bool) -> None:
        """Say that an event loop waits for this one's descriptor, and calls `read_arrived` then; or that none does."""
        self._attended = attended
        self._wake_poll()

    def _ask_for_lead(self) -> None:
        if self._background_polls:
            self._yield = True
            self._wake_poll()

    def _is_over(self, deadline: float | None, until: Callable[[], bool] | None) -> bool:
        late = deadline is not None and time.monotonic() >= deadline
        return self._closed or late or (until is not None and until())

    def _follow(self, waiter: Waiter, deadline: float | None, until: Callable[[], bool] | None) -> None:
        """Sleep until the waiter is ready, the leader's place is free or the time is over."""
        self._followers.append(waiter)
        try:
            self._ask_for_lead()
            # The leader may have left before it could see us; then nothing would wake us.
            if self._lead.acquire(False):
                self._lead.release()
            else:
                waiter.sleep(None if deadline is None else max(0.0, deadline - time.monotonic()))
        finally:
            try:
                self._followers.remove(waiter)
            except ValueError:  # we were offered the lead: if we don't need it any more, another may
                if waiter.ready or self._is_over(deadline, until):
                    self._offer_lead()

    def _lead_for(self, waiter: Waiter, deadline: float | None, until: Callable[[], bool] | None) -> None:
        self._leads += 1
        try:
            while not waiter.ready and not self._closed and (until is None or not until()):
                timeout = None
                if deadline is not None:
                    timeout = deadline - time.monotonic()
                    if timeout <= 0:
                        return
                self.poll(timeout)
        finally:
            if self._closed:
                self._let_go()
            self._leave()

    def _leave(self) -> None:
        """Lead no more."""
        self._lead.release()
        self._offer_lead()
        # What is to be done before a poll, and came after the last one had begun: who attends comes only for what can
        # be read, and nobody else does.
        if self._attended and self._look_again:
            self._wake_poll()

    def _offer_lead(self) -> None:
        while self._followers:
            try:
                follower = self._followers.popleft()
            except IndexError:  # another thread was quicker
                return
            follower.wake()
            if not follower.ready:
                return

    # Polling ----------------------------------------------------------------------------------------------------

    def poll(self, timeout: float | None) -> None:
        """As `Loop.poll`, after all that is to be written was; by the thread that leads."""
        self._look_again = False
        self.before_poll()
        while self._dirty:
            self._dirty.pop().flush()
        super().poll(timeout)

    def _wait(self, timeout: float | None) -> list[tuple[int, int]]:
        self._in_poll = True
        try:
            # A `nudge` before the line above did not know that we were about to sleep, and has set this instead.
            return self._epoll.poll(0.0 if self._look_again else timeout)
        finally:
            self._in_poll = False

    def _background(self) -> None:
        pause, unread = _GRACE, False
        while not self._closed:
            leads = self._leads
            time.sleep(pause)
            if self._leads != leads:
                # Who attends comes in time, and need not be looked after as often.
                pause, unread = min(2 * pause, _REST) if self._attended else _GRACE, False
                continue
            if self._attended and not unread:
                self._await_something()
                unread = True
                continue
            pause, unread = _GRACE, False
            if not self._lead.acquire(False):
                with self._lead:  # sleep here, at no cost, while a thread leads for long; then give it a moment again
                    pass
                self._offer_lead()  # a thread that found the lead taken just now follows us
                continue
            self._background_polls, self._was_nudged = True, False
            try:
                while not (self._yield or self._closed or self._followers or self._was_nudged):
                    self.poll(None)
            except Exception:  # a bug of ours must not silence the process for ever: it is shown, and reading goes on
                show()
            finally:
                pause = _PAUSE if self._was_nudged and not self._yield else _GRACE
                self._background_polls = self._yield = False
                if self._closed:
                    self._let_go()
                self._leave()

    def _await_something(self) -> None:
        """Wait until there is something to read, or a timer is due."""
        poll = select.poll()
        poll.register(self._epoll, select.POLLIN)
        until = self._timers[0][0] - time.monotonic() if self._timers else LONGEST_POLL
        poll.poll(max(0.0, until) * 1e3)

    def nudge(self) -> None:
        """Wake the thread that sleeps in a poll; cheap if there is none."""
        self._look_again = True  # first: a thread that is about to sleep looks at it last
        if (self._in_poll or self._attended) and not self._nudged:
            self._wake_poll()

    def _wake_poll(self) -> None:
        self._nudged = True
        with contextlib.suppress(OSError):  # closing, or the counter is full: it is awake already
            os.eventfd_write(self._waker, 1)

    def _drain_waker(self, mask: int) -> None:
        os.eventfd_read(self._waker)
        # Not before that: of a thread that nudges in between the wake would be read here, and the mark would stay, so
        # that no later nudge wakes anybody.
        self._nudged, self._was_nudged = False, True

    def busy(self) -> bool:
        """Return whether this thread is in the middle of reading for all: it must not be interrupted here."""
        return self._lead._is_owned() and not self._in_poll  # type: ignore[attr-defined]

    def close(self) -> None:
        """Stop reading."""
        self._closed = True
        self._wake_poll()
        if threading.current_thread() is not self._thread:
            self._thread.join(_CLOSE_SECONDS)
        if self._lead.acquire(timeout=_CLOSE_SECONDS):
            self._let_go()
            self._lead.release()
            self._offer_lead()

    def _let_go(self) -> None:
        """Close the descriptors; called by the thread that leads, since no other polls then."""
        if not self._epoll.closed:
            self._epoll.close()
            waker, self._waker = self._waker, -1
            os.close(waker)
