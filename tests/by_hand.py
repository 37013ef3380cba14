"""What tests of several algorithms make by hand."""

import torch

from shoal import runtime
from shoal.envs import central_space, choose_recovery, resolve
from shoal.rl import ModelSpec, RunSettings
from shoal.rl.agents import JointWorker
from shoal.rl.collect.channel import Channel
from shoal.rl.collect.worker import RolloutWorker
from shoal.rl.models.joint_spec import JointSpec


def rollout_worker(algorithm, config, spec, settings: RunSettings, kind="actor_critic", **policy_kwargs):
    """A worker in this process that acts with a model of a kind, and the spec of the model."""
    env = spec.make()
    model_spec = ModelSpec(kind, env.observation_space, env.action_space, policy_kwargs)
    return _in_this_process(RolloutWorker, algorithm, config, spec, model_spec, settings), model_spec


def joint_worker(
    algorithm, config, entry, size, *, env_kwargs=None, central=False, kind="actor_critic", **policy_kwargs
):
    """A worker in this process that acts with one policy for all agents, and the spec of the model."""
    spec = resolve(entry, env_kwargs)
    env = spec.make()
    agents = env.observation_space.agent_spaces
    own = ModelSpec(kind, agents[env.agents[0]], env.action_space[env.agents[0]], policy_kwargs)
    if central:
        seen = central_space(env.observation_space, env.agents[0])
        own = ModelSpec("central_actor_critic", seen, own.action_space, policy_kwargs)
    joint = JointSpec({"shared": own}, dict.fromkeys(agents, "shared"), turns=env.observation_space.turns)
    settings = RunSettings(n_envs=size, group_size=size, seed=5)
    return _in_this_process(JointWorker, algorithm, config, spec, joint, settings), joint


def _in_this_process(kind, algorithm, config, spec, model_spec, settings):
    runtime.init(engine="serial", ignore_reinit_error=True)  # else the first that asks starts one of processes
    return kind(
        algorithm,
        config,
        spec=spec,
        model_spec=model_spec,
        settings=settings,
        recovery=choose_recovery(spec, settings.seed, 0),
        channel=Channel("training/tested", between_processes=False),
    )


def one_transition(**changes):
    """A minibatch of one: action 1 in state 0, reward 1, γ = ½, to state 1."""
    return {
        "observations": torch.tensor([0]),
        "actions": torch.tensor([1]),
        "rewards": torch.tensor([1.0]),
        "next_observations": torch.tensor([1]),
        "discounts": torch.tensor([0.5]),
        "weights": torch.tensor([1.0]),
    } | {name: torch.tensor(value) for name, value in changes.items()}
