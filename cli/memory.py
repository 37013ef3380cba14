"""`shoal memory`: who holds the memory of the object store."""

from collections.abc import Sequence

from ..runtime import state
from .flags import parse
from .observed import SessionFlags, chosen_session


def run(arguments: Sequence[str]) -> int:
    """Run `shoal memory` and return the exit code."""
    about = "Show who holds the memory of a running program's object store, by owner and call site."
    parsed = parse("shoal memory", about, {"program": SessionFlags}, arguments)
    print(state.memory(address=chosen_session(parsed.build(SessionFlags).session)))
    return 0
