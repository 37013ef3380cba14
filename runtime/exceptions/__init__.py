"""What can go wrong, as a tree.

    ShoalError                     every error of the runtime
    ├── TaskError                  the remote traceback of a task; the cause of the exception that `get` raises
    ├── TaskCancelledError         the task was cancelled with `cancel`
    ├── WorkerCrashedError         the process that ran a task died (signal, exit code, last words)
    │   └── OutOfMemoryError       … since the machine had no memory left; also the cause of an actor's death
    ├── ActorError
    │   ├── ActorDiedError         the actor will not come back: killed, crashed, constructor failed, out of scope
    │   ├── ActorUnavailableError  the actor crashed during the call and is being restarted
    │   └── PendingCallsLimitExceeded  max_pending_calls calls have not been answered: this one was not made
    ├── ObjectLostError            a value can no longer be had
    │   ├── OwnerDiedError         … because the process that owned it is gone
    │   └── ObjectReconstructionFailedError  … and the task that made it cannot be run again
    ├── ObjectStoreFullError       no room in shared memory
    ├── GetTimeoutError            also a TimeoutError: `get(timeout=…)` ran out
    ├── NodeDiedError              the node's daemon is gone
    ├── RuntimeEnvSetupError       the surroundings that a task or actor asked for cannot be had
    ├── PlacementGroupRemovedError the placement group that it was to run in is gone
    ├── DeadlockError              the call can never return
    └── InternalError              our bug: please report it
    InputError (ValueError)        a setting or argument that cannot work; nothing was started or lost
    ├── InputTypeError (TypeError) … since it is another kind of thing than what is wanted
    └── InfeasibleError            no node has the resources that were asked for

An exception raised by the user's own code inside a task or an actor method is raised by `get` as exactly the type
that was raised there; its ``__cause__`` is a `TaskError` with the remote traceback.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .elsewhere import EXCEPTIONS, missing


class ShoalError(Exception):
    """Base class of the runtime's own errors."""


class TaskError(ShoalError):
    """Remote traceback of a failed task, the ``__cause__`` of the exception that `get` raises.

    It is raised itself only where the user's exception cannot be rebuilt in the caller's process.

    Attributes:
        task: name of the task or ``Class.method``.
        traceback: the remote traceback as text, the user's frames only.
        where: node and pid where it ran.
    """

    def __init__(self, task: str, traceback: str, where: str) -> None:
        super().__init__(task, traceback, where)
        self.task, self.traceback, self.where = task, traceback, where

    def __str__(self) -> str:
        return f"{self.task} failed ({self.where}); traceback there:\n\n{self.traceback}"


class TaskCancelledError(ShoalError):
    """The task was cancelled: it never began, or was interrupted (inside it a KeyboardInterrupt is raised)."""


class WorkerCrashedError(ShoalError):
    """The process that ran the task died before it answered; raised once its retries are used up."""


class OutOfMemoryError(WorkerCrashedError):
    """A worker was killed for want of memory, by the kernel or by the node before it comes to that."""


class ActorError(ShoalError):
    """Base class of errors about an actor."""


class ActorDiedError(ActorError):
    """The actor is dead and will not come back; the message says why.

    Attributes:
        actor_id: its id in hexadecimal; None if it is not known.
    """

    actor_id: str | None = None


class ActorUnavailableError(ActorError):
    """The actor crashed while it ran the call; it is being restarted, and later calls reach it."""


class PendingCallsLimitExceeded(ActorError):  # noqa: N818  # Ray's name
    """The call was not made: as many as the actor's ``max_pending_calls`` have not been answered yet."""


class ObjectLostError(ShoalError):
    """The value of an object can no longer be had."""


class OwnerDiedError(ObjectLostError):
    """The process that owned the object is gone, and the object with it."""


class ObjectReconstructionFailedError(ObjectLostError):
    """The value is lost, and what made it cannot be run again: no retries left, or its lineage was dropped."""


class ObjectStoreFullError(ShoalError):
    """The object store has no room for a new object."""


class GetTimeoutError(ShoalError, TimeoutError):
    """`get(timeout=…)` ran out before all values were there."""


class NodeDiedError(ShoalError):
    """The daemon of this node is gone; the runtime must be started again."""


class RuntimeEnvSetupError(ShoalError):
    """The `runtime_env` of a task or actor could not be set up; the message has the error of the process itself."""


class PlacementGroupRemovedError(ShoalError):
    """The placement group that a task was to run in was removed, or the process that created it is gone."""


class DeadlockError(ShoalError):
    """The call waits for itself and could never return."""


class InternalError(ShoalError):
    """A bug in Shoal, not in your program."""


class InputError(ValueError):
    """A setting or argument that cannot work; raised before anything is started or changed."""


class InputTypeError(InputError, TypeError):
    """An argument is another kind of thing than what is wanted; of both bases, as Ray raises now one, now the other."""


class InfeasibleError(InputError):
    """No node of the cluster has the resources that were asked for."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the sentence that names the spellings nearest to `name`, or all that are known; "" if none are."""
    import difflib  # slow to import, and rarely needed

    names = sorted(map(str, known))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return f"Did you mean {' or '.join(repr(n) for n in close)}?"
    return f"Known: {', '.join(names)}." if names else ""


if not TYPE_CHECKING:  # a type checker is to find what is missing before the program runs

    def __getattr__(name: str) -> Any:
        raise missing(__name__, name, EXCEPTIONS)
