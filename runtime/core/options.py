"""Options of tasks and actors: the same names, meanings and defaults as Ray's, checked when they are given."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Self

import cloudpickle

from ..exceptions import InputError, InputTypeError, nearest
from .arguments import as_int, check_count, check_flag, check_name, check_text, in_plain_numbers
from .resources.amounts import Demand, check_amount, check_gpus, in_units
from .runtime_env import RuntimeEnv
from .scheduling import SchedulingStrategy, check_strategy

#: As a number of returns: a stream of values, taken one by one.
STREAMING = -1
#: What is more than so many values belongs into a stream.
MOST_RETURNS = 1_000_000

_RESERVED = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
# Ray's options that we know, and refuse on purpose.
_REFUSED = {
    "accelerator_type": "GPUs are told apart by a resource of your own: init(resources={'A100': 1}) on the machine "
    "that has one, and resources={'A100': 1} here",
    "placement_group": "use scheduling_strategy=PlacementGroupSchedulingStrategy(group)",
    "placement_group_bundle_index": "use scheduling_strategy=PlacementGroupSchedulingStrategy(group, index)",
}
# How many calls an async actor runs at the same time unless it says otherwise; Ray's number.
_ASYNC_CONCURRENCY = 1000


# Which say nothing.
_DEFAULTS_OF_REFUSED = [
    ("accelerator_type", None),
    ("placement_group", "default"),
    ("placement_group_bundle_index", -1),
]


def check_resources(resources: Mapping[str, float]) -> None:
    """Raise InputError unless these are amounts of resources that have no option of their own."""
    for resource, amount in resources.items():
        check_text("resources: a name", resource)
        if resource in _RESERVED:
            raise InputError(f"resources={{{resource!r}: …}}: use {_RESERVED[resource]}= for it")
        check_amount(f"resources[{resource!r}]", amount)


def given(options: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that say something else than their defaults."""
    pairs = [(f, getattr(options, f.name)) for f in fields(options)]
    return {f.name: value for f, value in pairs if value not in (f.default, {}, None)}


