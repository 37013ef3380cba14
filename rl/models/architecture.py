"""What `policy_kwargs` may say about each kind of network, checked without torch, so before anything is started."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ...runtime import InputError, as_bool, as_int, as_number, in_plain_numbers, nearest
from ..elsewhere import network_instead

ACTIVATIONS = ("tanh", "relu")
CONVOLUTIONS = ("nature_cnn", "impala_cnn")
SMALLEST = {"nature_cnn": 36, "impala_cnn": 8}
"""Height and width of the smallest images that each takes."""
ENCODERS = ("auto", "flat", *CONVOLUTIONS)
MEMORIES = ("none", "lstm", "gru", "transformer")
LORA_TARGETS = ("qkv", "out", "gate_up", "down")
"""Layers of a block of a language model."""


@dataclass(frozen=True, kw_only=True)
class EncoderChoice:
    """What comes first: from observations to features."""

    encoder: str = "auto"
    """"auto" (for images nature_cnn, or impala_cnn below 36 × 36; flat for the rest), "flat", "nature_cnn",
    "impala_cnn", or an nn.Module of yours as "package.module:Class"."""
    encoder_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Its arguments: of the convolutional ones `features` and `channels`."""


@dataclass(frozen=True, kw_only=True)
class MemoryChoice:
    """What comes next: what is kept of earlier steps of the episode."""

    memory: str = "none"
    """"none", "lstm", "gru", "transformer", or a `Memory` of yours as "package.module:Class"."""
    memory_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Its arguments, such as `units` or `window`."""
    sequence_length: int = 16
    """Steps that a memory is unrolled over when it learns; gradients go no further back."""


@dataclass(frozen=True, kw_only=True)
class ActorCriticArchitecture(EncoderChoice, MemoryChoice):
    """A policy and a value network side by side; the defaults are Stable-Baselines3's for `MlpPolicy`."""

    net_arch: tuple[tuple[int, ...], tuple[int, ...]] = ((64, 64), (64, 64))
    """Width of each hidden layer: of the policy, of the value. After a convolutional encoder: none by default."""
    activation: str = "tanh"
    """After each hidden layer: "tanh" or "relu"."""
    ortho_init: bool = True
    """Orthogonal initial weights (hidden √2, policy 0.01, value 1) and zero biases; else uniform in ±1/√inputs."""
    log_std_init: float = 0.0
    """Initial log standard deviation of Gaussian actions."""


@dataclass(frozen=True, kw_only=True)
class ActorArchitecture(EncoderChoice):
    """A policy alone; the defaults are those of the actor beside a critic."""

    net_arch: tuple[int, ...] = (64, 64)
    """Width of each hidden layer; none: the policy is linear."""
    activation: str = "tanh"
    """After each hidden layer: "tanh" or "relu"."""
    ortho_init: bool = True
    """Orthogonal initial weights (hidden √2, last 0.01) and zero biases; else uniform in ±1/√inputs."""


@dataclass(frozen=True, kw_only=True)
class QNetworkArchitecture(EncoderChoice):
    """One value per action; the defaults are Stable-Baselines3's for DQN's `MlpPolicy`."""

    net_arch: tuple[int, ...] = (64, 64)
    """Width of each hidden layer."""
    activation: str = "relu"
    """After each hidden layer: "tanh" or "relu"."""
    dueling: bool = False
    """Whether value and advantages are separate outputs (Wang et al., 2016, arXiv 1511.06581)."""


@dataclass(frozen=True, kw_only=True)
class QuantileQNetworkArchitecture(QNetworkArchitecture):
    """Quantiles of the return for each action; the defaults are sb3-contrib's for QR-DQN's `MlpPolicy`."""

    n_quantiles: int = 200
    """Quantiles that stand for the distribution of returns (N)."""


@dataclass(frozen=True, kw_only=True)
class ActorQArchitecture(EncoderChoice):
    """A policy and critics of its actions; the defaults are Stable-Baselines3's for SAC's `MlpPolicy`."""

    net_arch: tuple[tuple[int, ...], tuple[int, ...]] = ((256, 256), (256, 256))
    """Width of each hidden layer: of the policy, of each critic."""
    activation: str = "relu"
    """After each hidden layer: "tanh" or "relu"."""
    n_critics: int = 2
    """Critics, of which the smallest value counts."""


