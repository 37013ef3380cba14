"""What `policy_kwargs` may say about each kind of network, checked without torch, so before anything is started."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from gymnasium import spaces

from ...runtime import InputError, as_bool, as_int, as_number, in_plain_numbers, nearest

ACTIVATIONS = ("tanh", "relu")


@dataclass(frozen=True, kw_only=True)
class ActorCriticArchitecture:
    """A policy and a value network side by side; the defaults are Stable-Baselines3's for `MlpPolicy`."""

    net_arch: tuple[tuple[int, ...], tuple[int, ...]] = ((64, 64), (64, 64))
    """Width of each hidden layer: of the policy, of the value."""
    activation: str = "tanh"
    """After each hidden layer: "tanh" or "relu"."""
    ortho_init: bool = True
    """Orthogonal initial weights (hidden √2, policy 0.01, value 1) and zero biases; else uniform in ±1/√inputs."""
    log_std_init: float = 0.0
    """Initial log standard deviation of Gaussian actions."""


@dataclass(frozen=True, kw_only=True)
class QNetworkArchitecture:
    """One value per action; the defaults are Stable-Baselines3's for DQN's `MlpPolicy`."""

    net_arch: tuple[int, ...] = (64, 64)
    """Width of each hidden layer."""
    activation: str = "relu"
    """After each hidden layer: "tanh" or "relu"."""
    dueling: bool = False
    """Whether value and advantages are separate outputs (Wang et al., 2016, arXiv 1511.06581)."""


@dataclass(frozen=True, kw_only=True)
class ActorQArchitecture:
    """A policy and critics of its actions; the defaults are Stable-Baselines3's for SAC's `MlpPolicy`."""

    net_arch: tuple[tuple[int, ...], tuple[int, ...]] = ((256, 256), (256, 256))
    """Width of each hidden layer: of the policy, of each critic."""
    activation: str = "relu"
    """After each hidden layer: "tanh" or "relu"."""
    n_critics: int = 2
    """Critics, of which the smallest value counts."""


ARCHITECTURES: dict[str, type[Any]] = {
    "actor_critic": ActorCriticArchitecture,
    "q_network": QNetworkArchitecture,
    "gaussian_actor_q": ActorQArchitecture,
    "categorical_actor_q": ActorQArchitecture,
    "deterministic_actor_q": ActorQArchitecture,
}
"""Kind of model → what can be chosen of it."""

_BRANCHES = {ActorCriticArchitecture: ("pi", "vf"), ActorQArchitecture: ("pi", "qf")}
"""Architectures of two networks, and what `net_arch` calls them."""


def read_architecture(kind: str, policy_kwargs: Mapping[str, Any]) -> Any:
    """The architecture of a kind of model with `policy_kwargs`; InputError names the entry, its value and what is
    allowed."""
    chosen = ARCHITECTURES[kind]
    known = [item.name for item in fields(chosen)]
    values = {}
    for name, value in policy_kwargs.items():
        if name not in known:
            raise InputError(f"policy_kwargs has no entry {name!r}. {nearest(name, known)}")
        what = f"policy_kwargs[{name!r}]"
        if name == "net_arch" and chosen in _BRANCHES:
            values[name] = _branches(what, value, _BRANCHES[chosen])
        else:
            values[name] = _READERS[name](what, value)
    return chosen(**values)


def row_size(space: spaces.Space) -> int:
    """Numbers in the row that stands for one element of `space`: a Box flattened, a Discrete one-hot, a MultiDiscrete
    as one-hots side by side, a MultiBinary as zeros and ones. Also the number of outputs that describe a distribution
    over `space`."""
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(np.sum(space.nvec))
    return int(np.prod(space.shape or ()))


def _branches(what: str, net_arch: Any, names: tuple[str, str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Hidden widths of two networks from a list (both the same) or a dict with their names."""
    if not isinstance(net_arch, Mapping):
        return _widths(what, net_arch), _widths(what, net_arch)
    if set(net_arch) != set(names):
        wanted = " and ".join(map(repr, names))
        raise InputError(f"{what} has the keys {sorted(map(str, net_arch))}, but must have exactly {wanted}")
    return _widths(what, net_arch[names[0]]), _widths(what, net_arch[names[1]])


def _widths(what: str, layers: Any) -> tuple[int, ...]:
    given = in_plain_numbers(layers)
    given = [given] if isinstance(given, int) else given
    widths = [as_int(width) for width in given] if isinstance(given, list | tuple) else [None]
    if not all(width is not None and width >= 1 for width in widths):
        raise InputError(f"{what} holds {layers!r}, but must be a list of layer widths of at least 1, such as [64, 64]")
    return tuple(width for width in widths if width is not None)


def _activation(what: str, value: Any) -> str:
    if value not in ACTIVATIONS:
        raise InputError(f"{what} is {value!r}, but must be one of {', '.join(map(repr, ACTIVATIONS))}")
    return str(value)


def _flag(what: str, value: Any) -> bool:
    flag = as_bool(value)
    if flag is None:
        raise InputError(f"{what} is {value!r}, but must be True or False")
    return flag


def _number(what: str, value: Any) -> float:
    number = as_number(value)
    if number is None or not math.isfinite(number):
        raise InputError(f"{what} is {value!r}, but must be a number")
    return float(number)


def _count(what: str, value: Any) -> int:
    count = as_int(value)
    if count is None or count < 1:
        raise InputError(f"{what} is {value!r}, but must be a whole number of at least 1")
    return count


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "net_arch": _widths,
    "activation": _activation,
    "ortho_init": _flag,
    "log_std_init": _number,
    "dueling": _flag,
    "n_critics": _count,
}
