"""The runtime for the length of a command."""

import contextlib
from collections.abc import Iterator

from .. import runtime


@contextlib.contextmanager
def running_runtime(engine: str | None, address: str | None) -> Iterator[None]:
    """Run the runtime within the block; what workers need most is loaded while the command goes on with its work."""
    runtime.init(engine=engine, address=address, preload=("torch", "gymnasium"))
    try:
        yield
    finally:
        runtime.shutdown()
