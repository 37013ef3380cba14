"""Which member of a value is it that cannot be sent to another process?"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TextIO

from .. import serialization
from ..refs import ObjectRef

_MOST_SHOWN = 60


class Failure(NamedTuple):
    """Something that cannot be serialised.

    Attributes:
        obj: the thing itself.
        path: how to reach it from the value, such as ``value.model.lock``.
        parent: what directly holds it; None for the value itself.
        reason: the pickler's message.
    """

    obj: Any
    path: str
    parent: Any
    reason: str


def inspect_serializability(
    value: Any, name: str | None = None, depth: int = 10, print_file: TextIO | None = None
) -> tuple[bool, list[Failure]]:
    """Find out whether a value can be sent to another process and, if not, which of its members are to blame.

    Looks into attributes, containers, and what functions capture. Prints a tree of the offending members.

    Args:
        value: anything: an object, function or class.
        name: what to call it in the output; default: its own name or type.
        depth: how many levels of members to look into.
        print_file: where to print; default: standard output.

    Returns:
        whether it can be sent, and the innermost things that cannot.
    """
    label = name or getattr(value, "__qualname__", None) or type(value).__qualname__
    out = print_file or sys.stdout
    failures: list[Failure] = []
    reason = _reason(value)
    if reason is None:
        print(f"{label}: can be sent", file=out)
        return True, failures
    print(f"{label}: cannot be sent: {reason}", file=out)
    _search(Failure(value, label, None, reason), "", depth, {id(value)}, failures, out)
    return False, failures


def _reason(value: Any) -> str | None:
    try:
        serialization.dump(value)
    except Exception as error:  # whatever any __reduce__ raises is the answer
        cause = error.__cause__ or error
        return f"{type(cause).__name__}: {cause}"
    return None


def _search(failed: Failure, indent: str, depth: int, seen: set[int], failures: list[Failure], out: TextIO) -> None:
    """Look for members that fail, too; if there are none, the thing itself is to blame."""
    guilty = []
    if depth > 0:
        for step, member in _members(failed.obj):
            if id(member) in seen:
                continue
            seen.add(id(member))
            reason = _reason(member)
            if reason is not None:
                guilty.append((step, Failure(member, failed.path + step, failed.obj, reason)))
    if not guilty:
        failures.append(failed)
    for index, (step, member) in enumerate(guilty):
        last = index == len(guilty) - 1
        print(f"{indent}{'└── ' if last else '├── '}{step}  {_brief(member.obj)}: {member.reason}", file=out)
        _search(member, indent + ("    " if last else "│   "), depth - 1, seen, failures, out)


def _brief(value: Any) -> str:
    text = f"({type(value).__qualname__}) {value!r}"
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 1]}…"


def _captured(function: Any) -> dict[str, Any]:
    try:
        variables = inspect.getclosurevars(function)
    except ValueError:  # a variable that has no value yet
        return {}
    return {**variables.nonlocals, **variables.globals}


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    """Return what the pickler looks into when it meets a value, and how one would write it."""
    if isinstance(value, ObjectRef | str | bytes):
        return
    if isinstance(value, Mapping):
        for key, member in value.items():
            yield f"[key {key!r}]", key
            yield f"[{key!r}]", member
    elif isinstance(value, list | tuple | set | frozenset):
        for index, member in enumerate(value):
            yield f"[{index}]", member
    if inspect.ismethod(value):
        yield ".__self__", value.__self__
    if inspect.isfunction(value):
        yield from ((f" captures {name}", member) for name, member in _captured(value).items())
        for index, member in enumerate(value.__defaults__ or ()):
            yield f" default {index}", member
    elif inspect.isclass(value):
        for name, member in vars(value).items():
            if not name.startswith("__") or inspect.isfunction(member):
                yield f".{name}", member
    else:
        yield from ((f".{name}", member) for name, member in getattr(value, "__dict__", {}).items())
        for cls in type(value).__mro__:
            slots = vars(cls).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if not name.startswith("__") and hasattr(value, name):
                    yield f".{name}", getattr(value, name)
