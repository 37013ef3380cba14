"""The shape of a policy's network and its initial parameters; in numpy, so that drivers can check and lay them out.

A network is an encoder, two multilayer perceptrons side by side, one for the policy (`pi`) and one for the value
(`vf`), and a linear head. A parameter's name says where it belongs: `encoder.pi.0.weight`, `head.vf.bias`. Weights are
stored as [inputs, outputs], so that a layer is x @ weight + bias.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from ..envs import stream
from ..runtime import InputError, as_bool, as_int, as_number, in_plain_numbers, nearest

ACTIVATIONS = ("tanh", "relu")
POLICY_KWARGS = ("net_arch", "activation", "ortho_init", "log_std_init")


@dataclass(frozen=True)
class Architecture:
    """A network's resolved `policy_kwargs`; the defaults are Stable-Baselines3's for `MlpPolicy`."""

    pi: tuple[int, ...] = (64, 64)
    """Width of each hidden layer of the policy."""
    vf: tuple[int, ...] = (64, 64)
    """Width of each hidden layer of the value."""
    activation: str = "tanh"
    """After each hidden layer: "tanh" or "relu"."""
    ortho_init: bool = True
    """Orthogonal initial weights (hidden √2, policy 0.01, value 1) and zero biases; else uniform in ±1/√inputs."""
    log_std_init: float = 0.0
    """Initial log standard deviation of Gaussian actions."""

    @staticmethod
    def from_policy_kwargs(policy_kwargs: Mapping[str, Any] | None) -> Architecture:
        """Check `policy_kwargs` and fill in defaults; InputError names the entry, its value and what is allowed."""
        given = dict(policy_kwargs or {})
        for name in given:
            if name not in POLICY_KWARGS:
                raise InputError(f"policy_kwargs has no entry {name!r}. {nearest(name, POLICY_KWARGS)}")
        pi, vf = _branches(given.get("net_arch", (64, 64)))
        activation = given.get("activation", "tanh")
        if activation not in ACTIVATIONS:
            raise InputError(
                f"policy_kwargs['activation'] is {activation!r}, but must be one of {', '.join(map(repr, ACTIVATIONS))}"
            )
        ortho_init = as_bool(given.get("ortho_init", True))
        if ortho_init is None:
            raise InputError(f"policy_kwargs['ortho_init'] is {given['ortho_init']!r}, but must be True or False")
        log_std_init = as_number(given.get("log_std_init", 0.0))
        if log_std_init is None or not math.isfinite(log_std_init):
            raise InputError(f"policy_kwargs['log_std_init'] is {given['log_std_init']!r}, but must be a number")
        return Architecture(pi, vf, activation, ortho_init, float(log_std_init))


def _branches(net_arch: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Hidden widths of policy and value from a list (both the same) or a dict with `pi` and `vf`."""
    if isinstance(net_arch, Mapping):
        if set(net_arch) != {"pi", "vf"}:
            raise InputError(
                f"policy_kwargs['net_arch'] has the keys {sorted(map(str, net_arch))}, "
                "but must have exactly 'pi' and 'vf'"
            )
        return _widths(net_arch["pi"]), _widths(net_arch["vf"])
    return _widths(net_arch), _widths(net_arch)


def _widths(layers: Any) -> tuple[int, ...]:
    given = in_plain_numbers(layers)
    given = [given] if isinstance(given, int) else given
    widths = [as_int(width) for width in given] if isinstance(given, list | tuple) else [None]
    if not all(width is not None and width >= 1 for width in widths):
        raise InputError(
            f"policy_kwargs['net_arch'] holds {layers!r}, but must be a list of layer widths of at least 1, "
            "such as [64, 64]"
        )
    return tuple(width for width in widths if width is not None)


def row_size(space: spaces.Space) -> int:
    """Numbers in the row that stands for one element of `space`: a Box flattened, a Discrete one-hot, a MultiDiscrete
    as one-hots side by side, a MultiBinary as zeros and ones. Also the number of outputs that describe a distribution
    over `space`."""
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(np.sum(space.nvec))
    return int(np.prod(space.shape or ()))


