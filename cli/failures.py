"""How a failure that is not the user's input is told: the exception first, then the user's own frames."""

import sys
import sysconfig
import traceback
from pathlib import Path

from ..runtime import ActorDiedError, TaskError, exceptions

_PACKAGE = __name__.partition(".")[0] + "."
_LAYERS = ("cli", "algorithms", "rl", "envs", "data", "runtime")
_OWN_FOLDERS = tuple(
    f"{file.parents[1] / layer}/" for file in (Path(__file__), Path(__file__).resolve()) for layer in _LAYERS
)
_LIBRARIES = tuple(f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def _is_users(file: str) -> bool:
    return not file.startswith((*_OWN_FOLDERS, *_LIBRARIES, "<"))


def _tells_itself(error: BaseException) -> bool:
    """Whether the message of an exception was written to be all that is read: of those made here, but for bugs."""
    return type(error).__module__.startswith(_PACKAGE) and not isinstance(error, exceptions.InternalError)


def _user_frames(text: str) -> str:
    """Return a traceback's text without this package's frames; the whole text if there are no others."""
    kept, ours, others = [], False, False
    for line in text.splitlines():
        if line.startswith('  File "'):
            ours = line.removeprefix('  File "').startswith(_OWN_FOLDERS)
            others = others or not ours
        elif not line.startswith("    "):
            ours = False
        if not ours:
            kept.append(line)
    return "\n".join(kept) if others else text


def root_failure(error: BaseException) -> BaseException:
    """Return what a constructor raised, where the error is that an actor died of it; else the error itself."""
    died_of = error.__cause__ if isinstance(error, ActorDiedError) else None
    return error if died_of is None or isinstance(died_of, TaskError) else died_of


def describe_failure(error: BaseException) -> str:
    """Return the text for an exception.

    One that comes from a task or an actor shows the traceback of the process where it was raised, the user's frames
    alone; those of the driver, which only waited for it, are left out. One of a type of ours, such as a process's death
    or a time limit, is told by its message. Any other exception shows its own traceback: the user's frames alone, if it
    was raised in what they wrote.
    """
    cause = error if isinstance(error, TaskError) else error.__cause__
    if _tells_itself(error) and not isinstance(cause, TaskError):
        return "\n".join([f"error: {error}", *getattr(error, "__notes__", ())])
    lines = "".join(traceback.format_exception_only(error)).split("\n")
    said = next(line for line in lines if not line.startswith(" "))  # a SyntaxError's begin with its place
    if not isinstance(cause, TaskError):
        whole = "".join(traceback.format_exception(error)).rstrip()
        if any(_is_users(frame.filename) for frame in traceback.extract_tb(error.__traceback__)):
            return f"error: {said}\n\n{_user_frames(whole)}"
        return f"error: {whole}"
    what = f"{cause.task} failed" if cause is error else said
    return f"error: {what}   (in {cause.task}, {cause.where})\n\n{_user_frames(cause.traceback).rstrip()}"


def print_failure(error: BaseException) -> None:
    """Print the text for an exception to standard error."""
    print(describe_failure(error), file=sys.stderr)
