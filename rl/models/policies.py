"""Policies of all kinds, by what they are made from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..language.policy import LanguagePolicy
from ..runs.checkpoint import SavedPolicy, read_policy, saved_policy
from .joint_policy import JointPolicy
from .joint_spec import AnySpec, JointSpec
from .policy import Policy

AnyPolicy = Policy | JointPolicy | LanguagePolicy


def policy_of(spec: AnySpec, *, seed: int = 0) -> AnyPolicy:
    """The policy with the model or the models of `spec`, with initial weights."""
    if isinstance(spec, JointSpec):
        return JointPolicy(spec, seed=seed)
    return LanguagePolicy(spec, seed=seed) if spec.is_language else Policy.of(spec, seed=seed)


def load_policy(folder: str | Path) -> AnyPolicy:
    """Read what a policy folder, a checkpoint, or a run (its newest checkpoint) holds: one agent's policy, those of
    several, or a language model. InputError if there is none or it is damaged."""
    return _with_weights(read_policy(folder))


def policy_from_files(files: Mapping[str, bytes]) -> AnyPolicy:
    """As `load_policy`, of the files of a saved policy, name to content."""
    return _with_weights(saved_policy(files, Path("policy")))


def _with_weights(saved: SavedPolicy) -> AnyPolicy:
    policy = policy_of(saved.spec)
    policy.set_weights(saved.weights_for(policy.model.layout), int(saved.metadata["version"]))
    policy.env = saved.metadata.get("env")
    return policy
