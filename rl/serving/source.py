"""Where served policies come from: a Policy, an algorithm or a folder, all turned into the files of saved policies.

Torch is not imported for it.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gymnasium import Space

from ...envs import own_space
from ...runtime import InputError
from ..models.joint_spec import JointSpec
from ..models.spec import ModelSpec
from ..runs.checkpoint import MODEL, SavedPolicy, find_checkpoint, holds_model, read_files, read_policy, run_of
from ..runs.one_policy import one_policy
from ..supervised.saved import model_from_files


class Savable(Protocol):
    """What has a `save(folder)`: a Policy or an algorithm."""

    save: Callable[[Path], Any]


@dataclass(frozen=True)
class PolicySource:
    """The files of a saved policy and what they say about it.

    Attributes:
        files: file name to content.
        observation_space: of the environment that the policy was trained in.
        action_space: likewise.
        names: of several agents, what the policy may be called: its name, and those of its agents.
        spec: what its model is made from; None of a model of a table.
        version: of its weights.
        weights_sha256: of its weights.
    """

    files: dict[str, bytes]
    observation_space: Space
    action_space: Space
    names: tuple[str, ...] = ()
    spec: Any = None
    version: int = 0
    weights_sha256: str = ""

    @property
    def is_language(self) -> bool:
        """Whether it is a language model."""
        return isinstance(self.spec, ModelSpec) and self.spec.is_language


def read_policies(
    policy: Savable | str | Path, name: str | None = None
) -> tuple[dict[str, PolicySource], JointSpec | None]:
    """Return the policies to be served, by name, and who acts by which if they are several; one alone is called "".

    Args:
        policy: a `Policy`, an algorithm, or the folder of a run (also of a fit), checkpoint or saved policy.
        name: of several agents, which policy, by its name or an agent's; None: all that there are.

    Raises:
        InputError: something else, or a folder without a policy or with a damaged one.
    """
    if isinstance(policy, str | Path) and holds_model(policy):
        files = read_files(policy)
        model = model_from_files(files, str(policy), run_of(find_checkpoint(policy)))
        served = {file: files[file] for file in (MODEL, model.file)}
        return {"": PolicySource(served, model.observation_space, model.action_space)}, None
    if isinstance(policy, str | Path):
        saved = read_policy(policy)
    elif callable(getattr(policy, "save", None)):
        with tempfile.TemporaryDirectory(prefix="shoal-policy-") as folder:
            policy.save(Path(folder))
            saved = read_policy(folder)
    else:
        raise InputError(
            f"serve takes a Policy, an algorithm or the folder of a run, not a {type(policy).__name__} ({policy!r:.80})"
        )
    spec = saved.spec
    if name is None and isinstance(spec, JointSpec) and len(spec.policies) > 1:
        return {own: _source(saved, own) for own in spec.policies}, spec
    return {"": _source(saved, name)}, None


def _source(saved: SavedPolicy, name: str | None) -> PolicySource:
    own, names = one_policy(saved, name), []
    if isinstance(saved.spec, JointSpec):
        chosen = next(iter(saved.spec.policies)) if name is None else saved.spec.mapping.get(name, name)
        names = [chosen, *saved.spec.agents[chosen]]
    return PolicySource(
        own.files,
        own_space(own.spec.observation_space),
        own.spec.action_space,
        tuple(names),
        own.spec,
        int(own.metadata["version"]),
        str(own.metadata.get("weights_sha256", "")),
    )
