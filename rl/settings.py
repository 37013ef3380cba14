"""Settings: numbers with bounds, and the run settings that all algorithms share.

A config is a frozen dataclass; a field made with `number(...)` carries its bounds and perhaps a default that follows
from other settings. `validate` checks them all and names the setting, the value seen and the values allowed. The string
under each field is its help text.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..runtime import InputError, TeachesNames, as_bool, as_number, in_plain_numbers, nearest
from .agent_settings import AgentSettings
from .chaos import NONE, Chaos, check_chaos
from .elsewhere import CONFIG, attributes, value_instead
from .learner_settings import LearnerSettings
from .models.architecture import plain_kwargs
from .schedules import rate_start

FREE = ("workers", "learners", "device", "check", "step_timeout", "listen", "chaos", "record")
"""Run settings that a training which goes on may change: they have no influence on its result, but the device, which it
began on, may not be there any more."""


_AUTO_ACTION_BYTES = 8


@dataclass(frozen=True)
class Bounds:
    """What values a setting may take. Limits that are None do not bind."""

    whole: bool = False
    """Whether only integers are allowed."""
    rate: bool = False
    """Whether schedules are allowed; the limits hold for the value they start from."""
    optional: bool = False
    """Whether None is allowed."""
    words: tuple[str, ...] = ()
    """Words that are allowed in place of a number, such as "auto"."""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None

    def describe(self) -> str:
        """The allowed values in words, for example "a number of at least 0 and at most 1"."""
        limits = {"of at least": self.at_least, "above": self.above, "of at most": self.at_most}
        words = " and ".join(
            f"{word} {limit:,}" if isinstance(limit, int) else f"{word} {limit:g}"
            for word, limit in limits.items()
            if limit is not None
        )
        kind = "a whole number" if self.whole else "a number"
        also = (" (or a schedule such as 'lin_0.001')" if self.rate else "") + (" or none" if self.optional else "")
        also += "".join(f" or {word!r}" for word in self.words)
        return f"{kind} {words}".replace(" and of ", " and ").rstrip() + also

    def read(self, name: str, value: Any) -> Any:
        """Return `value` for setting `name`, a number of whatever library as Python's own; a float that is whole counts
        as a whole number. Raise InputError if it is not allowed."""
        if (
            (self.rate and callable(value))
            or (self.optional and value is None)
            or (isinstance(value, str) and value in self.words)
        ):
            return value
        number = as_number(value)
        if self.whole and isinstance(number, float) and number.is_integer():
            number = int(number)
        if not self._hold(rate_start(name, value) if self.rate and isinstance(value, str) else number):
            raise InputError(f"{name} is {value!r}, but must be {self.describe()}{value_instead(name, value)}")
        return value if number is None else number

    def _hold(self, number: float | None) -> bool:
        if number is None or not math.isfinite(number) or (self.whole and not isinstance(number, int)):
            return False
        low = (self.at_least is None or number >= self.at_least) and (self.above is None or number > self.above)
        return low and (self.at_most is None or number <= self.at_most)


@dataclass(frozen=True)
class Derived:
    """A default that follows from the run settings, such as a length that several environments share."""

    alone: Any
    """The value in a config that is made by itself."""
    words: str
    """The rule, as the help shows it."""
    rule: Callable[[RunSettings], Any]
    """The value for these run settings."""


def shared_by_environments(total: int) -> Derived:
    """The default of a count for each environment which is `total` for all together, whatever their number."""
    return Derived(total, f"{total} / n_envs", lambda run: max(1, total // run.n_envs))


def one_per_environment() -> Derived:
    """The default of a count that is 1 for each environment, so that more of them are learned from as much as one."""
    return Derived(1, "n_envs", lambda run: run.n_envs)


def derived_defaults(config_class: type, given: Iterable[str], run: RunSettings) -> dict[str, Any]:
    """The values, by name, of those fields whose default is `Derived` and which are not among the `given`."""
    rules = {item.name: item.metadata["derived"] for item in fields(config_class) if "derived" in item.metadata}
    return {name: derived.rule(run) for name, derived in rules.items() if name not in given}


def number(default: Any, **bounds: Any) -> Any:
    """A dataclass field with `Bounds(**bounds)`; its default is a value, or `Derived`."""
    metadata: dict[str, Any] = {"bounds": Bounds(**bounds)}
    if isinstance(default, Derived):
        return field(default=default.alone, metadata=metadata | {"derived": default})
    return field(default=default, metadata=metadata)


def choice(default: str, *choices: str) -> Any:
    """A dataclass field that takes one of `choices`."""
    return field(default=default, metadata={"choices": choices})


def validate(config: Any) -> None:
    """Check every field of the frozen dataclass instance `config`; put Python's numbers in the place of numpy's.

    InputError names the first field that is outside its bounds or choices."""
    for item in fields(config):
        object.__setattr__(config, item.name, _read_field(item, getattr(config, item.name)))


def _read_field(item: Field[Any], value: Any) -> Any:
    bounds, choices = item.metadata.get("bounds"), item.metadata.get("choices")
    if bounds:
        return bounds.read(item.name, value)
    if choices and value not in choices:
        raise InputError(
            f"{item.name} is {value!r}, but must be one of {', '.join(map(repr, choices))}. "
            f"{nearest(str(value), choices)}"
        )
    if isinstance(item.default, bool):
        switch = as_bool(value)
        if switch is None:
            raise InputError(f"{item.name} is {value!r}, but must be True or False")
        return switch
    return in_plain_numbers(value)


class Hyperparameters(TeachesNames):
    """Base of a frozen dataclass of hyperparameters, which checks its fields: see `validate`."""

    names_elsewhere = attributes(CONFIG)

    def __post_init__(self) -> None:
        validate(self)


def default_group_size(n_envs: int) -> int:
    """Environments per simulation group when the user names none: a function of `n_envs` alone.

    The largest divisor of `n_envs` up to half of it, but not above 8 (above an eighth of it, from 64 environments on):
    at least two groups, so that two workers share the work; and not many more, since inference of few rows costs as
    much as of many.
    """
    limit = max(1, min(n_envs // 2, max(8, n_envs // 8)))
    return next(size for size in range(limit, 0, -1) if n_envs % size == 0)


@dataclass(frozen=True, kw_only=True)
class RunSettings(AgentSettings, LearnerSettings):
    """What all algorithms share: how much simulation, where, and from which seed. Raises InputError on values that
    cannot work."""

    workers: int = number(1, whole=True, at_least=1)
    """Rollout workers (processes) that step environments; has no influence on the result."""
    n_envs: int = number(8, whole=True, at_least=1, at_most=1_000_000)
    """Environments in total, over all workers."""
    group_size: int | None = number(
        Derived(
            None,
            "about half of n_envs, at most 8, or an eighth of n_envs if that is more",
            lambda run: default_group_size(run.n_envs),
        ),
        whole=True, at_least=1, optional=True,
    )  # fmt: skip
    """Environments per simulation group, the unit of work: one worker steps them together, and one forward pass acts
    for them. Must divide n_envs."""
    seed: int = number(0, whole=True, at_least=0)
    """Every random number of the run derives from it."""
    threads: int = number(1, whole=True, at_least=1, at_most=1024)
    """Threads per process for numerical libraries; is part of what decides the result's bits."""
    check: str = choice("error", "error", "warn")
    """What follows when an observation lies outside the bounds of its space: error, or warn: it is said once, and the
    training goes on with it (what is not finite or of a wrong kind is an error always)."""
    step_timeout: float | None = number(None, above=0, optional=True)
    """Seconds after which a step, a reset or a constructor of an environment that has not returned ends the training,
    with a script that repeats it. Default: no limit; after 30 s a line says which environment it is."""
    normalize: str = field(default="none", metadata={"metavar": "WHAT"})
    """What is shifted and scaled by running statistics before it is learned from: obs (observations to mean 0 and
    standard deviation 1, but images), reward (rewards, divided by the deviation of their discounted sums), obs,reward,
    or none. Statistics are part of the policy; results count the rewards as they are."""
    eval_freq: int | None = number(None, whole=True, at_least=1, optional=True)
    """Environment steps between two evaluations of the policy, by a process of its own beside the training. What each
    finds is told, and stops the training where it shall, when the next one begins. Default: none."""
    eval_episodes: int = number(10, whole=True, at_least=1)
    """Episodes of each evaluation, with the best actions, in environments and from seeds that training never sees."""
    eval_stop_return: float | None = number(None, optional=True)
    """Stop when an evaluation's mean return is at least this; needs eval_freq."""
    eval_patience: int | None = number(None, whole=True, at_least=1, optional=True)
    """Stop after this many evaluations in a row of which none was better than the best before them; needs eval_freq."""
    vectorization: str = choice("sync", "sync", "entry_point", "envpool", "ale")
    """What steps the environments of a group: sync, copies one by one; entry_point, the vector version that gymnasium
    has of it; envpool or ale, those libraries (see the extras)."""
    record: str = choice("auto", "auto", "all", "hashes", "none")
    """What a run notes down to be followed by: hashes of each iteration, for `shoal verify` and `shoal diff`; with all,
    also the actions of each episode, for `shoal replay`; with auto those where a step's take at most 8 bytes; or none.
    Has no influence on the result."""
    chaos: str = field(default=NONE, metadata={"metavar": "WHAT"})
    """Processes that are killed on purpose, to see that it changes nothing: with kill_worker=0.05,seed=1 each rollout
    worker (of a language model, each generator) dies in an iteration with that probability; likewise kill_learner.
    Has no influence on the result."""
    listen: str | None = field(default=None, metadata={"metavar": "HOST:PORT"})
    """Learn from simulators that own their loop and connect here, by gRPC, instead of stepping environments; ENV says
    which spaces they have (External has nothing else). Default: none do."""
    initial: str = field(default="", metadata={"metavar": "FOLDER"})
    """Begin with the weights of this run, checkpoint or saved policy, whose network must be the same; a language model
    takes over network and tokenizer, too, also of a folder of the library transformers. Default: random weights."""
    policy_kwargs: Mapping[str, Any] = field(default_factory=dict, metadata={"example": '{"net_arch": [64, 64]}'})
    """Network: encoder (auto, flat, nature_cnn, impala_cnn, or package.module:Class of your own) and encoder_kwargs;
    with ppo, a2c, impala and appo memory (none, lstm, gru, transformer, or a class of your own), memory_kwargs and
    sequence_length; net_arch (list, or dict with pi and vf), activation (tanh or relu), ortho_init, log_std_init."""

    def __post_init__(self) -> None:
        if self.step_timeout == math.inf:
            object.__setattr__(self, "step_timeout", None)
        validate(self)
        self.read_agents()
        self.read_learners()
        object.__setattr__(self, "initial", read_initial(self.initial))
        object.__setattr__(self, "normalize", _read_normalize(self.normalize))
        object.__setattr__(self, "chaos", str(Chaos.read(self.chaos)))
        if not isinstance(self.policy_kwargs, Mapping):
            raise InputError(
                f"policy_kwargs is {self.policy_kwargs!r}, but must be a dict, such as {{'net_arch': [64, 64]}}"
            )
        object.__setattr__(self, "policy_kwargs", plain_kwargs(self.policy_kwargs))
        for name in ("eval_stop_return", "eval_patience"):
            if getattr(self, name) is not None and self.eval_freq is None:
                raise InputError(f"{name} is {getattr(self, name)!r}, but nothing is evaluated: give eval_freq, too")
        given = [name for name, value in vars(self).items() if value is not None]
        for name, value in derived_defaults(RunSettings, given, self).items():
            object.__setattr__(self, name, value)
        if self.vectorization != "sync" and self.step_timeout is not None:
            raise InputError(
                f"step_timeout is {self.step_timeout}, but vectorization is {self.vectorization!r}: steps of many "
                "environments in another library cannot be interrupted. Choose vectorization 'sync', or no limit"
            )
        if self.n_envs % self.environments_per_group:
            raise InputError(
                f"n_envs is {self.n_envs}, which is not a multiple of group_size {self.group_size}. "
                f"Choose a group_size that divides it, or leave it to its default ({default_group_size(self.n_envs)})"
            )

    def check_engine(self, engine: str | None) -> None:
        """Raise InputError if a runtime's engine cannot do what is wanted."""
        super().check_engine(engine)
        check_chaos(self.chaos, engine)

    @property
    def normalizes_observations(self) -> bool:
        """Whether `normalize` holds obs."""
        return "obs" in self.normalize

    @property
    def normalizes_rewards(self) -> bool:
        """Whether `normalize` holds reward."""
        return "reward" in self.normalize

    @property
    def records_hashes(self) -> bool:
        """Whether `record` is not none."""
        return self.record != "none"

    @property
    def recorded_action_bytes(self) -> int:
        """Most bytes of a step's action that are recorded of each episode."""
        return {"auto": _AUTO_ACTION_BYTES, "all": sys.maxsize}.get(self.record, 0)

    @property
    def environments_per_group(self) -> int:
        """`group_size`, resolved."""
        assert self.group_size is not None
        return self.group_size

    @property
    def groups(self) -> int:
        """Number of simulation groups; group g is simulated by worker g % workers."""
        return self.n_envs // self.environments_per_group


