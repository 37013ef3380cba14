"""Standard output is for results; everything else, workers' output included, goes to standard error."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any


@contextlib.contextmanager
def result_output(as_json: bool) -> Iterator[Callable[[Mapping[str, Any], str], None]]:
    """Yield the function that prints a command's result: as one line of JSON, or as text.

    With `as_json`, whatever else is printed within the block goes to standard error, so that the line stays alone.
    """
    output = sys.stdout

    def print_result(result: Mapping[str, Any], text: str) -> None:
        print(json.dumps(result, allow_nan=False) if as_json else text, file=output, flush=True)

    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        yield print_result


def note(text: str) -> None:
    """Tell a person something on standard error."""
    print(text, file=sys.stderr, flush=True)
