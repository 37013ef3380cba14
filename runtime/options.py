"""Options of tasks and actors: the same names, meanings and defaults as Ray's, checked when they are given."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from .exceptions import InputError, nearest
from .runtime_env import RuntimeEnv

_RESERVED = {"CPU": "num_cpus", "GPU": "num_gpus"}


def check_amount(name: str, value: float) -> None:
    """Raise InputError unless `value` is a finite number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise InputError(f"{name}={value!r}: want a number that is not negative")


def _check_count(name: str, value: int, lowest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        unlimited = " (-1 means: without limit)" if lowest == -1 else ""
        raise InputError(f"{name}={value!r}: want an integer of at least {lowest}{unlimited}")


@dataclass(frozen=True, kw_only=True)
class _Options:
    """What tasks and actors have in common."""

    num_cpus: float
    num_gpus: float = 0
    resources: Mapping[str, float] = field(default_factory=dict)
    name: str | None = None
    runtime_env: RuntimeEnv | None = None

    def __post_init__(self) -> None:
        if self.runtime_env is not None:
            object.__setattr__(self, "runtime_env", RuntimeEnv.of(self.runtime_env))
        check_amount("num_cpus", self.num_cpus)
        check_amount("num_gpus", self.num_gpus)
        for resource, amount in self.resources.items():
            if resource in _RESERVED:
                raise InputError(f"resources={{{resource!r}: …}}: use {_RESERVED[resource]}= for it")
            check_amount(f"resources[{resource!r}]", amount)
        if self.name is not None and (not isinstance(self.name, str) or not self.name):
            raise InputError(f"name={self.name!r}: want a string that is not empty")

    @classmethod
    def of(cls, **given: Any) -> Self:
        """Return options from keyword arguments; InputError for an unknown name or a bad value."""
        return cls(**cls._known(given))

    def but(self, **given: Any) -> Self:
        """Return a copy with some options changed; InputError for an unknown name or a bad value."""
        return replace(self, **self._known(given))

    @classmethod
    def _known(cls, given: dict[str, Any]) -> dict[str, Any]:
        known = [f.name for f in fields(cls)]
        for name in given:
            if name not in known:
                raise InputError(f"unknown option {name!r}. {nearest(name, known)}")
        return {name: value for name, value in given.items() if value is not None}

    def demand(self) -> dict[str, float]:
        """Return the resources asked for, by name, without those of amount zero."""
        wanted = {"CPU": self.num_cpus, "GPU": self.num_gpus, **self.resources}
        return {name: float(amount) for name, amount in wanted.items() if amount}


@dataclass(frozen=True, kw_only=True)
class TaskOptions(_Options):
    """Options of a remote function: 1 CPU, one return value, three retries after a crash of its worker."""

    num_cpus: float = 1
    num_returns: int = 1
    max_retries: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_count("num_returns", self.num_returns, 0)
        _check_count("max_retries", self.max_retries, -1)


@dataclass(frozen=True, kw_only=True)
class ActorOptions(_Options):
    """Options of an actor: it holds no CPU while it runs unless `num_cpus` says so, and is not restarted."""

    num_cpus: float = 0
    max_restarts: int = 0
    max_task_retries: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_count("max_restarts", self.max_restarts, -1)
        _check_count("max_task_retries", self.max_task_retries, -1)
        if self.max_task_retries and not self.max_restarts:
            raise InputError(
                f"max_task_retries={self.max_task_retries} has no effect with max_restarts=0: "
                "a call can be retried only on an actor that comes back. Set max_restarts too"
            )