def read_initial(given: Any) -> str:
    """The folder that `initial` names; "" for none. InputError if it is no path."""
    if given is not None and not isinstance(given, str | Path):
        raise InputError(
            f"initial is {given!r:.80}, but must be the folder of a run, checkpoint or saved policy: save(FOLDER) "
            "writes one"
        )
    return str(given or "")


def _read_normalize(given: Any) -> str:
    """The words in their order, separated by commas; they may be given as such a text or one by one."""
    words = given.split(",") if isinstance(given, str) else list(given) if isinstance(given, Iterable) else [given]
    words = [word.strip() if isinstance(word, str) else word for word in words]
    known = ("obs", "reward")
    if words in ([], [""], ["none"]):
        return "none"
    for word in words:
        if word not in known:
            raise InputError(
                f"normalize is {given!r}, but must be obs, reward, obs,reward or none. "
                f"{nearest(str(word), (*known, 'none'))}"
            )
    return ",".join(word for word in known if word in words)


def hyperparameters_to_json(config: Any) -> dict[str, Any]:
    """The fields of a config as JSON holds them; a function by its name."""

    def plain(value: Any) -> Any:
        return {"function": getattr(value, "__qualname__", repr(value))} if callable(value) else value

    return {name: plain(value) for name, value in asdict(config).items()}
