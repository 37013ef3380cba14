"""Values that stand for failures of calls."""

from __future__ import annotations

from ...core.refs import short
from ...core.values.packed_exceptions import add_to_where, pack_error
from ...exceptions import ObjectLostError, TaskCancelledError
from ..protocol.messages import ObjectId, Value


def failure(error: BaseException) -> Value:
    """Return the value that raises an error where it is read."""
    return Value(pack_error(error), failed=True)


def cancelled(name: str, task: ObjectId) -> Value:
    """Return the failure of a call that was cancelled."""
    return failure(TaskCancelledError(f"{name} ({short(task)}) was cancelled"))


def freed(object_id: ObjectId) -> Value:
    """Return the failure of an object that is gone."""
    return failure(ObjectLostError(f"object {short(object_id)} was freed: its last reference was gone"))


def arguments_lost(name: str) -> Value:
    """Return the failure of a call whose own arguments are in a lost block."""
    error = ObjectLostError(
        f"{name}: its arguments cannot be read: their block of shared memory is lost. Make the call again, "
        "or pass what a task has returned: that can be made again"
    )
    return failure(error)


def with_attempts(value: Value, attempts: str) -> Value:
    """Return a failure that also says which attempt it was; any other value as it is."""
    if not value.failed:
        return value
    assert isinstance(value.stream, bytes)
    return Value(add_to_where(value.stream, attempts), failed=True)
