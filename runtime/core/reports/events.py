"""The kinds of events that processes and nodes remember, and where in a program something was made.

An event is (monotonic seconds, kind, id, detail). Only what cannot be derived is noted: that a task was submitted and
sent is part of the one event of its end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from types import FrameType
from typing import Any

#: One thing that happened: (seconds, kind, id of the task, object or actor, details). Formatted only when asked for.
Event = tuple[float, str, bytes, Any]
#: How many events each process remembers.
EVENTS_KEPT = 10_000

#: By a task's owner: (class, name, actor, worker, submitted, sent, seconds that it ran, number of returns, error).
ENDED = "ended"
#: By a task's owner: it was queued again after a crash (the reason), or was given back unstarted (by this worker).
AGAIN, BOUNCED = "again", "bounced"
#: By whoever ran a task: (name, began).
RAN = "ran"
#: By an object's owner: it was put (bytes); its value cannot be read any more; its last reference is gone.
PUT, LOST, FREED = "put", "lost", "freed"
#: By a user's program: (name, began, extra data, thread).
SPAN = "span"
#: By a node: an actor's (class, state, process, reason); a process is up (pid, title); it is gone (the reason).
ACTOR, UP, DIED = "actor", "up", "died"

#: Environment variable: "1" has every process note where its objects are made.
RECORD_CALL_SITES = "SHOAL_RECORD_CALL_SITES"
_FILES = (os.path.abspath(__file__), os.path.realpath(__file__))
_OWN_FOLDERS = tuple({path.rsplit(os.sep, 3)[0] + os.sep for path in _FILES})  # the whole runtime
_RECENT = 20


def is_ours(filename: str) -> bool:
    """Return whether a source file is part of the runtime."""
    return filename.startswith(_OWN_FOLDERS)


def users_frame() -> tuple[FrameType, int]:
    """Return the innermost frame of the user's code, and how many frames it is above the caller."""
    level, frame = 0, sys._getframe(1)
    while frame.f_back is not None and is_ours(frame.f_code.co_filename):
        level, frame = level + 1, frame.f_back
    return frame, level


def call_site() -> str:
    """Return the file, line and function of the caller outside the runtime."""
    frame, _ = users_frame()
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"


def recent(events: Iterable[Event]) -> str:
    """Return what happened last in this process, as text for an internal error."""
    lines = [f"    {when:.6f} {kind} {key.hex()} {detail}" for when, kind, key, detail in list(events)[-_RECENT:]]
    return "\n".join([f"What happened last in this process (pid {os.getpid()}; id of thing, details):", *lines])
