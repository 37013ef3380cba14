"""Exceptions as values: how one travels from the process where it was raised to the `get` that raises it again."""

import linecache
import os
import pickle
import re
import sys
import traceback
from collections.abc import Iterable
from typing import NamedTuple

from ...exceptions import ShoalError, TaskCancelledError, TaskError
from ..reports.events import is_ours
from . import serialization
from .exception_state import reduce_exception, set_cause

_READ_ONLY = (
    "Arrays from the object store (arguments and results of tasks, get) are shared with other processes and therefore "
    "read-only. Write to a copy: array.copy(), or get(ref, copy=True)."
)
# So much of an exception's text is a part of another error's, characters.
_MOST_WORDS = 500
# So much of a traceback is shown where nobody has asked for it, lines; and what is mentioned there of ours.
_MOST_LINES = 12
_FRAME = re.compile(r'(\s+)File "(.+)", line (\d+)')
_CRASHES = {"WorkerCrashedError", "OutOfMemoryError"}


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
        seen += [part.__cause__, part.__context__, *(part.exceptions or ())]
    return "".join(summary.format())


def _with_source(text: str) -> str:
    """Return a traceback of another process with the lines of source that only this one has: those of a notebook's
    cells, which are in no file."""
    lines = text.splitlines(keepends=True)
    for index, (line, following) in enumerate(zip(lines, [*lines[1:], ""], strict=True)):
        frame = _FRAME.match(line)
        if frame is not None and not following.startswith(frame[1] + "  "):
            source = linecache.getline(frame[2], int(frame[3])).strip()
            lines[index] += f"{frame[1]}  {source}\n" * bool(source)
    return "".join(lines)


def hints(error: BaseException) -> list[str]:
    """Return what helps with a user's exception that the runtime is the reason of."""
    if not isinstance(error, ValueError | TypeError):
        return []
    # Not str(error), which may be the user's code.
    return [_READ_ONLY] if any(isinstance(said, str) and "read-only" in said for said in error.args) else []


def _found_here(error: BaseException) -> list[str]:
    """Return what helps with a module that another process does not find, and this one does."""
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    top = (name or "").partition(".")[0]
    module = sys.modules.get(top)
    file = getattr(module, "__file__", None)
    if file is None:
        return []
    return [
        f"This process has the module {top!r}, from {file!r}. Workers look for modules where it did when the runtime "
        "began, or the last training was made: runtime.preload() has new ones look where it does now"
    ]


class _Packed(NamedTuple):
    """An exception as bytes: what is in them.

    Attributes:
        kind: the name of its type, for whoever must not run code of the user's.
        words: its type and text, for the same; shortened.
        stream: its pickle; b"": the exception itself cannot travel.
        text: the traceback where it was raised; None: it is one of the runtime's own errors.
        task, where: what raised it, and where that ran.
        why: why the exception itself cannot travel.
        hints: what helps with it, if the runtime is the reason of it.
        cause: of the runtime's own: a packed exception that is its cause.
    """

    kind: str
    words: str
    stream: bytes
    text: str | None = None
    task: str = ""
    where: str = ""
    why: str = ""
    hints: tuple[str, ...] = ()
    cause: bytes | None = None

    def packed(self) -> bytes:
        return pickle.dumps(tuple(self), 5)


def pack_exception(error: BaseException, task: str, where: str) -> bytes:
    """Serialise an exception with its traceback; whatever it holds, the result can be unpacked.

    Args:
        error: the exception.
        task: name of the task or ``Class.method``, for messages.
        where: node and pid where it was raised.
    """
    stream, why = b"", ""
    try:
        stream = _pickled(error)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as trouble:  # pickling runs code of the user's; the traceback must survive whatever it does
        why = in_words(trouble)
    text = _user_traceback(error)
    more = tuple(hints(error))
    return _Packed(type(error).__name__, _short_words(error), stream, text, task, where, why, more).packed()


def in_words(error: BaseException) -> str:
    """Return an exception as a traceback ends with it; also where its `str` fails."""
    return "".join(traceback.format_exception_only(error)).strip()


