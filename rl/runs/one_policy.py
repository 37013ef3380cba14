"""One policy out of those that a run of several agents holds."""

from __future__ import annotations

import numpy as np

from ...runtime import InputError, nearest
from ..models.joint_spec import JointSpec
from ..models.layout import ParameterLayout
from .checkpoint import SavedPolicy, policy_files
from .files import with_sums


def one_policy(saved: SavedPolicy, name: str | None = None) -> SavedPolicy:
    """The policy `name` of several, as if it had been saved alone; an agent's name stands for the policy that acts for
    it. What was saved of one agent is given back as it is.

    Raises InputError if there is none of that name, or none is named and there are several.
    """
    spec = saved.spec
    if not isinstance(spec, JointSpec):
        if name is not None:
            raise InputError(f"name is {name!r}, but the policy is of one agent: leave it out")
        return saved
    if name is None and len(spec.policies) > 1:
        raise InputError(
            f"there are several policies, {', '.join(spec.policies)}: say which by name=… (--policy), its own or an "
            "agent's; shoal.load_policy takes all together"
        )
    chosen = next(iter(spec.policies)) if name is None else spec.mapping.get(name, name)
    if chosen not in spec.policies:
        known = dict.fromkeys((*spec.policies, *spec.mapping))
        raise InputError(f"there is no policy or agent {name!r}. {nearest(chosen, known)}")
    prefix = f"{chosen}."
    named = {
        parameter.removeprefix(prefix): values
        for parameter, values in saved.layout.views(saved.weights).items()
        if parameter.startswith(prefix)
    }
    own, layout = spec.policies[chosen], ParameterLayout({key: value.shape for key, value in named.items()})
    weights: np.ndarray = layout.flatten(named)
    metadata = own.to_json() | {"env": None, "version": saved.metadata["version"]}
    files = policy_files(metadata, layout, weights)
    return SavedPolicy(metadata, own, layout, weights, with_sums(files))
