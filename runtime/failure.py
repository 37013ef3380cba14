"""Exceptions as values: how one travels from the process where it was raised to the `get` that raises it again."""

import os
import pickle
import traceback
from collections.abc import Iterable
from typing import Any

from . import serialization
from .exceptions import TaskError

_READ_ONLY = (
    "Arrays from the object store (arguments and results of tasks, get) are shared with other processes and therefore "
    "read-only. Write to a copy: array.copy(), or get(ref, copy=True)."
)
_OWN_FOLDER = os.path.dirname(os.path.abspath(__file__))


def is_ours(filename: str) -> bool:
    """Return whether a source file is part of the runtime."""
    return os.path.realpath(filename).startswith(os.path.realpath(_OWN_FOLDER) + os.sep)


def _user_traceback(error: BaseException) -> str:
    """Format an exception with its causes, the runtime's own frames left out."""
    summary = traceback.TracebackException.from_exception(error)
    seen: list[traceback.TracebackException | None] = [summary]
    while seen:
        part = seen.pop()
        if part is None:
            continue
        theirs = [frame for frame in part.stack if not is_ours(frame.filename)]
        if theirs:
            part.stack = traceback.StackSummary.from_list(theirs)
        seen += [part.__cause__, part.__context__]
    return "".join(summary.format())


def hints(error: BaseException) -> list[str]:
    """Return what helps with a user's exception that the runtime is the reason of."""
    return [_READ_ONLY] if isinstance(error, ValueError | TypeError) and "read-only" in str(error) else []


def pack_exception(error: BaseException, task: str, where: str) -> bytes:
    """Serialise an exception with its traceback; whatever it holds, the result can be unpacked.

    Args:
        error: the exception.
        task: name of the task or ``Class.method``, for messages.
        where: node and pid where it was raised.
    """
    text = _user_traceback(error)
    state = {k: v for k, v in vars(error).items() if k != "__notes__"} if hasattr(error, "__dict__") else {}
    notes = [*getattr(error, "__notes__", ()), *hints(error)]
    try:
        stream, buffers, refs = serialization.dumps((type(error), _constructor_arguments(error), state, notes))
        if buffers or refs:
            raise TypeError("exceptions travel as one small pickle")
    except TypeError:
        stream = b""
    return pickle.dumps((stream, text, task, where), 5)


def _constructor_arguments(error: BaseException) -> tuple[Any, ...]:
    """Return what the built-in part of the exception was made from: `args`, and more for OSError with a file name."""
    if type(type(error).__reduce__).__name__ == "method_descriptor":
        return error.__reduce__()[1]  # type: ignore[return-value]
    return error.args


def pack_error(error: BaseException, cause: bytes | None = None) -> bytes:
    """Serialise one of the runtime's own errors; `cause` is a packed exception that becomes its cause."""
    return pickle.dumps((pickle.dumps(error, 5), None, cause, ""), 5)


def add_to_where(payload: bytes, more: str) -> bytes:
    """Return a user's packed exception with a few words more on where it was raised; other failures as they are."""
    stream, text, task, where = pickle.loads(payload)
    return payload if text is None else pickle.dumps((stream, text, task, where + more), 5)


def _rebuild(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    # A user's __init__ may want other arguments than it passed on to `args`, or have effects, so it isn't called;
    # the nearest built-in one is, since OSError or UnicodeError keep their fields outside __dict__.
    error = kind.__new__(kind, *args)
    for base in kind.__mro__:
        init = base.__dict__.get("__init__")
        if init is not None and type(init).__name__ == "wrapper_descriptor":
            init(error, *args)
            break
    error.__dict__.update(state)
    return error


def unpack_exception(payload: bytes) -> BaseException:
    """Rebuild an exception that `pack_exception` serialised, ready to be raised.

    It has exactly the type of the original, and a `TaskError` with the remote traceback as its cause. Where the type
    cannot be had in this process, the `TaskError` itself is returned.
    """
    stream, text, task, where = pickle.loads(payload)
    if text is None:
        own: BaseException = pickle.loads(stream)
        own.__cause__ = None if task is None else unpack_exception(task)
        return own
    cause = TaskError(task, text, where)
    if not stream:
        return cause
    try:
        kind, args, state, notes = serialization.loads(stream)
        error = _rebuild(kind, args, state)
    except (
        Exception
    ) as trouble:  # any code of the user's may run while unpickling; the remote traceback must survive it
        cause.add_note(f"The exception itself could not be rebuilt in this process: {trouble!r}")
        return cause
    return explained(error, cause, notes)


def explained(error: BaseException, cause: TaskError, notes: Iterable[str]) -> BaseException:
    """Return a user's exception with what is known of the task that raised it."""
    for note in (*notes, f"Raised in {cause.task} ({cause.where})."):
        error.add_note(note)
    error.__cause__ = cause
    return error


def type_of_failure(payload: Any) -> str:
    """Return the name of a packed exception's type, without running any code of the user's."""
    stream, text, _, _ = pickle.loads(payload)
    if text is None:
        return type(pickle.loads(stream)).__name__
    last = [line for line in text.splitlines() if line and not line.startswith((" ", "\t"))][-1]
    return last.partition(":")[0].rpartition(".")[2]


def describe_here(node: str) -> str:
    """Return the text that says where this process runs."""
    return f"node {node}, pid {os.getpid()}"