def _short_words(error: BaseException) -> str:
    return in_words(error).partition("\n")[0][:_MOST_WORDS]


def _pickled(error: BaseException) -> bytes:
    stream, refs = serialization.dump_whole(error, reduce_exception)
    if refs:
        raise TypeError(
            f"it holds {refs[0]!r}, and nothing would keep that object alive until the exception is read. Let it hold "
            "the value (get), or return the reference instead of raising it"
        )
    return stream


def pack_error(error: BaseException, cause: bytes | None = None) -> bytes:
    """Serialise one of the runtime's own errors; `cause` is a packed exception that becomes its cause."""
    return _Packed(type(error).__name__, _short_words(error), pickle.dumps(error, 5), cause=cause).packed()


def add_to_where(payload: bytes, more: str) -> bytes:
    """Return a user's packed exception with a few words more on where it was raised; other failures as they are."""
    packed = _Packed(*pickle.loads(payload))
    return payload if packed.text is None else packed._replace(where=packed.where + more).packed()


def unpack_exception(payload: bytes) -> BaseException:
    """Rebuild an exception that `pack_exception` serialised, ready to be raised.

    It has exactly the type of the original, and a `TaskError` with the remote traceback as its cause. Where the type
    cannot be had in this process, the `TaskError` itself is returned.
    """
    packed = _Packed(*pickle.loads(payload))
    if packed.text is None:
        own: BaseException = pickle.loads(packed.stream)
        own.__cause__ = None if packed.cause is None else unpack_exception(packed.cause)
        return own
    cause = TaskError(packed.task, _with_source(packed.text), packed.where)
    if not packed.stream:
        cause.add_note(f"The exception itself could not be sent to another process: {packed.why}")
        return cause
    try:
        error = serialization.loads(packed.stream)
        if not isinstance(error, BaseException):
            raise TypeError(f"its __reduce__ makes a {type(error).__name__} of it, which is no exception")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as trouble:  # unpickling runs code of the user's; the remote traceback must survive it
        cause.add_note(f"The exception itself could not be rebuilt in this process: {in_words(trouble)}")
        return cause
    return explained(error, cause, [*packed.hints, *_found_here(error)])


def explained(error: BaseException, cause: TaskError, more: Iterable[str]) -> BaseException:
    """Return a user's exception with what is known of the task that raised it; nothing is written on itself."""
    for note in more:
        cause.add_note(note)
    set_cause(error, cause)
    return error


def type_of_failure(payload: bytes) -> str:
    """Return the name of a packed exception's type, without running any code of the user's."""
    return _Packed(*pickle.loads(payload)).kind


def words_of(payload: bytes) -> str:
    """Return the type and text of a packed exception, shortened, without running any code of the user's."""
    return _Packed(*pickle.loads(payload)).words


def unread_report(payload: bytes) -> tuple[tuple[str, str], str] | None:
    """Return which task raised which type of a packed exception, and the end of its traceback for whoever reads none.

    None: it says nothing of the user's code, as that an actor was killed or a call cancelled.
    """
    packed = _Packed(*pickle.loads(payload))
    if packed.kind == TaskCancelledError.__name__:  # also as what interrupts the user's code
        said = None
    elif packed.text is None:
        said = packed.words if packed.kind in _CRASHES else None
    else:
        lines = packed.text.rstrip().splitlines()
        said = "\n".join([f"{packed.task} failed ({packed.where}):", *lines[-_MOST_LINES:]])
    return None if said is None else ((packed.task, packed.kind), said)


def is_own(payload: bytes, kind: type[ShoalError]) -> bool:
    """Return whether a packed exception is the runtime's own, of just this type; no code of the user's runs."""
    packed = _Packed(*pickle.loads(payload))
    return packed.text is None and packed.kind == kind.__name__


def describe_here(node: str) -> str:
    """Return the text that says where this process runs."""
    return f"node {node}, pid {os.getpid()}"


def not_made(method: str, failure: bytes) -> str:
    """Return why an actor is dead whose constructor has failed, or another method that was to make it what it was."""
    return f"its {'constructor' if method == '__init__' else method} failed: {words_of(failure)}"
