"""Asking a runtime how it is: this process's own, or another one of this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from ..core.arguments import as_int
from ..core.engine import running_engine
from ..core.reports.diagnosis import Diagnosis
from ..core.reports.rows import NodeReport, Row, Rows
from ..exceptions import InputError, InputTypeError, nearest
from ..native.protocol.observer import observe, sessions

Filter = tuple[str, str, Any]
_Row = TypeVar("_Row", bound=Row)


def ask(sections: Sequence[str], limit: int, address: str | None) -> list[NodeReport]:
    """Return what nodes and processes say; see `Engine.state`.

    Raises:
        InputError: a bad limit, or there is no runtime to ask.
    """
    most = as_int(limit)
    if most is None or not 1 <= most <= sys.maxsize:
        raise InputError(f"limit={limit!r}: want a whole number of rows, at least 1")
    engine = running_engine()
    if address is None and engine is not None:
        return engine.state(sections, most)
    if address is None:
        running = sessions()
        if not running:
            raise InputError("no runtime of this user is running on this machine: start a program that uses Shoal")
        address = running[0].name
    return observe(address, sections, most)


def listed(
    kind: type[_Row],
    rows: Callable[[Diagnosis], Iterable[_Row]],
    sections: Sequence[str],
    *,
    filters: Sequence[Filter] | None,
    limit: int,
    address: str | None,
) -> Rows[_Row]:
    """Ask, and return those rows that fulfil all conditions."""
    tests = [_test(kind, entry) for entry in _several(filters)]
    kept = [row for row in rows(Diagnosis(ask(sections, limit, address))) if all(test(row) for test in tests)]
    return Rows(kept[:limit], len(kept))


def _several(filters: Any) -> Sequence[Filter]:
    single = filters and isinstance(filters[0], str)  # which stands for itself
    return [filters] if single else filters or ()


def _test(kind: type[_Row], entry: Filter) -> Callable[[_Row], bool]:
    known = kind.__struct_fields__
    if len(entry) != 3 or entry[1] not in ("=", "!="):
        raise InputError(f"filter {entry!r}: want (field, '=' or '!=', value), such as ('state', '=', 'RUNNING')")
    key, operator, value = entry
    if key not in known:
        raise InputError(f"filter {entry!r}: {kind.__name__} has no field {key!r}. {nearest(key, known)}")
    return lambda row: (str(getattr(row, key)).lower() == str(value).lower()) == (operator == "=")


def one(rows: Iterable[_Row], key: str, wanted: Any) -> _Row | None:
    """Return the row with an id, or whose id ends with it: messages show only the last digits."""
    text = id_text(wanted)
    found = [row for row in rows if getattr(row, key).endswith(text)]
    exact = [row for row in found if getattr(row, key) == text]
    if len(found) > 1 and not exact:
        raise InputError(f"{len(found)} ids end with {text!r}: give more digits")
    return next(iter(exact or found), None)


def id_text(wanted: Any) -> str:
    """Return the hexadecimal id of a reference, a handle, or an id.

    Raises:
        TypeError: it is none of these.
    """
    wanted = getattr(getattr(wanted, "_actor", None), "id", None) or getattr(wanted, "id", wanted)
    if isinstance(wanted, bytes):
        return wanted.hex()
    if isinstance(wanted, str) and wanted:
        return wanted.lower()
    raise InputTypeError(f"want a reference, an actor's handle or a hexadecimal id, not {wanted!r:.80}")