class _Checked:
    """Options that are made from keyword arguments; for frozen dataclasses."""

    @classmethod
    def of(cls, **given: Any) -> Self:
        """Return options from keyword arguments; InputError for an unknown name or a bad value."""
        return cls(**cls._known(given))

    def but(self, **given: Any) -> Self:
        """Return a copy with some options changed; InputError for an unknown name or a bad value."""
        return replace(self, **self._known(given))  # type: ignore[type-var]  # the subclasses are dataclasses

    @classmethod
    def _known(cls, given: dict[str, Any]) -> dict[str, Any]:
        known = [f.name for f in fields(cls)]  # type: ignore[arg-type]  # the subclasses are dataclasses
        given = {name: value for name, value in given.items() if (name, value) not in _DEFAULTS_OF_REFUSED}
        for name in given:
            if name in _REFUSED:
                raise InputError(f"option {name!r} is not supported: {_REFUSED[name]}")
            if name not in known:
                raise InputError(f"unknown option {name!r}. {nearest(name, known)}")
        return {name: in_plain_numbers(value) for name, value in given.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class _Options(_Checked):
    """What tasks and actors have in common."""

    num_cpus: float
    num_gpus: float = 0
    memory: float = 0
    resources: Mapping[str, float] = field(default_factory=dict)
    scheduling_strategy: SchedulingStrategy | None = None
    name: str | None = None
    runtime_env: RuntimeEnv | None = None

    def __post_init__(self) -> None:
        if self.runtime_env is not None:
            object.__setattr__(self, "runtime_env", RuntimeEnv.of(self.runtime_env))
        check_amount("num_cpus", self.num_cpus)
        check_gpus(self.num_gpus)
        check_amount("memory", self.memory)
        check_resources(self.resources)
        check_strategy(self.scheduling_strategy)
        check_name("name", self.name)

    @cached_property
    def demand(self) -> Demand:
        """The resources asked for, without those of amount zero."""
        named = {"CPU": self.num_cpus, "GPU": self.num_gpus, "memory": self.memory}
        return in_units(named | dict(self.resources))

    @cached_property
    def kind(self) -> Any:
        """What tasks have in common that can run on the same worker, one after the other."""
        return tuple(sorted(self.demand.items())), self.scheduling_strategy


def returns_count(value: Any) -> int:
    """Return the number that `num_returns` stands for: STREAMING for "streaming"; InputError if it is bad."""
    if value == "streaming":
        return STREAMING
    if value == "dynamic":
        raise InputError("num_returns='dynamic' is not supported: use num_returns='streaming' and iterate the result")
    count = as_int(value)
    if count is None or not 0 <= count <= MOST_RETURNS:
        raise InputError(
            f"num_returns={value!r}: want an integer from 0 to {MOST_RETURNS:,}, or 'streaming' for a generator"
        )
    return count


@dataclass(frozen=True, kw_only=True)
class _Outcome(_Checked):
    """What comes of a call; for tasks and methods.

    Attributes:
        num_returns: how many values it returns; STREAMING: it yields them one by one.
        retry_exceptions: whether exceptions use up retries, as crashes do, or which ones: a class, or several.
        generator_backpressure: how many values of a stream may wait to be taken; 0: any number.
    """

    num_returns: int = 1
    retry_exceptions: bool | Sequence[type[BaseException]] = False
    generator_backpressure: int = 0

    @classmethod
    def _known(cls, given: dict[str, Any]) -> dict[str, Any]:
        if "_generator_backpressure_num_objects" in given:  # Ray's name, and its default is -1
            room = given.pop("_generator_backpressure_num_objects")
            given["generator_backpressure"] = 0 if room == -1 else room
        if given.get("num_returns") is not None:
            given["num_returns"] = returns_count(given["num_returns"])
        if isinstance(given.get("retry_exceptions"), type):
            given["retry_exceptions"] = [given["retry_exceptions"]]
        return super()._known(given)

    def _check_outcome(self) -> None:
        kinds = [] if isinstance(self.retry_exceptions, bool) else self.retry_exceptions
        if not isinstance(kinds, list | tuple) or not all(
            isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds
        ):
            raise InputError(
                f"retry_exceptions={self.retry_exceptions!r}: want True, False or a list of exception classes"
            )
        check_count("generator_backpressure", self.generator_backpressure, 0)
        if self.generator_backpressure and self.num_returns != STREAMING:
            raise InputError("generator_backpressure is for generators: set num_returns='streaming'")

    @cached_property
    def retry(self) -> bytes | None:
        """What a worker is told of `retry_exceptions`: pickled types, b"" for all exceptions; None for none."""
        if not self.retry_exceptions:
            return None
        return b"" if self.retry_exceptions is True else cloudpickle.dumps(tuple(self.retry_exceptions))


@dataclass(frozen=True, kw_only=True)
class TaskOptions(_Options, _Outcome):
    """Options of a remote function: 1 CPU, one return value, three retries after a crash of its worker.

    Attributes:
        max_retries: how many times it may be run again; -1: without limit.
        max_calls: a worker ends after so many calls of the function; 0: never.
    """

    num_cpus: float = 1
    max_retries: int = 3
    max_calls: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_outcome()
        check_count("max_retries", self.max_retries, -1)
        check_count("max_calls", self.max_calls, 0)

    @cached_property
    def is_plain(self) -> bool:
        """Whether a call needs nothing that few calls need."""
        return self.num_returns != STREAMING and not self.retry_exceptions and not self.max_calls


@dataclass(frozen=True, kw_only=True)
class ActorOptions(_Options):
    """Options of an actor: it holds no CPU while it runs unless `num_cpus` says so, and is not restarted.

    Attributes:
        lineage: whether values that its methods returned are made again when they are lost, where `max_restarts` and
            `max_task_retries` allow it; False: what its calls were given need not be kept for that.
    """

    num_cpus: float = 0
    max_restarts: int = 0
    max_task_retries: int = 0
    max_concurrency: int | None = None
    concurrency_groups: Mapping[str, int] = field(default_factory=dict)
    max_pending_calls: int = -1
    namespace: str | None = None
    lifetime: str | None = None
    get_if_exists: bool = False
    checkpoint_every: int | None = None
    lineage: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("max_restarts", self.max_restarts, -1)
        check_count("max_task_retries", self.max_task_retries, -1)
        if self.max_concurrency is not None:
            check_count("max_concurrency", self.max_concurrency, 1)
        if not isinstance(self.concurrency_groups, Mapping):
            raise InputTypeError(f"concurrency_groups={self.concurrency_groups!r}: want {{name: calls at a time}}")
        for group, limit in self.concurrency_groups.items():
            check_name("concurrency_groups", group)
            check_count(f"concurrency_groups[{group!r}]", limit, 1)
        if self.checkpoint_every is not None:
            check_count("checkpoint_every", self.checkpoint_every, 0)
        check_count("max_pending_calls", self.max_pending_calls, -1)
        if self.max_pending_calls == 0:
            raise InputError("max_pending_calls=0: no call could ever be made; -1 means without limit")
        check_name("namespace", self.namespace)
        if self.lifetime not in {None, "detached", "non_detached"}:
            raise InputError(f"lifetime={self.lifetime!r}: want 'detached' or 'non_detached'")
        check_flag("get_if_exists", self.get_if_exists)
        check_flag("lineage", self.lineage)
        if self.get_if_exists and self.name is None:
            raise InputError("get_if_exists=True: which actor? Give its name=, too")

    def check_retries(self, methods: Iterable["MethodOptions"]) -> None:
        """Raise InputError if max_task_retries names a number of them and none can be made (-1: as many as can be)."""
        if self.max_task_retries > 0 and not self.max_restarts and not any(m.retry_exceptions for m in methods):
            raise InputError(
                f"max_task_retries={self.max_task_retries} has no effect with max_restarts=0: a call can be retried "
                "only on an actor that comes back, or after an exception. Set max_restarts, or give a method "
                "@method(retry_exceptions=…)"
            )

    @property
    def detached(self) -> bool:
        """Whether the actor outlives its handles and its creator."""
        return self.lifetime == "detached"


@dataclass(frozen=True, kw_only=True)
class MethodOptions(_Outcome):
    """Options of an actor's method; None: as the actor says."""

    concurrency_group: str | None = None
    max_task_retries: int | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        self._check_outcome()
        check_name("concurrency_group", self.concurrency_group)
        check_name("name", self.name)
        if self.max_task_retries is not None:
            check_count("max_task_retries", self.max_task_retries, -1)

    @cached_property
    def is_plain(self) -> bool:
        """Whether a call needs nothing that few calls need."""
        unnamed = self.name is None and self.concurrency_group is None
        return unnamed and self.num_returns != STREAMING and not self.retry_exceptions

    def check_checkpoints(self, method: str, checkpointed: bool) -> None:
        """Raise InputError if a call of an actor that comes back with its state can't be logged with these options."""
        if checkpointed and (self.num_returns == STREAMING or self.retry_exceptions):
            what = "num_returns='streaming'" if self.num_returns == STREAMING else "retry_exceptions"
            raise InputError(
                f"{method}: {what} does not go with __checkpoint__: each call of such an actor runs once, and returns "
                "all its values together. Return a list, or handle the exception in the method"
            )

    def check_group(self, method: str, groups: Collection[str] | None) -> None:
        """Raise InputError unless the actor has the concurrency group; None: which it has is not known."""
        if groups is not None and self.concurrency_group is not None and self.concurrency_group not in groups:
            known = nearest(self.concurrency_group, groups) or "The actor has none: @remote(concurrency_groups={…})"
            raise InputError(f"{method}: unknown concurrency_group {self.concurrency_group!r}. {known}")


def limits_of_groups(is_async: bool, max_concurrency: int | None, groups: Mapping[str, int]) -> dict[str, int]:
    """Return how many calls of an actor run at a time, by concurrency group; "": those of no other group."""
    return {"": max_concurrency or (_ASYNC_CONCURRENCY if is_async else 1), **groups}


DEFAULT_METHOD = MethodOptions()
GENERATOR_METHOD = MethodOptions(num_returns=STREAMING)
