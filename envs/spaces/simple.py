"""Spaces whose elements are one array, or one number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from ...runtime import InputError
from .arrays import array_as_batch, array_problem, integer_problem, largest
from .base import LeafCodec, Role

_INTEGERS = frozenset({int, *(np.dtype(code).type for code in "bBhHiIlLqQ")})


class _ArrayCodec(LeafCodec):
    def fits(self, value: Any) -> bool:
        """Whether it is an array of the right shape and dtype."""
        if not self.shape:
            return type(value) is self.dtype.type
        return isinstance(value, np.ndarray) and value.shape == self.shape and value.dtype == self.dtype

    def problem(self, value: Any, path: str = "", *, bounds: bool = True) -> str | None:
        """Want an array of the space's shape, in a dtype that casts to the space's without loss."""
        return array_problem(self, value, path, bounds=bounds)

    def as_batch(self, value: Any, path: str = "") -> tuple[np.ndarray, bool]:
        """Take arrays and nested lists."""
        return array_as_batch(self, value, path)

    def check_supported(self, role: Role) -> None:
        """Refuse what holds nothing."""
        if 0 in self.shape:
            raise InputError(f"{role} space {self.describe()} holds nothing: its shape {self.shape} has a zero")

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """Count from `start`."""
        return np.asarray(actions, dtype=self.dtype) + self.start

    @property
    def smallest_dtype(self) -> np.dtype:
        """That of the space."""
        return self.dtype


class BoxCodec(_ArrayCodec):
    """Numbers between bounds."""

    kind = "Box"

    def describe(self) -> str:
        """Return shape, dtype and outermost bounds."""
        low, high = _bound(self.space.low, min), _bound(self.space.high, max)
        return f"Box{self.shape} {self.dtype} in [{low}, {high}]"

    def to_json(self) -> dict[str, Any]:
        """Return it; infinite bounds are the texts "inf" and "-inf"."""
        bounds = {"low": _bounds_to_json(self.space.low), "high": _bounds_to_json(self.space.high)}
        return {"type": "Box", "shape": list(self.shape), "dtype": self.dtype.name, **bounds}

    @staticmethod
    def from_json(description: Mapping[str, Any]) -> Box:
        """Return the Box."""
        shape, dtype = tuple(description["shape"]), np.dtype(description["dtype"])
        low, high = (_bounds_from_json(description[key], shape, dtype) for key in ("low", "high"))
        return Box(low, high, shape=shape, dtype=dtype.type)

    def flaw(self, name: str) -> str | None:
        """See whether bounds have the space's shape and are ordered numbers."""
        low, high = self.space.low, self.space.high
        for bound, values in (("low", low), ("high", high)):
            if np.shape(values) != self.shape:
                shape = np.shape(values)
                return f"{name} is a Box of shape {self.shape} with {bound} of shape {shape}; both must be equal"
            if np.asarray(values).dtype.kind not in "fiub":
                return f"{name} is a Box whose {bound} is {values!r:.80}; wanted numbers"
        wrong = np.argwhere(~(low <= high))
        if not len(wrong):
            return None
        index = tuple(wrong[0].tolist())
        return f"{name} {self.describe()} has low{list(index)} = {low[index]} above high = {high[index]}"

    def check_supported(self, role: Role) -> None:
        """Refuse dtypes that are no numbers, and actions that are not of floating point."""
        super().check_supported(role)
        if self.dtype.kind not in "fiub":
            raise InputError(
                f"{role} space {self.describe()} has dtype {self.dtype}; wanted a float, integer or bool dtype"
            )
        if role == "action" and self.dtype.kind != "f":
            raise InputError(
                f"action space {self.describe()} has dtype {self.dtype}, but continuous actions are floats: "
                "declare it with dtype=np.float32, or as Discrete or MultiDiscrete if the action is a choice"
            )

    def essence(self, role: Role) -> Any:
        """No network scales by the bounds of observations, and versions of one environment differ in how tight they
        are."""
        return (self.shape, self.dtype) if role == "observation" else self.to_json()

    @property
    def row_size(self) -> int:
        """All numbers."""
        return int(np.prod(self.shape))

    def limits(self, *, bounds: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Return the bounds, or what dtype and float32 can hold."""
        low: Any
        high: Any
        if self.dtype.kind == "b":
            low, high = 0, 1
        elif self.dtype.kind == "f":
            low, high = -largest(self.dtype), largest(self.dtype)
        else:
            low, high = np.iinfo(self.dtype).min, np.iinfo(self.dtype).max
        if bounds:
            low, high = np.maximum(low, self.space.low), np.minimum(high, self.space.high)
        return _spread(low, high, self.shape, self.dtype)

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """Clip to the bounds: the policy's unclipped action is what is learned from."""
        return np.clip(actions, self.space.low, self.space.high).astype(self.dtype, copy=False)


class DiscreteCodec(LeafCodec):
    """One choice."""

    kind, is_discrete = "Discrete", True

    def __init__(self, space: Discrete) -> None:
        super().__init__(space)
        self.start, self.choices = space.start, (int(space.n),)

    def describe(self) -> str:
        """Return n, and the start that is not 0."""
        start = "" if self.start == 0 else f", start={self.start}"
        return f"Discrete({self.space.n}{start})"

    def to_json(self) -> dict[str, Any]:
        """Return n, start and dtype."""
        return {"type": "Discrete", "n": int(self.space.n), "start": int(self.start), "dtype": self.dtype.name}

    @staticmethod
    def from_json(description: Mapping[str, Any]) -> Discrete:
        """Return the Discrete."""
        dtype = np.dtype(description["dtype"])
        return Discrete(description["n"], start=description["start"], dtype=dtype.type)

    def flaw(self, name: str) -> str | None:
        """See whether there is an element."""
        if self.space.n < 1:
            return f"{name} is Discrete({self.space.n}), which has no element: n must be at least 1"
        return None

    def check_supported(self, role: Role) -> None:
        """Take all."""

    @property
    def row_size(self) -> int:
        """Choices."""
        return self.choices[0]

    @property
    def smallest_dtype(self) -> np.dtype:
        """That of the first and the last choice."""
        return _integers_between(int(self.start), int(self.start + self.space.n - 1))

    def fits(self, value: Any) -> bool:
        """Whether it is an integer of any type."""
        return type(value) in _INTEGERS

    def problem(self, value: Any, path: str = "", *, bounds: bool = True) -> str | None:
        """Want an integer of any type."""
        return integer_problem(self, value, path)

    def as_batch(self, value: Any, path: str = "") -> tuple[np.ndarray, bool]:
        """Take numbers, arrays and lists."""
        return array_as_batch(self, value, path)

    def limits(self, *, bounds: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Return the first and the last choice."""
        return _spread(self.start, self.start + self.space.n - 1, (), self.dtype)

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """Count from `start`."""
        values = np.asarray(actions, dtype=self.dtype)
        return values + self.start if self.start else values


class MultiDiscreteCodec(_ArrayCodec):
    """Several choices."""

    kind, is_discrete = "MultiDiscrete", True

    def __init__(self, space: MultiDiscrete) -> None:
        super().__init__(space)
        self.start = getattr(space, "start", np.zeros_like(space.nvec))
        self.choices = tuple(int(n) for n in np.ravel(space.nvec))

    def describe(self) -> str:
        """Return nvec, and the start that is not 0."""
        start = f", start={self.start.tolist()}" if self.start.any() else ""
        return f"MultiDiscrete({self.space.nvec.tolist()}{start})"

    def to_json(self) -> dict[str, Any]:
        """Return nvec, start and dtype."""
        nvec, start = self.space.nvec.tolist(), self.start.tolist()
        return {"type": "MultiDiscrete", "nvec": nvec, "start": start, "dtype": self.dtype.name}

    @staticmethod
    def from_json(description: Mapping[str, Any]) -> MultiDiscrete:
        """Return the MultiDiscrete."""
        dtype = np.dtype(description["dtype"])
        nvec, start = (np.array(description[key], dtype=dtype) for key in ("nvec", "start"))
        return MultiDiscrete(nvec, dtype=dtype.type, start=start)

    def flaw(self, name: str) -> str | None:
        """See whether there are choices, and a start for each."""
        if np.shape(self.start) != self.space.nvec.shape:
            return f"{name} has start of shape {np.shape(self.start)}; wanted that of nvec, {self.space.nvec.shape}"
        if (self.space.nvec < 1).any():
            nvec = self.space.nvec.tolist()
            return f"{name} is MultiDiscrete({nvec}): each number of choices must be at least 1"
        return None

    def check_supported(self, role: Role) -> None:
        """Refuse actions of several dimensions."""
        super().check_supported(role)
        nvec = self.space.nvec
        if role == "action" and nvec.ndim != 1:
            raise InputError(
                f"action space {self.describe()} has {nvec.ndim} dimensions, but a MultiDiscrete action has one: "
                f"declare it as MultiDiscrete({nvec.ravel().tolist()}) and reshape inside the environment"
            )

    @property
    def row_size(self) -> int:
        """All choices' side by side."""
        return sum(self.choices)

    @property
    def smallest_dtype(self) -> np.dtype:
        """That of the smallest first and the largest last choice."""
        return _integers_between(int(self.start.min()), int((self.start + self.space.nvec).max()) - 1)

    def limits(self, *, bounds: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Return the first and the last of each choice."""
        return _spread(self.start, self.start + self.space.nvec - 1, self.shape, self.dtype)


class MultiBinaryCodec(_ArrayCodec):
    """Zeros and ones."""

    kind = "MultiBinary"

    def describe(self) -> str:
        """Return n."""
        return f"MultiBinary({self.space.n})"

    def to_json(self) -> dict[str, Any]:
        """Return n, a number or a shape."""
        n = self.space.n
        return {"type": "MultiBinary", "n": int(n) if isinstance(n, int) else [int(length) for length in n]}

    @staticmethod
    def from_json(description: Mapping[str, Any]) -> MultiBinary:
        """Return the MultiBinary."""
        return MultiBinary(description["n"])

    def flaw(self, name: str) -> str | None:
        """See whether there is an element."""
        if np.any(np.asarray(self.space.n) < 1):
            return f"{name} is MultiBinary({self.space.n}), which has no element: n must be at least 1"
        return None

    @property
    def row_size(self) -> int:
        """All coins."""
        return int(np.prod(self.shape))

    def limits(self, *, bounds: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Return 0 and 1."""
        return _spread(0, 1, self.shape, self.dtype)


def _spread(low: Any, high: Any, shape: tuple[int, ...], dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    kept = dtype if dtype.kind in "fiu" else np.dtype(np.int8)
    return np.broadcast_to(np.asarray(low, kept), shape), np.broadcast_to(np.asarray(high, kept), shape)


def _bounds_to_json(bounds: np.ndarray) -> Any:
    """Give one number where all bounds are equal (images have thousands), else all of them in C order."""
    values = [value if np.isfinite(value) else str(value) for value in bounds.ravel().tolist()]
    return values[0] if len(set(values)) == 1 else values


def _bounds_from_json(value: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if isinstance(value, list):
        return np.array([float(v) if isinstance(v, str) else v for v in value], dtype=dtype).reshape(shape)
    return np.full(shape, float(value) if isinstance(value, str) else value, dtype=dtype)


def _bound(bounds: np.ndarray, outermost: Any) -> str:
    values = np.unique(bounds)
    if not len(values):
        return "…"
    return f"{values[0]:g}" if len(values) == 1 else f"{outermost(values):g}…"


def _integers_between(low: int, high: int) -> np.dtype:
    return np.result_type(np.min_scalar_type(low), np.min_scalar_type(high))
