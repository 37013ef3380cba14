"""In the process of an actor that comes back with its state: its restoration, and what it tells its owner.

See `actors.log` for the order in which that is told, and why. Nothing here waits for an answer of the owner, only
until the kernel has taken what was written, or whoever was to read it is dead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ...core.actors.checkpoints import CHECKPOINT, RESTORE
from ...core.actors.log import Journal, Step
from ...core.ids import owner_of
from ...core.refs import ObjectRef
from ...core.telling import tell_exception
from ..process.parts import Parts
from ..protocol import messages as m
from ..protocol.connection import Connection
from .user_code import UserCode


class Restorable:
    """An actor's line to the log that its owner keeps.

    Args:
        owner: the process that keeps the log.
        actor, restoration: the actor's key, and how it is made.
    """

    def __init__(
        self, parts: Parts, user_code: UserCode, owner: bytes, actor: bytes, restoration: m.Restoration
    ) -> None:
        self._links, self._values, self._store = parts.links, parts.values, parts.store
        self._user_code, self._owner, self._actor = user_code, owner, actor
        self._restoration: m.Restoration | None = restoration
        self._journal: Journal[m.Reply] = Journal(owner, restoration.every)
        parts.links.on_death.append(lambda process, reason: self._journal.caller_died(process))
        self._instance: Any = None

    # Restoring --------------------------------------------------------------------------------------------------

    def restore(self, instance: Any, run_again: Callable[[m.Call, bool], m.Reply | None]) -> None:
        """Bring a fresh instance to where the last one was; raises what its `__restore__` raises.

        Args:
            instance: the actor, just constructed.
            run_again: runs a recorded call; with True it returns the answer.
        """
        self._instance = instance
        restoration, self._restoration = self._restoration, None
        assert restoration is not None
        values = [value for entry in restoration.entries for value in (entry.call.arguments, *entry.call.slots)]
        held = self._adopt([*values, *([restoration.state] if restoration.state is not None else [])])
        if restoration.state is not None:
            with self._user_code:
                getattr(instance, RESTORE)(self._store.load(restoration.state))
        for entry in restoration.entries:
            # A caller that is dead asks for nothing, and an answer for it would reach no process.
            in_doubt = entry.in_doubt and owner_of(entry.call.task) not in self._links.dead
            self._journal.replayed(entry.call.task, run_again(entry.call, in_doubt))
        del held

    def _adopt(self, values: Iterable[m.Value]) -> list[ObjectRef]:
        with self._links.lock:
            return self._values.adopt_all(values, self._owner)

    # Calls ------------------------------------------------------------------------------------------------------

    def answered(self, caller: bytes, task: bytes) -> bool:
        """Answer a call that has run before the actor came back; False if it has not."""
        answer = self._journal.arrived(task)
        if answer is None:
            return False
        self._write(caller, answer)
        if caller != self._owner:
            self._write(self._owner, m.Delivered(self._actor, task))
        return True

    def end(self, caller: bytes, call: m.Call, reply: m.Reply) -> None:
        """Record a call that has run, reply, and send the state if it is time."""
        for step in self._journal.ran(caller):
            if step is Step.RECORD:
                self._write(self._owner, m.Logged(self._actor, self._for_owner(call)))
            elif step is Step.REPLY:
                if not self._write(caller, reply):
                    with self._links.lock:
                        self._values.free(*reply.values)
            else:
                self._checkpoint()

    def _for_owner(self, call: m.Call) -> m.Call:
        """Return the call with arguments that are the owner's, and last as long as it needs them."""
        arguments, *slots = self._store.copy_values([call.arguments, *call.slots], self._owner)
        with self._links.lock:
            for value in (arguments, *slots):
                self._values.lend_all(value, self._owner)
        return m.Call(call.task, call.method, arguments, slots, call.num_returns, call.extras)

    def _checkpoint(self) -> None:
        try:
            with self._user_code:
                state = getattr(self._instance, CHECKPOINT)()
            packed, inner = self._store.pack(state, self._owner)
        except SystemExit:
            raise
        except BaseException:  # of the user's method, or of pickling; the log goes on, so nothing is lost yet
            tell_exception(f"{CHECKPOINT} failed; it is called again after the next call\n")
            return
        with self._links.lock:
            self._values.lend_all(packed, self._owner)
        del inner
        self._write(self._owner, m.Checkpointed(self._actor, packed))
        self._journal.checkpointed()

    def _write(self, process: bytes, message: m.Message) -> bool:
        """Write a message out; False if the other process is dead."""
        with self._links.lock:
            peer: Connection | None = self._links.peer(process)
        if peer is None:
            return False
        peer.send(message)
        peer.write_out()  # not under the lock: the process that is to read it may be waiting for us
        return True
