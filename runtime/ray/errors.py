"""Errors of the Ray engine: the user's exceptions on their way through Ray, and Ray's own as the runtime's."""

from __future__ import annotations

from collections.abc import Callable

from ray import exceptions as theirs

from .. import exceptions
from ..failure import unpack_exception


class Failure(Exception):  # noqa: N818  # it carries one
    """A task's exception, packed, on its way through Ray."""

    def __init__(self, payload: bytes) -> None:
        super().__init__(payload)
        self.payload = payload

    def __str__(self) -> str:  # what Ray's own tools show
        error = unpack_exception(self.payload)
        return str(error.__cause__ or error)


class Retry(Failure):
    """One after which the call is to be made again, if it has retries left; what Ray is told to look for."""


_KINDS: list[tuple[type[Exception] | tuple[type[Exception], ...], type[exceptions.ShoalError]]] = [
    (theirs.GetTimeoutError, exceptions.GetTimeoutError),
    (theirs.TaskCancelledError, exceptions.TaskCancelledError),
    ((theirs.TaskPlacementGroupRemoved, theirs.ActorPlacementGroupRemoved), exceptions.PlacementGroupRemovedError),
    (theirs.RuntimeEnvSetupError, exceptions.RuntimeEnvSetupError),
    (theirs.OutOfMemoryError, exceptions.OutOfMemoryError),
    ((theirs.WorkerCrashedError, theirs.LocalRayletDiedError), exceptions.WorkerCrashedError),
    (theirs.NodeDiedError, exceptions.NodeDiedError),
    (theirs.OwnerDiedError, exceptions.OwnerDiedError),
    (theirs.ObjectReconstructionFailedError, exceptions.ObjectReconstructionFailedError),
    (theirs.ObjectLostError, exceptions.ObjectLostError),
    ((theirs.ObjectStoreFullError, theirs.OutOfDiskError), exceptions.ObjectStoreFullError),
    ((theirs.TaskUnschedulableError, theirs.ActorUnschedulableError), exceptions.PlacementGroupRemovedError),
]
# Why an actor is dead, in the runtime's words, by what Ray's have in them.
_DEATHS = {
    "ray.kill": "it was killed by kill()",
    "exit_actor": "exit_actor() was called",
    "owner": "the process that created it is gone",
    "out of scope": "its last handle is gone",
    "placement group": "its placement group was removed",
}


def translated(error: BaseException, describe: Callable[[str | None], tuple[str, str]]) -> BaseException:
    """Return what the other engines would raise.

    Args:
        error: what Ray has raised.
        describe: returns how messages name an actor, by its id, and how it has ended itself, or "".
    """
    if isinstance(error, theirs.RayTaskError) and isinstance(error.cause, Failure):
        return unpack_exception(error.cause.payload)
    if isinstance(error, theirs.RayActorError):
        return _of_actor(error, *describe(error.actor_id))
    for kind, ours in _KINDS:
        if isinstance(error, kind):
            return ours(str(error))
    return exceptions.ShoalError(f"Ray: {error}") if isinstance(error, theirs.RayError) else error


def _of_actor(error: theirs.RayActorError, name: str, end: str) -> exceptions.ShoalError:
    text = str(error)
    if isinstance(error, theirs.ActorUnavailableError):
        return exceptions.ActorUnavailableError(f"{name} crashed during the call: {end or 'see below'}. Ray: {text}")
    lowered = text.lower()
    if "placement group" in lowered:
        return exceptions.PlacementGroupRemovedError(f"{name} is dead: its placement group was removed. Ray: {text}")
    why = end or next((ours for part, ours in _DEATHS.items() if part in lowered), "its process has died")
    return exceptions.ActorDiedError(
        f"{name} is dead: {why}. Create it again, or give it max_restarts to have it come back by itself. Ray: {text}"
    )
