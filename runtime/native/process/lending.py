"""When a task that waits for others lends its CPU to one of them: not while what it waits for is only on its way.

An object that exists costs a round trip to its owner, in which the task does not wait for anybody's work: lent for that
time, its CPU would be used twice. So the CPU is lent once the owner has said that there is no value yet, and never
before what lies in the sockets has been read.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

from ..protocol import messages as m
from ..protocol.connection import Connection
from .objects import ObjectTable, Record
from .reactor import Reactor, Waiter

# Seconds in which another thread that reads lets this one read what has arrived. No wait is kept back for longer, short
# as it may be: a task that asks time and again would never let those run that are to change the answer.
_MOMENT = 0.001


class Lender(Protocol):
    """A worker, which has a CPU to lend while its task waits."""

    def on_block(self) -> None:
        """Event: a wait that blocks begins."""

    def can_lend(self) -> bool:
        """Whether the calling thread has a CPU to lend."""

    def lend(self) -> None:
        """Give it to the node, for others to use."""

    def take_back(self) -> None:
        """Use it again."""


class Lending:
    """The waits of one process, seen from its CPU.

    Attributes:
        lender: the worker that this process is; None for a driver.
    """

    def __init__(self, reactor: Reactor, lock: threading.RLock, objects: ObjectTable) -> None:
        self._reactor, self._lock, self._objects = reactor, lock, objects
        self.lender: Lender | None = None
        self._doubting: set[Waiter] = set()

    def on_not_yet(self, owner: Connection | None, message: m.NotYet) -> None:
        record = self._objects.records.get(message.object)
        if record is not None:
            record.absent = True
        for waiter in self._doubting:
            waiter.wake()

    def wait(self, waiter: Waiter, deadline: float | None, doubtful: list[Record]) -> None:
        """Wait until the waiter is ready or it is `deadline` (monotonic seconds).

        Args:
            waiter: the waiter.
            deadline: None: there is none.
            doubtful: awaited objects of which it is not known whether they exist; those that are known are taken out.
        """
        lender = self.lender
        if lender is not None:
            lender.on_block()
        if lender is None or not lender.can_lend():
            self._reactor.wait(waiter, deadline)
            return
        if doubtful:
            self._wait_until_known(waiter, deadline, doubtful)
        if not waiter.ready and not self._reactor.read_arrived():
            moment = time.monotonic() + _MOMENT
            self._reactor.wait(waiter, moment if deadline is None else min(moment, deadline))
        if waiter.ready or (deadline is not None and time.monotonic() >= deadline):
            return
        lender.lend()
        try:
            self._reactor.wait(waiter, deadline)
        finally:
            lender.take_back()

    def _wait_until_known(self, waiter: Waiter, deadline: float | None, doubtful: list[Record]) -> None:
        def known() -> bool:
            while doubtful and (doubtful[-1].absent or doubtful[-1].value is not None):
                doubtful.pop()
            return not doubtful

        with self._lock:
            self._doubting.add(waiter)
            waking = [record for record in doubtful if record.value is None]
            for record in waking:
                record.waiters = [*(record.waiters or ()), waiter.wake]
        try:
            self._reactor.wait(waiter, deadline, known)
        finally:
            with self._lock:
                self._doubting.discard(waiter)
                for record in waking:
                    if record.waiters and waiter.wake in record.waiters:
                        record.waiters.remove(waiter.wake)
