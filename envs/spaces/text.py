"""Texts: what language models see and say. No other model works with them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from gymnasium.spaces import Text

from ...runtime import InputError
from .base import LeafCodec, Role

REMEDY = (
    "encode the text as a Box or MultiDiscrete of fixed size, or let both spaces be Text, and train a language model, "
    "such as with grpo"
)


class TextCodec(LeafCodec):
    """One text; rows are Python's own strings."""

    kind = "Text"

    def __init__(self, space: Any) -> None:
        super().__init__(space)
        self.shape, self.dtype = (), np.dtype(object)

    @cached_property
    def characters(self) -> str:
        """Those of its texts, in order; only when asked: a codec is made for each observation that is checked."""
        return "".join(sorted(self.space.character_set))

    def describe(self) -> str:
        """Return its length and how many characters there are."""
        return f"Text({self.space.min_length} to {self.space.max_length} of {len(self.characters)} characters)"

    def to_json(self) -> dict[str, Any]:
        """Return lengths and characters."""
        lengths = {"min_length": int(self.space.min_length), "max_length": int(self.space.max_length)}
        return {"type": "Text", **lengths, "charset": self.characters}

    @staticmethod
    def from_json(description: Mapping[str, Any]) -> Text:
        """Return the Text."""
        return Text(description["max_length"], min_length=description["min_length"], charset=description["charset"])

    def flaw(self, name: str) -> str | None:
        """See nothing: gymnasium has checked it."""
        return None

    def check_supported(self, role: Role) -> None:
        """Refuse it: a policy that works with numbers is meant."""
        raise InputError(f"{role} space {self.describe()} is not supported here; {REMEDY}")

    def essence(self, role: Role) -> Any:
        """Its characters: a policy of some works with as many others as its tokens have, whatever the length."""
        return {"type": "Text", "charset": self.characters}

    @property
    def row_size(self) -> int:
        """No numbers stand for it."""
        return 0

    @property
    def smallest_dtype(self) -> np.dtype:
        """That of Python's objects."""
        return self.dtype

    def fits(self, value: Any) -> bool:
        """Whether it is a string."""
        return isinstance(value, str)

    def as_batch(self, value: Any, path: str = "") -> tuple[np.ndarray, bool]:
        """Take a string, or a list of them."""
        single = isinstance(value, str)
        rows = [value] if single else list(value)
        for index, row in enumerate(rows):
            if not isinstance(row, str):
                raise ValueError(f"observation{path}[{index}] is {row!r:.80}; wanted a text")
        return np.array(rows, dtype=object), single

    def filler(self) -> Any:
        """Return a text of the smallest length."""
        return self.characters[:1] * self.space.min_length

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """Return them as they are."""
        return actions

    def limits(self, *, bounds: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Raise InputError: texts have none, and no simulation group steps environments of texts."""
        raise InputError(f"a space of texts has no limits; {REMEDY}")

    def problem(self, value: Any, path: str = "", *, bounds: bool = True) -> str | None:
        """Want a string of the space's characters and length."""
        if not isinstance(value, str):
            return f"observation{path} {value!r:.80} of type {type(value).__name__}; wanted a str"
        if not bounds:
            return None
        strange = sorted(set(value) - self.space.character_set)
        if strange:
            return (
                f"observation{path} {value!r:.80}, whose characters {''.join(strange)!r} are not among those of its "
                f"space, {self.characters!r:.80}: add them to the charset"
            )
        shortest, longest = self.space.min_length, self.space.max_length
        if not shortest <= len(value) <= longest:
            return f"observation{path} of {len(value)} characters; wanted {shortest} to {longest}, as in its space"
        return None
