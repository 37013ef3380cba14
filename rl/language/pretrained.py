"""Models of the library `transformers` in local folders: what a training takes from there. Nothing is downloaded, and
no code that lies in such a folder is run.

This module imports neither torch nor transformers: the model itself is made in `transformers_model`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize, safe_open

from ...envs import install_line, is_installed
from ...runtime import InputError
from .tokens import SPECIAL, make_tokens, read_tokenizer

_DTYPES = {"F32": np.float32, "F16": np.float16, "F64": np.float64}
_CONTEXT = 256
_EMBEDS = re.compile("emb|wte|wpe|lm_head|norm")
"""Layers that have no adapters."""


def is_pretrained(folder: Path) -> bool:
    """Whether a folder holds a model of `transformers`: its config.json says a type of model. InputError if that is
    what is missing."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if isinstance(config, dict) and "model_type" in config:
            return True
        lacking = "its config.json says no model_type"
    except (OSError, ValueError) as error:
        lacking = f"it has no config.json that is JSON ({type(error).__name__})"
    if any(folder.glob("*.safetensors")) and not (folder / "policy.json").exists():
        raise InputError(
            f"{str(folder)!r} holds weights, but no model of transformers that can be read: {lacking}. Save model and "
            "configuration there with save_pretrained(…)"
        )
    return False


def pretrained_network(folder: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """`policy_kwargs` of the model in a folder: `transformers`, its config.json; its `tokenizer`, unless another one is
    `given`; and a `context` of at most 256 tokens.

    Raises InputError if the folder lacks something, or the model's code is not the library's own.
    """
    if not is_installed("transformers"):
        raise InputError(f"initial is {str(folder)!r}, a model of transformers: {install_line('transformers')}")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "auto_map" in config:
        raise InputError(
            f"the model of {str(folder)!r} brings code of its own (auto_map in its config.json), which is not run: "
            "choose a model that the library transformers has"
        )
    if config.get("eos_token_id") is None:
        raise InputError(f"the model of {str(folder)!r} has no eos_token_id in its config.json: no answer would end")
    files = _files(folder)
    targets = (given.get("lora") or {}).get("targets")
    if targets:
        check_targets(targets, _layers_of(files))
    longest = next((config[name] for name in ("max_position_embeddings", "n_positions") if name in config), _CONTEXT)
    own = {"transformers": json.dumps(config, sort_keys=True), "context": min(int(longest), _CONTEXT), "lora": {}}
    wanted = given.get("context", 0)
    if isinstance(wanted, int) and wanted > longest:
        raise InputError(f"policy_kwargs['context'] is {wanted}, but must be at most {longest}, the model's positions")
    if "tokenizer" not in given:
        where = folder / "tokenizer.json"
        if not where.exists():
            raise InputError(
                f"the model of {str(folder)!r} has no tokenizer.json: save one there with the tokenizer's "
                "save_pretrained(…), or name another one by policy_kwargs['tokenizer'], such as 'bytes'"
            )
        own["tokenizer"] = read_tokenizer(str(where))
    _check_vocabulary(config, own.get("tokenizer", given.get("tokenizer")))
    return own


def check_targets(targets: Sequence[str], names: Collection[str]) -> None:
    """Raise InputError for targets of LoRA that are no layers of a model, which are called `names`."""
    for target in targets:
        if target not in names:
            raise InputError(
                f"policy_kwargs['lora']['targets'] holds {target!r}, but must be of {', '.join(sorted(names))}"
            )


def _layers_of(files: Sequence[Path]) -> set[str]:
    """The last parts of the names of layers whose weights are matrices, but for embeddings."""
    found: set[str] = set()
    for file in files:
        try:
            with safe_open(file, "numpy") as opened:
                shapes = {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118  # no dict
        except SafetensorError as error:
            raise InputError(f"{str(file)!r} does not hold tensors: {error}") from None
        for name, shape in shapes.items():
            *path, kind = name.split(".")
            if kind == "weight" and len(shape) == 2 and path and not _EMBEDS.search(path[-1]):
                found.add(path[-1])
    return found


def _check_vocabulary(config: Mapping[str, Any], tokenizer: Any) -> None:
    """Raise InputError for a tokenizer with more tokens than the model has."""
    size = config.get("vocab_size")
    if not isinstance(tokenizer, str) or not isinstance(size, int):
        return  # what is no tokenizer is refused where all are
    tokens = make_tokens(tokenizer, "").size - SPECIAL
    if tokens > size:
        raise InputError(f"the tokenizer has {tokens} tokens, but the model {size}: it is another model's")


def pretrained_weights(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of the model in a folder, by name, as float32. Raises InputError for what is no safetensors file, or
    holds numbers of another kind than floats."""
    found: dict[str, np.ndarray] = {}
    for file in _files(folder):
        try:
            tensors = deserialize(file.read_bytes())
        except SafetensorError as error:
            raise InputError(f"{str(file)!r} does not hold tensors: {error}") from None
        for name, tensor in tensors:
            found[name] = _floats(f"{name!r} of {str(file)!r}", tensor)
    return found


def _files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError(
            f"there are no weights at {str(folder)!r}: it holds no file that ends in .safetensors. Save the model "
            "there with save_pretrained(…)"
        )
    return files


def _floats(what: str, tensor: Mapping[str, Any]) -> np.ndarray:
    kind, data = tensor["dtype"], tensor["data"]
    if kind == "BF16":  # the upper half of a float32, which numpy does not know
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(tensor["shape"])
    if kind not in _DTYPES:
        raise InputError(f"the tensor {what} is of {kind}, but must be of floats: quantized models are not read")
    return np.frombuffer(data, _DTYPES[kind]).astype(np.float32).reshape(tensor["shape"])
