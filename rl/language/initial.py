"""The network and the tokens that a training begins with where `initial` names a run, or a model of `transformers`.

What is read goes into `policy_kwargs`, so a run that has begun does not need that folder any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...runtime import InputError
from ..models.joint_spec import JointSpec
from ..runs.checkpoint import read_policy
from ..settings import read_initial
from .pretrained import is_pretrained, pretrained_network
from .tokens import characters_of, read_tokenizer, with_characters


def language_network(policy_kwargs: Mapping[str, Any] | None, given_initial: Any) -> dict[str, Any]:
    """`policy_kwargs` of a language model, its tokenizer read, with those of the folder that `initial` names: all but
    another context, and adapters where it has none.

    Raises InputError if there is no language model in that folder, or `policy_kwargs` want another one.
    """
    given = dict(policy_kwargs or {})
    if isinstance(given.get("tokenizer"), str):
        given["tokenizer"] = read_tokenizer(given["tokenizer"])
    initial = read_initial(given_initial)
    if not initial:
        return given
    own = pretrained_network(Path(initial), given) if is_pretrained(Path(initial)) else _network_of(initial)
    for name, value in given.items():
        if own.get(name, value) == value or name == "context" or (name == "lora" and not own["lora"]):
            continue
        raise InputError(
            f"policy_kwargs[{name!r}] is {value!r:.80}, but the model of {initial!r}, which initial names, has "
            f"{own[name]!r:.80}: leave it out"
        )
    return {name: value for name, value in (own | given).items() if value}  # of those left out, 0 is the default


def _network_of(folder: str) -> dict[str, Any]:
    spec = read_policy(folder).spec
    if isinstance(spec, JointSpec) or not spec.is_language:
        raise InputError(
            f"initial is {folder!r}, but that holds no language model. Name a run of pretrain, sft, dpo or grpo, or a "
            "folder of the library transformers"
        )
    characters, chosen = characters_of(spec.observation_space, spec.action_space), vars(spec.architecture)
    return {**chosen, "tokenizer": with_characters(chosen["tokenizer"], characters), "value_head": False}
