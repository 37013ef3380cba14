"""Words for the person who runs the program."""

import contextlib
import sys
import traceback


def tell(text: str, *, error: bool = True) -> bool:
    """Write on standard error, or output, whatever it is at the moment; return whether it took the text.

    It may be closed, or nobody reads it any more, or it is an object of the user's, such as a logger's or a notebook's,
    that lacks a method or raises what it likes. None of that may end who tells: a thread that reads for all others.
    """
    stream = sys.stderr if error else sys.stdout
    if stream is None:
        return False
    try:
        try:
            stream.write(text)
        except UnicodeEncodeError:
            encoding = stream.encoding
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        if hasattr(stream, "flush"):
            stream.flush()
    except Exception:  # see above
        return False
    return True


def tell_exception(more: str = "") -> None:
    """Write the exception that is being handled on standard error, with its traceback, and `more` below it."""
    tell(traceback.format_exc() + more)


def tell_rest() -> None:
    """Have standard output and error write what they keep, before a process ends without Python's own ceremony."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # as in `tell`
            stream.flush()
