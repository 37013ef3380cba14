"""Whether a training can learn from simulators outside (`listen`), and what it then knows of them: two spaces."""

from __future__ import annotations

from typing import Any

from ..envs import EnvSpec, External, Inspection, JointSpace, check_mask, check_supported, closing, parse_address
from ..runtime import InputError
from .settings import RunSettings


def inspect_simulators(spec: EnvSpec, run: RunSettings, config: Any) -> Inspection:
    """The spaces of the environment that names them, of which a copy is made, but not stepped.

    Raises:
        InputError: a setting that simulators outside do not go with, or spaces that are not supported.
    """
    assert run.listen is not None
    parse_address(run.listen, "listen")
    for name, wanted, why in (
        ("vectorization", "sync", "simulators outside are stepped by nobody here"),
        ("step_timeout", None, "a simulator that says nothing for a minute loses its episode anyway"),
        ("n_step", 1, "simulators' steps come in pieces, in which sums of rewards would end"),
    ):
        value = getattr(run, name, getattr(config, name, wanted))
        if value != wanted:
            raise InputError(f"{name} is {value!r}, but with listen it must be {wanted!r}: {why}")
    if run.normalizes_rewards:
        raise InputError(
            f"normalize is {run.normalize!r}, but with listen rewards are not normalized: simulators come and go, and "
            "have no running sum of rewards from rollout to rollout. Use normalize='obs', or scale rewards there"
        )
    if run.policy_kwargs.get("memory", "none") != "none":
        raise InputError(
            f"memory is {run.policy_kwargs['memory']!r}, but with listen a policy has none: rollouts are made of "
            "pieces of episodes, which begin in the middle of what would be remembered. A policy with memory that was "
            "trained otherwise can be served to simulators"
        )
    if spec.entry is External and run.eval_freq is not None:
        raise InputError(
            f"eval_freq is {run.eval_freq}, but {spec.id} has no environment to evaluate in: name one that has the "
            "same spaces, instead of External"
        )
    env = spec.make()
    with closing(env, spec.id):
        if isinstance(env.observation_space, JointSpace):
            raise InputError(f"{spec.id} has several agents, but with listen a simulator outside has one")
        check_supported(env.observation_space, "observation")
        check_supported(env.action_space, "action")
        check_mask(env.observation_space, env.action_space)
        return Inspection(spec, env.observation_space, env.action_space, ())
