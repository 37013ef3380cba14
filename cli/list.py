"""`shoal list WHAT`: rows of a running program, as a table or as JSON."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..runtime import InputError, nearest, state
from .flags import parse
from .observed import SessionFlags, chosen_session
from .output import note
from .tables import console, table

_LISTS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "tasks": (state.list_tasks, ("task_id", "name", "state", "worker_pid", "reason")),
    "actors": (state.list_actors, ("actor_id", "class_name", "name", "state", "pid", "pending_calls", "reason")),
    "objects": (state.list_objects, ("object_id", "where", "object_size", "owner_pid", "borrowers", "call_site")),
    "nodes": (state.list_nodes, ("node_id", "node_name", "state", "pid", "resources_total", "resources_used")),
    "workers": (state.list_workers, ("pid", "worker_type", "title", "executing", "waits")),
    "placement-groups": (
        state.list_placement_groups,
        ("placement_group_id", "name", "strategy", "state", "bundles", "reason"),
    ),
    "waits": (state.list_waits, ("pid", "thread", "seconds", "reason")),
}

#: As many digits of an id as messages show.
_ID_DIGITS = 10


@dataclass(frozen=True, kw_only=True)
class ListFlags:
    """What to list, and how."""

    what: str | None = field(default=None, metadata={"positional": True, "metavar": "WHAT"})
    """tasks, actors, objects, nodes, workers, placement-groups or waits."""
    filter: str | None = field(default=None, metadata={"metavar": "FIELD=VALUE"})
    """Only rows with this value of a field, or, with !=, another one; can be given several times."""
    limit: int = 10_000
    """Most rows."""
    format: str = field(default="table", metadata={"choices": ("table", "json")})
    """A table of the main fields, or a JSON list with all."""


def run(arguments: Sequence[str]) -> int:
    """Run `shoal list` and return the exit code."""
    about = "List the tasks, actors, objects, nodes, workers or waits of a running program."
    filters, others = _take_filters(arguments)
    parsed = parse("shoal list", about, {"list": ListFlags, "program": SessionFlags}, others)
    flags: ListFlags = parsed.build(ListFlags)
    if flags.what is None:
        raise InputError(f"nothing to list is given. Write for example: shoal list tasks. {nearest('', _LISTS)}")
    if flags.what not in _LISTS:
        raise InputError(f"cannot list {flags.what!r}. {nearest(flags.what, _LISTS)}")
    listing, columns = _LISTS[flags.what]
    conditions = [_filter(text) for text in filters]
    address = chosen_session(parsed.build(SessionFlags).session)
    rows = listing(filters=conditions, limit=flags.limit, address=address)
    if flags.format == "json":
        print(json.dumps(rows, default=msgspec.structs.asdict))
    else:
        texts = {column: [_text(getattr(row, column)) for row in rows] for column in columns}
        if sys.stdout.isatty():
            texts = {column: _short(column, cells) for column, cells in texts.items() if any(cells)}
        lines = list(zip(*texts.values(), strict=True))
        console().print(table([column.replace("_", " ") for column in texts], lines))
    if rows.truncated:
        note(f"{len(rows)} of {rows.total} rows are shown; --limit shows more")
    return 0


def _short(column: str, cells: Sequence[str]) -> list[str]:
    """Return the end of each id, which is enough for `shoal story`: a whole one would leave no room for the rest."""
    return [cell[-_ID_DIGITS:] for cell in cells] if column.endswith("_id") else list(cells)


def _take_filters(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take --filter out of the arguments, since it may come several times; --help still shows it."""
    filters, others = [], []
    rest = iter(arguments)
    for argument in rest:
        if argument.startswith("--filter="):
            filters.append(argument.partition("=")[2])
        elif argument == "--filter":
            value = next(rest, None)
            if value is None or value.startswith("--"):
                raise InputError("--filter wants a value, such as state=RUNNING. See `shoal list --help`")
            filters.append(value)
        else:
            others.append(argument)
    return filters, others


def _filter(text: str) -> tuple[str, str, str]:
    key, operator, value = text.partition("!=") if "!=" in text else text.partition("=")
    if not operator or not key:
        raise InputError(f"--filter: {text!r} is no condition; want for example state=RUNNING or name!=train")
    return key.strip(), operator, value.strip()


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(amount)}" for name, amount in value.items())
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)
