"""`shoal envs`: the environments that can be made here, and what the others need."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from ..envs import catalog
from ..runtime import InputError
from .flags import parse
from .tables import console, table


@dataclass(frozen=True, kw_only=True)
class EnvsFlags:
    """Which environments, and how."""

    word: str | None = field(default=None, metadata={"positional": True, "metavar": "WORD"})
    """Part of an id, or of a package's name, such as box2d. Default: all."""
    format: str = field(default="table", metadata={"choices": ("table", "json")})
    """A table, or a JSON list."""


def run(arguments: Sequence[str]) -> int:
    """Run `shoal envs` and return the exit code."""
    about = "List the environments that can be made here, and what the others need."
    flags: EnvsFlags = parse("shoal envs", about, {"list": EnvsFlags}, arguments).build(EnvsFlags)
    found = catalog(flags.word or "")
    if not found:
        raise InputError(
            f"no environment's id contains {flags.word!r}. `shoal envs` lists all; one of your own is named "
            "module:Class, without being registered"
        )
    if flags.format == "json":
        print(json.dumps([asdict(listed) for listed in found]))
        return 0
    rows = [(listed.id, listed.source, listed.agents, listed.needs) for listed in found]
    console().print(table(("environment", "from", "several agents act", "needs"), rows))
    return 0
