"""Whether a simulator's words about a space fit the space, without making one of them: they may say anything."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from gymnasium import Space

from ..spaces import Role, describe, space_to_json

_LONGEST = 60


def space_difference(text: str, space: Space, role: Role) -> str | None:
    """Return what a description in JSON says otherwise of a space, with both; None if nothing. What it leaves out is
    no difference, nor are other bounds of observations."""
    wanted = space_to_json(space)
    try:
        found = _difference(json.loads(text), wanted, f"{role}_space", role)
    except (ValueError, RecursionError):
        return f"{role}_space is {text[:_LONGEST]!r}, which is no JSON; wanted is such as {json.dumps(wanted)}"
    return None if found is None else f"{found}. The space that is wanted: {describe(space)}"


def _difference(said: Any, wanted: Any, path: str, role: Role) -> str | None:
    if not isinstance(said, Mapping):
        return f"the simulator's {path} is {_short(said)}, which describes no space"
    for name, value in wanted.items():
        if name not in said or (name in ("low", "high") and role == "observation"):
            continue
        mine, where = said[name], f"{path}.{name}"
        if name == "spaces":
            found = _parts(mine, value, path, role)
        elif name in ("low", "high", "n", "nvec", "start"):
            found = None if _same_numbers(mine, value) else _differs(where, mine, value)
        else:
            found = None if mine == value else _differs(where, mine, value)
        if found is not None:
            return found
    return None


def _parts(said: Any, wanted: list[Any], path: str, role: Role) -> str | None:
    if all(isinstance(part, list) for part in wanted):  # a Dict's: pairs of name and space; or an object of them
        names = said if isinstance(said, dict) else dict(_named(said))
        if names.keys() != {name for name, _ in wanted}:
            return _differs(f"{path}'s parts", sorted(names), [name for name, _ in wanted])
        pairs = [(name, names[name], value) for name, value in wanted]
    elif isinstance(said, list) and len(said) == len(wanted):
        pairs = [(str(index), mine, value) for index, (mine, value) in enumerate(zip(said, wanted, strict=True))]
    else:
        return _differs(f"{path}.spaces", said, wanted)
    found = (_difference(mine, value, f"{path}[{name!r}]", role) for name, mine, value in pairs)
    return next((difference for difference in found if difference is not None), None)


def _named(said: Any) -> Iterator[tuple[str, Any]]:
    for entry in said if isinstance(said, list) else ():
        if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str):
            yield entry[0], entry[1]


def _same_numbers(said: Any, wanted: Any) -> bool:
    """Whether numbers, or lists of them, are the same, one that stands for many included."""
    try:
        mine, value = (np.asarray(numbers, np.float64) for numbers in (said, wanted))
        return mine.shape in ((), value.shape) and bool(np.isclose(mine, value, rtol=1e-6, atol=0).all())
    except (TypeError, ValueError, RecursionError):
        return False


def _differs(where: str, said: Any, wanted: Any) -> str:
    return f"the simulator's {where} is {_short(said)}; wanted is {_short(wanted)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
