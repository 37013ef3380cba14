"""Whether encoder and memory fit the observations and their own options; free of torch, so before anything is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...envs import MASK, LeafCodec
from ...runtime import InputError, as_int, nearest
from .architecture import CONVOLUTIONS, SMALLEST, EncoderChoice, MemoryChoice, image_encoder, image_shape


def check_encoder(chosen: EncoderChoice, parts: Mapping[str, LeafCodec]) -> None:
    """Raise InputError if an encoder for images has none, or too small ones, among the parts of the observation (path →
    codec), or for an option that it does not have."""
    name = chosen.encoder
    if ":" in name:
        return  # its own business
    images = {path: leaf for path, leaf in parts.items() if leaf.is_image}
    if name in CONVOLUTIONS and not images:
        seen = ", ".join(leaf.describe() for path, leaf in parts.items() if path != MASK)
        raise InputError(f"encoder is {name!r}, but there are no images in {seen}: use 'auto' or 'flat'")
    for path, leaf in images.items() if name in CONVOLUTIONS else ():
        (_, height, width), _ = image_shape(leaf.shape)
        if min(height, width) < SMALLEST[name]:
            where = f" at {path!r}" if path else ""
            raise InputError(
                f"images of {height} × {width}{where} are too small for encoder {name!r}, which takes "
                f"{SMALLEST[name]} × {SMALLEST[name]} and more: choose encoder='impala_cnn' (from "
                f"{SMALLEST['impala_cnn']} × {SMALLEST['impala_cnn']} on) or 'flat', or enlarge them"
            )
    used = {image_encoder(name, leaf.shape) for leaf in images.values()} & set(CONVOLUTIONS)
    known = {"features": _number, "channels": _three if "nature_cnn" in used else _several} if used else {}
    _check_options("encoder_kwargs", f"the encoder {name!r}", chosen.encoder_kwargs, known)


def check_memory(chosen: Any) -> None:
    """Raise InputError for an option that a memory does not have, or that it cannot be made with."""
    if not isinstance(chosen, MemoryChoice) or ":" in chosen.memory:
        return
    names = {"none": (), "transformer": ("units", "heads", "layers", "window")}.get(chosen.memory, ("units",))
    _check_options(
        "memory_kwargs", f"the memory {chosen.memory!r}", chosen.memory_kwargs, dict.fromkeys(names, _number)
    )
    units, heads = chosen.memory_kwargs.get("units", 64), chosen.memory_kwargs.get("heads", 4)
    if chosen.memory == "transformer" and units % heads:
        raise InputError(
            f"policy_kwargs['memory_kwargs'] has units {units} and heads {heads}, but each head takes a part of the "
            "units: units must be a multiple of heads"
        )


def _check_options(
    entry: str, owner: str, given: Mapping[str, Any], known: Mapping[str, Callable[[Any], str | None]]
) -> None:
    for name, value in given.items():
        what = f"policy_kwargs[{entry!r}][{name!r}]"
        if name not in known:
            has = f"which has {', '.join(map(repr, known))}" if known else "which has none here"
            raise InputError(f"{what} is no option of {owner}, {has}. {nearest(name, known)}".rstrip())
        wanted = known[name](value)
        if wanted is not None:
            raise InputError(f"{what} is {value!r}, but must be {wanted}")


def _number(value: Any) -> str | None:
    number = as_int(value)
    return None if number is not None and number >= 1 else "a whole number of at least 1"


def _several(value: Any, count: int | None = None) -> str | None:
    good = isinstance(value, list | tuple) and bool(value) and not any(_number(width) for width in value)
    if good and count in (None, len(value)):
        return None
    return f"a list of {f'{count} ' if count else ''}whole numbers of at least 1, one per convolution"


def _three(value: Any) -> str | None:
    return _several(value, 3)
