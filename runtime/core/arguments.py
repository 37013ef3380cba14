"""What users give: checked before anything of it is sent, and its numbers, of whatever library, as Python's own.

What a message cannot carry must not get into one, and numpy's numbers do not go into messages.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

from ..exceptions import InputError, InputTypeError, nearest

# A time limit of this many seconds, a century, is none.
_NEVER = 100 * 365 * 86_400


def refuse_unknown(said: str, unknown: Iterable[str], known: Iterable[str], elsewhere: Mapping[str, str]) -> None:
    """Raise InputTypeError for the first of the unknown names of arguments, of which `said` begins to tell, with what
    there is instead: `elsewhere` has sentences on other libraries' names."""
    for name in unknown:
        raise InputTypeError(f"{said} {name!r}. {elsewhere.get(name) or nearest(name, known)}")


def check_text(name: str, value: Any) -> None:
    """Raise InputError, or InputTypeError, unless `value` is a string that is not empty and can be encoded."""
    if not isinstance(value, str):
        raise InputTypeError(f"{name}={value!r:.80}: want a string that is not empty")
    if not value:
        raise InputError(f"{name}={value!r}: want a string that is not empty")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise InputError(f"{name}={value!r:.80}: half of a surrogate pair is no text. Decode bytes with their encoding")


def check_name(name: str, value: Any) -> None:
    """Raise InputError, or InputTypeError, unless `value` is None or such a string."""
    if value is not None:
        check_text(name, value)


def check_count(name: str, value: Any, lowest: int) -> None:
    """Raise InputError, or InputTypeError, unless `value` is an integer from `lowest` on that 64 bits can hold."""
    unlimited = " (-1 means: without limit)" if lowest == -1 else ""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputTypeError(f"{name}={value!r:.80}: want an integer of at least {lowest}{unlimited}")
    if value < lowest:
        raise InputError(f"{name}={value!r}: want an integer of at least {lowest}{unlimited}")
    if value > sys.maxsize:
        raise InputError(f"{name}={value!r}: want an integer of at most {sys.maxsize:,}{unlimited}")


def check_flag(name: str, value: Any) -> None:
    """Raise InputTypeError unless `value` is True or False."""
    if as_bool(value) is None:
        raise InputTypeError(f"{name}={value!r:.80}: want True or False")


# Numbers --------------------------------------------------------------------------------------------------------------


def _scalar(value: Any) -> Any:
    """Return what an array without axes, such as numpy's scalars are, holds; anything else as it is."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def as_bool(value: Any) -> bool | None:
    """Return True or False as Python's own; None if it is neither."""
    value = _scalar(value)
    return value if isinstance(value, bool) else None


def as_int(value: Any) -> int | None:
    """Return a whole number as an int; None if it is none: a boolean is not."""
    value = _scalar(value)
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None


def as_number(value: Any) -> float | None:
    """Return a number as an int or float, one that no float can hold as infinity; None if it is none, as a boolean."""
    whole = as_int(value)
    if whole is not None or isinstance(value, bool):
        return whole
    if not isinstance(value, Real | Decimal):  # which is a Number, but no Real
        return None
    try:
        return float(value)
    except OverflowError:  # a fraction
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]  # typeshed's Real has no order
    except ValueError:  # Decimal has a NaN that refuses to be anything else
        return math.nan


def in_plain_numbers(value: Any) -> Any:
    """Return a number, or the numbers in dicts, lists, tuples and arrays, as ints and floats; all else as it is."""
    if type(value) is dict:
        return {key: in_plain_numbers(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(in_plain_numbers, value))
    if getattr(value, "ndim", 0) and hasattr(value, "tolist"):
        return value.tolist()
    number = as_number(value)
    return value if number is None else number


def as_timeout(what: str, timeout: Any) -> float | None:
    """Return a time limit in seconds as an int or float; None where there is none, or one that nobody lives to see.

    This is the only place that reads a time limit, so that infinity and centuries mean the same everywhere: what the
    system calls below take ends between 24 days (epoll) and 292 years (locks).

    Raises:
        InputError: it is neither None nor a number of at least 0.
    """
    if timeout is None:
        return None
    seconds = as_number(timeout)
    if seconds is None or not seconds >= 0:
        kind = InputTypeError if seconds is None else InputError
        raise kind(f"{what}: timeout={timeout!r}: want seconds, 0 or more, or None to wait without limit")
    return seconds if seconds < _NEVER else None
