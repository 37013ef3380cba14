"""Words for the person who runs the program."""

import sys


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