class ParameterLayout:
    """Where each named parameter lies in the one flat array: in the order of `shapes`, without gaps."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = dict(shapes)
        self.offsets: dict[str, int] = {}
        self.size = 0
        for name, shape in self.shapes.items():
            self.offsets[name] = self.size
            self.size += math.prod(shape)

    def views(self, flat: Any) -> dict[str, Any]:
        """Each parameter as a view into `flat`, which is a numpy array or a torch tensor of shape [size]."""
        if tuple(flat.shape) != (self.size,):
            raise ValueError(
                f"the flat weights have shape {tuple(flat.shape)}, but this network has {self.size} parameters: "
                f"({self.size},)"
            )
        return {
            name: flat[self.offsets[name] : self.offsets[name] + math.prod(shape)].reshape(shape)
            for name, shape in self.shapes.items()
        }

    def flatten(self, named: Mapping[str, np.ndarray]) -> np.ndarray:
        """The flat float32 array that holds the parameters `named`. Raises ValueError naming what is missing, unknown
        or misshapen."""
        shapes = {name: tuple(array.shape) for name, array in named.items()}
        wrong = sorted(name for name in shapes.keys() | self.shapes.keys() if shapes.get(name) != self.shapes.get(name))
        if wrong:
            details = ", ".join(f"{name}: got {shapes.get(name)}, need {self.shapes.get(name)}" for name in wrong)
            raise ValueError(f"these parameters do not fit the network: {details}")
        return np.concatenate([np.asarray(named[name], dtype=np.float32).ravel() for name in self.shapes])

    def sha256(self, flat: np.ndarray) -> str:
        """SHA-256 over the parameters as little-endian float32, in the order of their names."""
        views = self.views(flat)
        digest = hashlib.sha256()
        for name in sorted(views):
            digest.update(np.ascontiguousarray(views[name], dtype="<f4").tobytes())
        return digest.hexdigest()


def parameter_layout(
    observation_space: spaces.Space, action_space: spaces.Space, architecture: Architecture
) -> ParameterLayout:
    """The parameters of a network between these spaces."""
    shapes: dict[str, tuple[int, ...]] = {}
    for branch, widths, outputs in (("pi", architecture.pi, row_size(action_space)), ("vf", architecture.vf, 1)):
        sizes = [row_size(observation_space), *widths]
        for i, (inputs, width) in enumerate(zip(sizes, widths, strict=False)):
            shapes[f"encoder.{branch}.{i}.weight"] = (inputs, width)
            shapes[f"encoder.{branch}.{i}.bias"] = (width,)
        shapes[f"head.{branch}.weight"] = (sizes[-1], outputs)
        shapes[f"head.{branch}.bias"] = (outputs,)
    if isinstance(action_space, spaces.Box):
        shapes["head.log_std"] = (row_size(action_space),)
    return ParameterLayout(shapes)


def initial_weights(layout: ParameterLayout, architecture: Architecture, seed: int) -> np.ndarray:
    """Initial flat float32 weights, drawn in the order of the layout from the stream (`seed`, "init")."""
    generator = stream(seed, "init")
    gains = {"head.pi.weight": 0.01, "head.vf.weight": 1.0}
    named = {}
    for name, shape in layout.shapes.items():
        if name == "head.log_std":
            named[name] = np.full(shape, architecture.log_std_init)
        elif not architecture.ortho_init:
            inputs = layout.shapes[name.removesuffix("bias").removesuffix("weight") + "weight"][0]
            named[name] = generator.uniform(-1 / math.sqrt(inputs), 1 / math.sqrt(inputs), shape)
        elif name.endswith(".bias"):
            named[name] = np.zeros(shape)
        else:
            named[name] = gains.get(name, math.sqrt(2)) * _orthogonal(generator, shape)
    return layout.flatten({name: np.asarray(array, dtype=np.float32) for name, array in named.items()})


def _orthogonal(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A uniformly distributed matrix with orthonormal rows or columns: QR of a normal one, signs from R's diagonal."""
    rows, columns = shape
    q, r = np.linalg.qr(generator.standard_normal((max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diag(r))
    return q if rows >= columns else q.T
