"""Dict and Tuple: elements are records, whose fields are the parts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Dict, Tuple

from ...runtime import InputError
from .base import MASK, LeafCodec, Parts, Role, SpaceCodec


class NestedCodec(SpaceCodec):
    """What Dict and Tuple have in common.

    Attributes:
        parts: codec of each part, by the name of its field.
    """

    is_nested = True

    def __init__(self, space: Any, parts: Mapping[str, SpaceCodec]) -> None:
        self.space, self.parts = space, dict(parts)
        self.shape = ()
        # Without gaps, so that equal records are equal bytes.
        self.dtype = np.dtype([(name, part.dtype, part.shape) for name, part in self.parts.items()])

    @abstractmethod
    def _key(self, name: str) -> Any:
        """What the part is called in an element."""

    @abstractmethod
    def _element(self, parts: Mapping[str, Any]) -> Any:
        """The element made of its parts."""

    @abstractmethod
    def _kind_problem(self, value: Any) -> str | None:
        """What is wrong with the nesting of an element; None if each part is there."""

    def describe(self) -> str:
        """Return the parts."""
        parts = ", ".join(f"{self._key(name)!r}: {part.describe()}" for name, part in self.parts.items())
        return f"{self.kind}({parts})"

    def flaw(self, name: str) -> str | None:
        """Return the first part's."""
        found = (part.flaw(f"{name}[{self._key(key)!r}]") for key, part in self.parts.items())
        return next((flaw for flaw in found if flaw is not None), None)

    def check_supported(self, role: Role) -> None:
        """Refuse what has no parts, or a part that is refused."""
        if not self.parts:
            raise InputError(f"{role} space {self.kind}() holds nothing")
        for part in self.parts.values():
            part.check_supported(role)

    def essence(self, role: Role) -> Any:
        """Return the parts'."""
        return self.kind, [(name, part.essence(role)) for name, part in self.parts.items()]

    def leaves(self, parts: Parts = ()) -> Iterator[tuple[Parts, LeafCodec]]:
        """Give those of all parts."""
        for name, part in self.parts.items():
            yield from part.leaves((*parts, name))

    @property
    def row_size(self) -> int:
        """All parts' side by side."""
        return sum(part.row_size for part in self.parts.values())

    @property
    def smallest_dtype(self) -> np.dtype:
        """The parts'."""
        return np.dtype([(name, part.smallest_dtype, part.shape) for name, part in self.parts.items()])

    def fits(self, value: Any) -> bool:
        """Whether all parts do."""
        if self._kind_problem(value) is not None:
            return False
        return all(part.fits(value[self._key(name)]) for name, part in self.parts.items())

    def pack(self, value: Any) -> Any:
        """Return the parts as a tuple, which numpy takes as a record."""
        return tuple(part.pack(value[self._key(name)]) for name, part in self.parts.items())

    def unpack(self, rows: np.ndarray) -> Any:
        """Return the parts as views."""
        return self._element({name: part.unpack(rows[name]) for name, part in self.parts.items()})

    def put(self, rows: np.ndarray, value: Any) -> None:
        """Put each part."""
        for name, part in self.parts.items():
            part.put(rows[name], value[self._key(name)])

    def filler(self) -> Any:
        """Return the parts'; a mask that allows all."""
        fillers = ((part, 1 if name == MASK else part.filler()) for name, part in self.parts.items())
        return tuple(np.broadcast_to(filler, part.shape) if part.shape else filler for part, filler in fillers)

    def problem(self, value: Any, path: str = "", *, bounds: bool = True) -> str | None:
        """Return the first part's."""
        wrong = self._kind_problem(value)
        if wrong is not None:
            return f"observation{path} {wrong}; observation_space{path} {self.describe()}"
        parts = ((name, self._key(name), part) for name, part in self.parts.items())
        found = (part.problem(value[key], f"{path}[{key!r}]", bounds=bounds) for _, key, part in parts)
        return next((wrong for wrong in found if wrong is not None), None)

    def as_batch(self, value: Any, path: str = "") -> tuple[np.ndarray, bool]:
        """Take the nesting of arrays and lists that the space has, and rows as a group gives them."""
        if isinstance(value, np.ndarray) and value.dtype == self.dtype and value.ndim <= 1:
            return np.atleast_1d(value), value.ndim == 0
        wrong = self._kind_problem(value)
        if wrong is not None:
            raise ValueError(f"got observation{path} {wrong}; observation_space{path} {self.describe()}")
        batches = {
            name: part.as_batch(value[self._key(name)], f"{path}[{self._key(name)!r}]")
            for name, part in self.parts.items()
        }
        sizes = {name: None if single else len(rows) for name, (rows, single) in batches.items()}
        first = next(iter(sizes))
        for name, rows_given in sizes.items():
            if rows_given != sizes[first]:
                here, there = ("one" if n is None else f"a batch of {n}" for n in (rows_given, sizes[first]))
                raise ValueError(
                    f"got observation{path}[{self._key(name)!r}] as {here}, but "
                    f"observation{path}[{self._key(first)!r}] as {there}: all parts must have the same rows"
                )
        size = sizes[first]
        rows = np.empty(1 if size is None else size, self.dtype)
        for name, (part_rows, _) in batches.items():
            rows[name] = part_rows
        return rows, size is None

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """Do so in each part."""
        rows = np.empty(actions.shape, self.dtype)
        for name, part in self.parts.items():
            rows[name] = part.to_env(actions[name])
        return rows


