"""`shoal timeline OUT.json`: what ran when, as a Chrome trace."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..runtime import InputError, timeline
from .flags import parse
from .observed import SessionFlags, chosen_session
from .output import note


@dataclass(frozen=True, kw_only=True)
class TimelineFlags:
    """Where to write it."""

    file: str | None = field(default=None, metadata={"positional": True, "metavar": "OUT.json"})
    """The file to write; ui.perfetto.dev opens it."""


def run(arguments: Sequence[str]) -> int:
    """Run `shoal timeline` and return the exit code."""
    about = "Write what ran when in a running program as a Chrome trace."
    parsed = parse("shoal timeline", about, {"timeline": TimelineFlags, "program": SessionFlags}, arguments)
    file = parsed.build(TimelineFlags).file
    if file is None:
        raise InputError("no file is given. Write for example: shoal timeline trace.json")
    try:
        events = timeline(file, address=chosen_session(parsed.build(SessionFlags).session))
    except OSError as error:
        raise InputError(f"cannot write {file!r}: {error.strerror}") from None
    note(f"{sum(event['ph'] == 'X' for event in events)} spans written to {file}; ui.perfetto.dev opens it")
    return 0
