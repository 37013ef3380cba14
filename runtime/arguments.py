"""Checks of what users give, before anything of it is sent: what a message cannot carry must not get into one."""

from __future__ import annotations

import sys
from typing import Any

from .exceptions import InputError, InputTypeError
from .plain_numbers import as_bool


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
