"""The weights that a training begins with, where `initial` names them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..runtime import InputError
from .agents import initial_weights
from .language.pretrained import is_pretrained, pretrained_weights
from .models.joint_spec import AnySpec, JointSpec
from .runs.checkpoint import read_policy
from .settings import RunSettings


def check_initial(spec: AnySpec, run: RunSettings) -> None:
    """Raise InputError if a training cannot begin with the weights that its settings name, of one agent or several."""
    if isinstance(spec, JointSpec) and not run.initial:
        initial_weights(spec, run)
    elif isinstance(spec, JointSpec) or not spec.is_language:  # its network has been read from there, and may be large
        named_weights(spec, run)


def named_weights(spec: AnySpec, run: RunSettings) -> dict[str, np.ndarray]:
    """The weights by name, of the parts that act; none where a training begins at random.

    Raises InputError if there is none, or it is of another network.
    """
    if not run.initial:
        return {}
    if isinstance(spec, JointSpec):
        raise InputError(
            f"initial is {run.initial!r}, but there are several policies: choose initial_policies, which names them"
        )
    if run.normalize != "none":
        raise InputError(
            f"initial is {run.initial!r}, but normalize is {run.normalize!r}: statistics would begin anew. Leave "
            "one of them out, or go on with both in a program: load(FOLDER, learning_rate=…), with what is to change"
        )
    if spec.is_language and is_pretrained(Path(run.initial)):
        return pretrained_weights(Path(run.initial))
    saved = read_policy(run.initial)
    if not spec.is_language and saved.spec != spec:
        unlike = "it is of several agents" if isinstance(saved.spec, JointSpec) else saved.spec.unlike(spec)
        raise InputError(f"initial is {run.initial!r}, but that is another model: {unlike}")
    named = dict(saved.layout.views(saved.weights))
    if spec.is_language and not spec.architecture.value_head:
        return {name: values for name, values in named.items() if not name.startswith("value.")}
    return named
