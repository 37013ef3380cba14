"""What the text after a flag stands for; whatever it cannot stand for raises a ValueError that says what it could."""

import json
import math
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

#: No count is as large; an exponent beyond would make an int that fills the memory.
_MOST_DIGITS = 30


def number(text: str) -> float:
    """Return the finite number that a text says."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number{_correction(text)}") from None
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a finite number")
    return value


def whole_number(text: str) -> int:
    """Return the whole number that a text says: 10000, 10_000 or 1e4."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a whole number{_correction(text)}") from None
    if not value.is_finite() or (value.adjusted() < _MOST_DIGITS and value != value.to_integral_value()):
        raise ValueError(f"{text!r} is not a whole number")
    if value.adjusted() >= _MOST_DIGITS:
        raise ValueError(f"{text!r} is too large")
    return int(value)


def _correction(text: str) -> str:
    """Return how to write what was probably meant."""
    if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+", text):
        return f": write {text.replace(',', '_')}"
    if re.fullmatch(r"\d+,\d+", text):
        return f": write {text.replace(',', '.')}"
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKmM])", text):
        return f": write {match[1]}e{3 if match[2] in 'kK' else 6}"
    return ""


def rate(text: str) -> float | str:
    """Return a number, or the text of a schedule such as lin_0.001, which the setting itself checks."""
    try:
        return number(text)
    except ValueError:
        return text


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def json_object(example: str, text: str) -> dict[str, Any]:
    """Return the JSON object that a text holds; `example` is shown where it holds none."""
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_float=number)
    except ValueError as error:
        why = f" ({error})" if text.lstrip().startswith("{") else ""
        raise ValueError(f"{text!r} is no JSON object{why}; write for example '{example}'") from None
    if not isinstance(value, dict):
        raise ValueError(f"{text!r} is no JSON object; write for example '{example}'")
    return value


def one_of(choices: Sequence[str], text: str) -> str:
    """Return the text, which must be one of several."""
    if text not in choices:
        raise ValueError(f"{text!r} is not one of {', '.join(choices)}")
    return text


def some_text(text: str) -> str:
    """Return the text, which must not be empty."""
    if not text.strip():
        raise ValueError("the value is empty")
    return text


def any_text(text: str) -> str:
    """Return the text, whatever it is: a prompt may be empty, and an answer ends before a line break."""
    return text
