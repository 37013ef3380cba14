"""What a codec says of a space: everything that depends on the kind of space is asked of it.

Elements are kept in arrays: one row each, of `shape` and `dtype`. An element of a Dict or Tuple is one record of
numpy's structured kind, whose fields are its parts. So a row is one piece of memory, whatever it holds: rollouts,
replay, queues and checkpoints handle one array, and a replay buffer gathers one row where a tree of arrays would gather
one for each part.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from gymnasium import Space

Role = Literal["observation", "action"]
MASK = "action_mask"
"""Key of a Dict observation under which it is said which actions are allowed."""
Parts = tuple[str, ...]
"""Where a part lies in nested spaces: keys of Dicts, and positions in Tuples as texts."""


class SpaceCodec:
    """Of one space. (No ABC: whether a codec is a leaf's is asked in each step, and an ABC's answer takes 1 µs.)

    Attributes:
        space: the space.
        shape: of a row; () for what is nested.
        dtype: of a row; structured for what is nested.
    """

    kind: ClassVar[str]
    """Its class's name in gymnasium."""
    is_nested: ClassVar[bool] = False
    """Whether it has parts."""
    is_discrete: ClassVar[bool] = False
    """Whether an element is a choice or several, counted from `start`."""

    def __init__(self, space: Any) -> None:
        self.space = space
        self.shape: tuple[int, ...] = tuple(space.shape or ())
        self.dtype = np.dtype(space.dtype)

    # What it is -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def describe(self) -> str:
        """Return it in a few words, such as ``Box(4,) float32 in [-1, 1]`` or ``Discrete(2)``."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return it as values that JSON can hold, exactly."""

    @staticmethod
    @abstractmethod
    def from_json(description: Mapping[str, Any]) -> Space:
        """Return the space that `to_json` described; raises KeyError, TypeError, ValueError or AssertionError if it is
        none."""

    @abstractmethod
    def flaw(self, name: str) -> str | None:
        """Return what is wrong with the space itself, called `name`: gymnasium checks it when it is made, not what is
        set later."""

    @abstractmethod
    def check_supported(self, role: Role) -> None:
        """Refuse, with an InputError, what policies cannot work with."""

    def essence(self, role: Role) -> Any:
        """Return what two spaces must have in common for a policy of the one to act in the other."""
        return self.to_json()

    # Its elements ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def leaves(self, parts: Parts = ()) -> Iterator[tuple[Parts, LeafCodec]]:
        """Give the parts that have no parts, in order, each with where it lies; the space itself if it is one."""

    @property
    @abstractmethod
    def row_size(self) -> int:
        """Numbers that stand for one element in a network: a Box flattened, a Discrete one-hot, a MultiDiscrete as
        one-hots side by side, a MultiBinary as zeros and ones. Also the number of outputs that describe a distribution
        over the space."""

    @property
    @abstractmethod
    def smallest_dtype(self) -> np.dtype:
        """The smallest dtype that holds each element exactly: a log of discrete actions is kept in it."""

    @abstractmethod
    def fits(self, value: Any) -> bool:
        """Return whether an element needs no closer look: types, shapes and dtypes are right, values may be outside."""

    @abstractmethod
    def pack(self, value: Any) -> Any:
        """Return an element that fits as what can be assigned to a row."""

    @abstractmethod
    def unpack(self, rows: np.ndarray) -> Any:
        """Return rows [..., *shape] as the space's nesting of arrays; the array itself if it is not nested."""

    @abstractmethod
    def put(self, rows: np.ndarray, value: Any) -> None:
        """Put elements [B, …], nested as the space is, into rows [B, *shape]."""

    @abstractmethod
    def as_batch(self, value: Any, path: str = "") -> tuple[np.ndarray, bool]:
        """Return observations that somebody passes as rows [B, *shape], and whether it was one alone.

        Beyond a Box's bounds is allowed here, since an environment may know better than its declaration; what would
        wrap around in the space's dtype, or is not finite in float32, is not. Raises ValueError, naming the part at
        `path`.
        """

    @abstractmethod
    def filler(self) -> Any:
        """Return some element, as what can be assigned to a row."""

    def example(self) -> Any:
        """Return that element, nested as the space is."""
        rows = np.empty((1, *self.shape), self.dtype)
        rows[:] = self.filler()
        return self.unpack(rows[0])

    @abstractmethod
    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """Return a policy's actions [..., *shape] as rows that `env.step` takes once they are unpacked."""

    @abstractmethod
    def problem(self, value: Any, path: str = "", *, bounds: bool = True) -> str | None:
        """Return what is wrong with an observation that an environment returned, with index, value and bound; None if
        nothing is. The sentence follows on "step() returned"; `path` is where the part lies, such as "['camera']"."""


class LeafCodec(SpaceCodec):
    """Of a space without parts."""

    choices: tuple[int, ...] = ()
    """How many there are of each choice, where it holds choices, counted from `start`."""
    start: Any = 0
    """First value of each choice: a number, or an array of the space's shape."""

    @property
    def is_image(self) -> bool:
        """Whether it holds images: bytes with three axes, or with four where images are stacked."""
        return self.dtype == np.uint8 and len(self.shape) in (3, 4)

    @abstractmethod
    def limits(self, *, bounds: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Return the smallest and the largest value that each element may have: finite arrays of the space's shape.

        `bounds`: whether a Box's own count; False: only what its dtype and float32 can hold.
        """

    def leaves(self, parts: Parts = ()) -> Iterator[tuple[Parts, LeafCodec]]:
        """Give the space itself."""
        yield parts, self

    def pack(self, value: Any) -> Any:
        """Return it as it is."""
        return value

    def unpack(self, rows: np.ndarray) -> np.ndarray:
        """Return them as they are."""
        return rows

    def put(self, rows: np.ndarray, value: Any) -> None:
        """Put the array."""
        rows[...] = value

    def filler(self) -> Any:
        """Return the first of each choice, or zero."""
        return self.start


def part_of(rows: Any, parts: Parts) -> Any:
    """Return the part of rows, or of one row, that lies at `parts`: a view of records; the rows themselves for ()."""
    for name in parts:
        rows = rows[name]
    return rows
