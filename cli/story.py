"""`shoal story ID`: the life of a task, an object or an actor."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..runtime import InputError, story
from .flags import parse
from .observed import SessionFlags, chosen_session


@dataclass(frozen=True, kw_only=True)
class StoryFlags:
    """Whose story."""

    id: str | None = field(default=None, metadata={"positional": True, "metavar": "ID"})
    """Id of a task, object or actor, as messages and `shoal list` show it; its last digits are enough."""


def run(arguments: Sequence[str]) -> int:
    """Run `shoal story` and return the exit code."""
    about = "Tell the life of a task, an object or an actor of a running program."
    parsed = parse("shoal story", about, {"story": StoryFlags, "program": SessionFlags}, arguments)
    wanted = parsed.build(StoryFlags).id
    if wanted is None:
        raise InputError("no id is given. `shoal list tasks` shows ids")
    print(story(wanted, address=chosen_session(parsed.build(SessionFlags).session)))
    return 0
