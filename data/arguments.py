"""Arguments of a dataset's methods, read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..runtime import InputError, InputTypeError, as_int, nearest
from .blocks import BATCH_FORMATS


def positive(what: str, value: Any) -> int:
    """The value as an integer ≥ 1; raises InputError, which names it, if it is none."""
    number = as_int(value)
    if number is None or number < 1:
        raise InputError(f"{what}={value!r}: an integer ≥ 1 is wanted")
    return number


def check_format(batch_format: str) -> None:
    """Raise InputError if there is no such format of batches."""
    if batch_format not in BATCH_FORMATS:
        raise InputError(f"batch_format={batch_format!r}. {nearest(str(batch_format), BATCH_FORMATS)}")


def column_names(what: str, key: str | Sequence[str]) -> tuple[str, ...]:
    """The names of columns, of which one may stand alone; raises InputTypeError, which names `what` takes them."""
    names = (key,) if isinstance(key, str) else tuple(key)
    if not names or not all(isinstance(name, str) for name in names):
        raise InputTypeError(f"{what}: {key!r}: the name of a column, or several, are wanted")
    return names
