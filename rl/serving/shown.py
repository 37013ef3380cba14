"""How the handles of what is served show themselves."""

from collections.abc import Mapping
from typing import Any, Protocol


class Listening(Protocol):
    """What may answer over HTTP."""

    http_address: str | None


def in_a_line(handle: Listening, told: Mapping[str, Any]) -> str:
    """A handle for people: what is told of it, by name, and where it answers."""
    address = {} if handle.http_address is None else {"http_address": handle.http_address}
    named = ", ".join(f"{name}={value!r}" for name, value in {**told, **address}.items())
    return f"{type(handle).__name__}({named})"
