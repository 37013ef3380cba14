"""`shoal algorithms`: which algorithm works with which spaces, memories and masks, and trains how many agents."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

from ..algorithms import ALGORITHMS
from ..rl import Combination, combinations
from ..runtime import InputError, nearest
from .flags import parse
from .tables import console, table


@dataclass(frozen=True, kw_only=True)
class AlgorithmsFlags:
    """Which algorithms, and how."""

    name: str | None = field(default=None, metadata={"positional": True, "metavar": "ALGORITHM"})
    """One of them, such as dqn. Default: all."""
    format: str = field(default="table", metadata={"choices": ("table", "json")})
    """A table of what works, or a JSON list of all combinations, with what is said to those that don't."""


def run(arguments: Sequence[str]) -> int:
    """Run `shoal algorithms` and return the exit code."""
    about = "List which algorithm works with which observations, actions, memories, action masks and numbers of agents."
    flags: AlgorithmsFlags = parse("shoal algorithms", about, {"list": AlgorithmsFlags}, arguments).build(
        AlgorithmsFlags
    )
    if flags.name is not None and flags.name not in ALGORITHMS:
        raise InputError(f"there is no algorithm {flags.name!r}. {nearest(flags.name, ALGORITHMS)}")
    chosen = ALGORITHMS.values() if flags.name is None else [ALGORITHMS[flags.name]]
    found = list(combinations(chosen))
    if flags.format == "json":
        print(json.dumps([asdict(one) for one in found]))
        return 0
    console().print(
        table(("algorithm", "actions", "observations", "memories", "action mask", "agents"), supported_rows(found))
    )
    return 0


def supported_rows(found: Iterable[Combination]) -> list[tuple[str, str, str, str, str, str]]:
    """Return a row for each algorithm and all its kinds of actions with which the same works."""
    works: dict[tuple[str, str], list[Combination]] = {}
    for one in found:
        if one.refusal is None:
            works.setdefault((one.algorithm, one.action), []).append(one)
    actions: dict[tuple[str, str, str, str, str], list[str]] = {}
    for (algorithm, action), own in works.items():
        observations, memories = (", ".join(dict.fromkeys(names)) for names in _names(own))
        masks = "yes" if any(one.masked for one in own) else "no"
        agents = "many" if own[0].trains_agents else "one"
        actions.setdefault((algorithm, observations, memories, masks, agents), []).append(action)
    return [(algorithm, ", ".join(names), *others) for (algorithm, *others), names in actions.items()]  # type: ignore[misc]


def _names(own: list[Combination]) -> tuple[list[str], list[str]]:
    return [one.observation for one in own], [one.memory for one in own]
