"""Plans: what is to be read and done, as values. Nothing here runs anything.

A plan is a tree of frozen dataclasses, the last stage at the root. Two plans with one `fingerprint` give the same rows
in the same order; how many readers there are and what memory they have is no part of a plan.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .sources import Piece, Source
from .writing.target import Target


@dataclass(frozen=True)
class Resources:
    """What each call of a stage holds while it runs; in the runtime's words."""

    num_cpus: float = 1
    num_gpus: float = 0
    resources: tuple[tuple[str, float], ...] = ()

    def options(self) -> dict[str, Any]:
        """The runtime's options for it."""
        return {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus, "resources": dict(self.resources)}


@dataclass(frozen=True)
class Read:
    """The rows of a source, piece by piece."""

    source: Source
    skip: bool = False
    """Whether bad rows are left out and counted instead of raised."""
    aside: str | None = None
    """The file that takes bad rows, a line of JSON each."""


@dataclass(frozen=True)
class Function:
    """A function of the user's on rows or batches; or a class, of which actors hold one object each."""

    kind: Literal["map", "map_batches", "filter", "flat_map"]
    call: Callable[..., Any]
    batch_size: int | None = None
    batch_format: str = "numpy"
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)
    """What a class is constructed with, or a function gets after the batch."""

    @property
    def name(self) -> str:
        """As errors call it, such as "map(tokenize)"."""
        return f"{self.kind}({name_of(self.call)})"


@dataclass(frozen=True)
class Apply:
    """A function of the user's applied to each unit of rows."""

    child: Plan
    function: Function
    resources: Resources = Resources()
    actors: int = 0
    """How many actors hold an object of the class; 0: it is a function, which tasks call."""


@dataclass(frozen=True)
class Shuffle:
    """Pieces permuted, and rows permuted within windows."""

    child: Plan
    seed: int
    window: int


@dataclass(frozen=True)
class Batch:
    """Units of `size` rows each, across pieces and epochs."""

    child: Plan
    size: int
    drop_last: bool = False


@dataclass(frozen=True)
class Take:
    """The first rows."""

    child: Plan
    rows: int


@dataclass(frozen=True)
class Repeat:
    """Epoch after epoch; None: without end."""

    child: Plan
    epochs: int | None


@dataclass(frozen=True)
class Zip:
    """The columns of two plans side by side."""

    left: Plan
    right: Plan


@dataclass(frozen=True)
class Union:
    """The rows of several plans one after the other."""

    children: tuple[Plan, ...]


@dataclass(frozen=True)
class Sort:
    """All rows in the order of their keys; rows of equal keys stay in their order."""

    child: Plan
    keys: tuple[str, ...]
    descending: bool = False


@dataclass(frozen=True)
class Aggregate:
    """One row per group, in the order of the keys."""

    child: Plan
    keys: tuple[str, ...]
    aggregates: tuple[tuple[str, str, str], ...]
    """(name of the new column, column, function)."""


@dataclass(frozen=True)
class Write:
    """Files of the rows, and a row for each file."""

    child: Plan
    target: Target


Plan = Read | Apply | Shuffle | Batch | Take | Repeat | Zip | Union | Sort | Aggregate | Write


Pieces = Callable[[Read], tuple[Piece, ...]]


def fingerprint(plan: Plan, pieces: Pieces = lambda read: read.source.pieces()) -> str:
    """16 hexadecimal digits that differ for plans that may give other rows or another order.

    Of sources the pieces count (names, places, rows, bytes), of functions their names, not their code.

    Args:
        plan: which one.
        pieces: tells the pieces of a source, if somebody has asked for them already.
    """
    return hashlib.blake2b(repr(_described(plan, pieces)).encode(), digest_size=8).hexdigest()


def name_of(call: Any) -> str:
    """What a function or class is called."""
    if isinstance(call, functools.partial):
        return name_of(call.func)
    return getattr(call, "__qualname__", None) or type(call).__qualname__


def children_of(plan: Plan) -> tuple[Plan, ...]:
    """The plans whose rows this one takes."""
    if isinstance(plan, Union):
        return plan.children
    if isinstance(plan, Zip):
        return plan.left, plan.right
    return () if isinstance(plan, Read) else (plan.child,)


def count_stages(plan: Plan) -> int:
    """How many stages it has, sources included; one that is there twice counts twice."""
    return 1 + sum(map(count_stages, children_of(plan)))


def known_columns(plan: Plan) -> tuple[str, ...] | None:
    """The names of its columns, if they are known without reading."""
    match plan:
        case Read(source):
            schema = getattr(source, "schema", None)
            return None if schema is None else tuple(schema.names)
        case Shuffle(child) | Batch(child) | Take(child) | Repeat(child) | Sort(child):
            return known_columns(child)
        case Apply(child, Function("filter")):
            return known_columns(child)
        case Aggregate(_, keys, aggregates):
            return (*keys, *(name for name, _, _ in aggregates))
    return None


def outline(plan: Plan) -> str:
    """The plan in a line, for people: its source, and the stages after it as they were written."""
    match plan:
        case Read(source):
            files = getattr(source, "files", None)
            named = getattr(source, "name", "") if files is None else f"{len(files)} files"
            return f"{type(source).__name__}({named})"
        case Apply(child, function):
            return f"{outline(child)} → {function.name}"
        case Zip() | Union():
            return f"{type(plan).__name__.lower()}({', '.join(map(outline, children_of(plan)))})"
        case Write(child, target):
            return f"{outline(child)} → write({target.folder})"
    told = {part.name: getattr(plan, part.name) for part in dataclasses.fields(plan) if part.name != "child"}
    stage = f"{type(plan).__name__.lower()}({', '.join(f'{name}={value!r}' for name, value in told.items())})"
    return f"{outline(plan.child)} → {stage}"


def is_endless(plan: Plan) -> bool:
    """Whether reading it never comes to an end."""
    if isinstance(plan, Repeat) and plan.epochs is None:
        return True
    return not isinstance(plan, Take) and any(is_endless(child) for child in children_of(plan))


def _described(value: Any, pieces: Pieces) -> Any:
    if isinstance(value, functools.partial):
        value = name_of(value), value.args, value.keywords
    if isinstance(value, Read):
        return "Read", _described(pieces(value), pieces), value.skip
    if isinstance(value, Apply):
        return "Apply", _described((value.child, value.function), pieces)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value).__name__, [
            _described(getattr(value, part.name), pieces) for part in dataclasses.fields(value)
        ]
    if isinstance(value, Mapping):
        return sorted((str(name), _described(part, pieces)) for name, part in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_described(part, pieces) for part in value]
    return value if isinstance(value, str | bytes | int | float | None) else name_of(value)