@dataclass(frozen=True, kw_only=True)
class LanguageArchitecture:
    """A decoder-only transformer between texts; the names are those of `transformers`' Llama where it has them."""

    tokenizer: str = "bytes"
    """How texts become tokens: "bytes", "characters" (those of the environment's two spaces), or a `tokenizers` file,
    by its path, or as the JSON that is in it."""
    layers: int = 2
    """Blocks of attention and feed-forward network."""
    width: int = 64
    """Numbers that stand for a token between them."""
    heads: int = 4
    """Heads of attention; they divide the width, into an even number each."""
    kv_heads: int = 0
    """Heads of keys and values, each for as many heads of queries; they divide `heads`. 0: as many."""
    hidden: int = 0
    """Width inside the feed-forward network. 0: 8 / 3 of the width, rounded up to a multiple of 16."""
    context: int = 256
    """Tokens of an episode, prompt and answers of all turns, at most."""
    lora: Mapping[str, Any] = field(default_factory=dict)
    """Low-rank adaptation: what was there stays, and matrices of `rank` (8) are learned that are added, scaled by
    `alpha` (16) / rank, to the layers named by `targets` (all of a block). None of it by default."""
    value_head: bool = False
    """Whether it says, beside the next token, what the return will be: what an algorithm with a critic sets itself."""
    transformers: str = ""
    """The config.json of a model of the library `transformers`, in the place of the fields above but `context`,
    `tokenizer` and `lora`: what `initial` makes of such a model's folder."""

    def __post_init__(self) -> None:
        if self.transformers:
            return
        for target in self.lora.get("targets", ()):
            if target not in LORA_TARGETS:
                raise InputError(
                    f"policy_kwargs['lora']['targets'] holds {target!r}, but must be of {', '.join(LORA_TARGETS)}"
                )
        if self.lora and not self.lora["targets"]:
            object.__setattr__(self, "lora", {**self.lora, "targets": list(LORA_TARGETS)})
        if self.width % (2 * self.heads):
            raise InputError(
                f"policy_kwargs['width'] is {self.width}, but must be a multiple of 2 · heads = {2 * self.heads}"
            )
        if self.kv_heads and self.heads % self.kv_heads:
            raise InputError(f"policy_kwargs['kv_heads'] is {self.kv_heads}, but must divide heads = {self.heads}")


ARCHITECTURES: dict[str, type[Any]] = {
    "actor_critic": ActorCriticArchitecture,
    "central_actor_critic": ActorCriticArchitecture,
    "actor": ActorArchitecture,
    "q_network": QNetworkArchitecture,
    "quantile_q_network": QuantileQNetworkArchitecture,
    "gaussian_actor_q": ActorQArchitecture,
    "categorical_actor_q": ActorQArchitecture,
    "deterministic_actor_q": ActorQArchitecture,
    "gaussian_actor_qv": ActorQArchitecture,
    "categorical_actor_qv": ActorQArchitecture,
    "language_model": LanguageArchitecture,
}
"""Kind of model → what can be chosen of it."""


def image_encoder(encoder: str, shape: tuple[int, ...]) -> str:
    """What "auto" means for images of a shape: the largest of the networks that they are large enough for."""
    if encoder != "auto":
        return encoder
    (_, height, width), _ = image_shape(shape)
    return next((name for name, size in SMALLEST.items() if min(height, width) >= size), "flat")


def image_shape(shape: tuple[int, ...]) -> tuple[tuple[int, int, int], bool]:
    """(C, H, W) of images of a shape, and whether their last axis is that of the channels: it is the smallest one.

    Of four axes the first is a stack of images, whose channels count together.
    """
    stacked, (first, middle, last) = math.prod(shape[:-3]), shape[-3:]
    if last < first and last <= middle:
        return (stacked * last, first, middle), True
    return (stacked * first, middle, last), False