class DictCodec(NestedCodec):
    """Parts by name."""

    kind = "Dict"

    def __init__(self, space: Dict, codec: Callable[[Any], SpaceCodec]) -> None:
        super().__init__(space, {str(name): codec(part) for name, part in space.spaces.items()})

    def _key(self, name: str) -> Any:
        return name

    def _element(self, parts: Mapping[str, Any]) -> Any:
        return dict(parts)

    def _kind_problem(self, value: Any) -> str | None:
        if not isinstance(value, Mapping):
            return f"of type {type(value).__name__}; wanted a dict"
        missing = [name for name in self.parts if name not in value]
        if missing:
            return f"lacks {', '.join(map(repr, missing))}"
        unknown = [key for key in value if key not in self.parts]
        return f"has a part {unknown[0]!r} that the space has not" if unknown else None

    def to_json(self) -> dict[str, Any]:
        """Return the parts, in order."""
        return {"type": "Dict", "spaces": [[name, part.to_json()] for name, part in self.parts.items()]}

    @staticmethod
    def from_json(description: Mapping[str, Any], read: Callable[[Any], Space] | None = None) -> Dict:
        """Return the Dict."""
        assert read is not None
        return Dict([(name, read(part)) for name, part in description["spaces"]])


class TupleCodec(NestedCodec):
    """Parts by position."""

    kind = "Tuple"

    def __init__(self, space: Tuple, codec: Callable[[Any], SpaceCodec]) -> None:
        super().__init__(space, {str(index): codec(part) for index, part in enumerate(space.spaces)})

    def _key(self, name: str) -> Any:
        return int(name)

    def _element(self, parts: Mapping[str, Any]) -> Any:
        return tuple(parts.values())

    def _kind_problem(self, value: Any) -> str | None:
        if not isinstance(value, tuple | list):
            return f"of type {type(value).__name__}; wanted a tuple"
        return None if len(value) == len(self.parts) else f"has {len(value)} parts; wanted {len(self.parts)}"

    def to_json(self) -> dict[str, Any]:
        """Return the parts, in order."""
        return {"type": "Tuple", "spaces": [part.to_json() for part in self.parts.values()]}

    @staticmethod
    def from_json(description: Mapping[str, Any], read: Callable[[Any], Space] | None = None) -> Tuple:
        """Return the Tuple."""
        assert read is not None
        return Tuple([read(part) for part in description["spaces"]])
