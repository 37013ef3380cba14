"""How a failure that is not the user's input is told: whose exception, where, and the user's own frames first."""

import sys
import traceback

from ..runtime import TaskError


def describe_failure(error: BaseException) -> str:
    """Return the text for an exception.

    One that comes from a task or an actor shows the traceback of the process where it was raised, which holds the
    user's frames alone; the driver's frames, which only waited for it, are left out. Any other shows its own.
    """
    cause = error.__cause__
    if isinstance(error, TaskError):
        return f"error: {error.task} failed ({error.where})\n\n{error.traceback.rstrip()}"
    if isinstance(cause, TaskError):
        return f"error: {cause.task} failed ({cause.where})\n\n{cause.traceback.rstrip()}"
    return "error: " + "".join(traceback.format_exception(error)).rstrip()


def print_failure(error: BaseException) -> None:
    """Print the text for an exception to standard error."""
    print(describe_failure(error), file=sys.stderr)