_BRANCHES = {ActorCriticArchitecture: ("pi", "vf"), ActorQArchitecture: ("pi", "qf")}
"""Architectures of two networks, and what `net_arch` calls them."""


def plain_kwargs(policy_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """`policy_kwargs` as JSON can hold them: numbers as Python's own, classes by their import paths, torch's
    activations by their names."""
    plain = in_plain_numbers(dict(policy_kwargs))
    for name, value in plain.items():
        if isinstance(value, type):
            path = f"{value.__module__}:{value.__qualname__}"
            plain[name] = value.__name__.lower() if name == "activation" else path
    return plain


def read_architecture(kind: str, policy_kwargs: Mapping[str, Any]) -> Any:
    """The architecture of a kind of model with `policy_kwargs`; InputError names the entry, its value and what is
    allowed."""
    chosen = ARCHITECTURES[kind]
    known = [item.name for item in fields(chosen)]
    values = {}
    for name, value in policy_kwargs.items():
        if name not in known:
            raise InputError(f"policy_kwargs has no entry {name!r}. {network_instead(name, known)}")
        what = f"policy_kwargs[{name!r}]"
        if name == "net_arch" and chosen in _BRANCHES:
            values[name] = _branches(what, value, _BRANCHES[chosen])
        else:
            values[name] = _READERS[name](what, value)
    return chosen(**values)


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


def _module(names: tuple[str, ...]) -> Callable[[str, Any], str]:
    """Reads a name of `names`, or the path of a class."""

    def read(what: str, value: Any) -> str:
        text = "none" if value is None and "none" in names else value
        if not isinstance(text, str):
            raise InputError(f"{what} is {value!r}, but must be a name, a class or 'package.module:Class'")
        module, colon, class_name = text.partition(":")
        dotted = all(part.isidentifier() for part in (*module.split("."), class_name))
        if text not in names and not (colon and dotted):
            raise InputError(
                f"{what} is {value!r}, but must be one of {', '.join(map(repr, names))}, or the path of a class of "
                f"yours: 'package.module:Class'. {nearest(text, names)}"
            )
        return text

    return read


def _options(what: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise InputError(f"{what} is {value!r}, but must be a dict of arguments by name")
    return dict(value)


def _activation(what: str, value: Any) -> str:
    if value not in ACTIVATIONS:
        raise InputError(f"{what} is {value!r}, but must be one of {', '.join(map(repr, ACTIVATIONS))}")
    return str(value)


def _text(what: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise InputError(f"{what} is {value!r}, but must be a text")
    return value


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


def _lora(what: str, value: Any) -> dict[str, Any]:
    """Rank, alpha and targets; nothing if there is to be none."""
    if not value:
        return {}
    given = _options(what, value)
    for name in given:
        if name not in ("rank", "alpha", "targets"):
            raise InputError(f"{what} has no entry {name!r}. {nearest(name, ('rank', 'alpha', 'targets'))}")
    alpha = _number(f"{what}['alpha']", given.get("alpha", 16))
    if alpha <= 0:
        raise InputError(f"{what}['alpha'] is {alpha!r}, but must be above 0")
    targets = given.get("targets", [])
    if isinstance(targets, str) or not all(isinstance(target, str) for target in targets):
        raise InputError(f"{what}['targets'] is {targets!r}, but must be a list of layers' names")
    return {"rank": _count(f"{what}['rank']", given.get("rank", 8)), "alpha": alpha, "targets": list(targets)}


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "encoder": _module(ENCODERS),
    "encoder_kwargs": _options,
    "memory": _module(MEMORIES),
    "memory_kwargs": _options,
    "sequence_length": _count,
    "net_arch": _widths,
    "activation": _activation,
    "ortho_init": _flag,
    "log_std_init": _number,
    "dueling": _flag,
    "n_critics": _count,
    "n_quantiles": _count,
    "tokenizer": _text,
    "lora": _lora,
    "transformers": _text,
    "value_head": _flag,
    **dict.fromkeys(("layers", "width", "heads", "kv_heads", "hidden", "context"), _count),
}
