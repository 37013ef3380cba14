"""Standard output is for results; everything else, workers' output included, goes to standard error."""

import contextlib
import errno
import io
import json
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

#: Exit code of a command whose output nobody reads any more: that of a process which a closed pipe ends.
NOBODY_READS = 128 + signal.SIGPIPE


@contextlib.contextmanager
def result_output(as_json: bool) -> Iterator[Callable[[Mapping[str, Any], str], None]]:
    """Yield the function that prints a command's result: as one line of JSON, or as text.

    With `as_json`, whatever else is printed within the block goes to standard error, so that the line stays alone.
    """
    output = sys.stdout

    def print_result(result: Mapping[str, Any], text: str) -> None:
        print(json.dumps(result, allow_nan=False) if as_json else text, file=output)

    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        yield print_result


def in_words(scores: Mapping[str, float]) -> str:
    """Return numbers by name as a person reads them."""
    return ", ".join(f"{name} {value:.4g}" for name, value in scores.items())


def take_any_text() -> None:
    """Have standard output escape what its encoding does not have, as standard error does: a … where there is no UTF-8
    ends no command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def note(text: str) -> None:
    """Tell a person something on standard error."""
    print(text, file=sys.stderr, flush=True)


def flush() -> None:
    """Have what was printed written now, so that an error of that is still told."""
    if sys.stdout is not None:  # closed by who started this process
        sys.stdout.flush()


def is_lost(error: BaseException) -> bool:
    """Whether the error is that standard output or standard error cannot be written: who reads it has ended, as `head`
    does, or a disk is full."""
    if not isinstance(error, OSError) or error.filename is not None:
        return False
    return error.errno == errno.ENOSPC or (isinstance(error, BrokenPipeError) and _nobody_reads())


def _nobody_reads() -> bool:
    polled = select.poll()
    for descriptor in (1, 2):
        polled.register(descriptor, 0)  # errors and hang-ups are told unasked
    return bool(polled.poll(0))


def end_output(error: OSError) -> int:
    """Have whatever is still printed go nowhere, and return the exit code."""
    if error.errno == errno.ENOSPC:
        with contextlib.suppress(OSError):  # it may be standard error that is full
            note(f"error: the output cannot be written: {error.strerror}")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # a stream without a descriptor, or closed
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
    return 1 if error.errno == errno.ENOSPC else NOBODY_READS
