"""What is learned of several agents: the mistakes that others have made, each with the numbers that show it."""

import dataclasses
from types import MappingProxyType

import numpy as np
import pytest
import torch
from agents_envs import Crowd, Rounds
from by_hand import joint_worker

from shoal import runtime
from shoal.algorithms import PPO, PPOConfig
from shoal.rl import Clock, learning_batch
from shoal.rl.collect.worker import GroupProgress
from shoal.rl.data.batch import Batch
from shoal.rl.data.moments import RewardScale
from shoal.rl.learn.learner import Learner
from shoal.rl.models.joint_model import JointModel

STEPS, SIZE = 16, 3
ACTING = 12 + 8 + 7
"""Steps that the agents of a `Crowd` with an agent reborn take in an episode of 12 ticks."""
CLOCK = Clock(0, 1000)


@pytest.fixture(autouse=True)
def _serial():
    runtime.init(engine="serial")


def collected(steps=STEPS, rollouts=1, *, env=Crowd, env_kwargs=MappingProxyType({"reborn": True}), **options):
    """The policy's spec and rollouts [T, 3 · 3] of a group of three, under the initial weights."""
    worker, joint = joint_worker(PPO, PPOConfig(n_steps=steps), env, SIZE, env_kwargs=dict(env_kwargs), **options)
    weights, progress, found = JointModel(joint).get_weights(), GroupProgress(), []
    for index in range(rollouts):
        rollout, state, _ = worker.collect(0, progress, weights, 0, CLOCK)
        progress = GroupProgress(index + 1, runtime.put(state))
        found.append(rollout["shared"])
    worker.close()
    return joint.policies["shared"], found


def learner_of(spec, **config):
    learner = Learner(spec, seed=0, device="cpu", reward_scale=RewardScale(0.99))
    PPO.prepare(learner, PPOConfig(**config))
    return learner


def poisoned(rollout):
    """The rollout with nonsense where no agent acted."""
    absent = rollout.steps["resets"]
    columns = {name: np.array(column) for name, column in rollout.steps.items()}
    assert absent.any()
    for name in ("observations", "rewards", "values", "log_probs"):
        columns[name][absent] = 1e6
    return dataclasses.replace(rollout, steps=Batch(columns, 2))


def test_agents_that_are_not_there_have_no_weight_in_anything():
    """Loss, advantages' mean and deviation, entropy, and the statistics of observations and rewards."""
    spec, (rollout,) = collected()
    spec = dataclasses.replace(spec, normalized=True)
    results = []
    for given in (rollout, poisoned(rollout)):
        learner = learner_of(spec)
        learner.begin(given)
        metrics = PPO.update(learner, given, PPOConfig(batch_size=32, n_epochs=2, ent_coef=0.01), CLOCK)
        learner.end(given)
        results.append((learner.state(), metrics))
    (first, one), (second, other) = results
    assert first["model"].tobytes() == second["model"].tobytes()
    assert one == other
    assert str(first["observation_moments"]) == str(second["observation_moments"])
    assert str(first["reward_scale"]) == str(second["reward_scale"])


def gradient(learner, batch):
    learner.model.flat_gradients.zero_()
    _, log_probs, _ = learner.model.evaluate(batch["rows"], batch["actions"])
    (log_probs * batch["advantages"]).mean().backward()
    return learner.model.flat_gradients.clone()


def test_the_gradient_of_a_shared_policy_is_the_mean_over_steps_of_agents():
    """Not the mean over agents of their means, which would give a step of an agent that lives short more weight."""
    spec, (rollout,) = collected(steps=12)
    learner = learner_of(spec)
    batch = learning_batch(learner, rollout, gamma=0.9, gae_lambda=0.8)
    counts = (~rollout.steps["resets"]).reshape(12, SIZE, 3).sum((0, 1))
    assert counts.tolist() == [36, 24, 21]
    assert len(batch["actions"]) == SIZE * ACTING
    agents = np.tile(np.arange(3), 12 * SIZE)[~rollout.steps["resets"].reshape(-1)]
    of_agents = [
        gradient(learner, {name: column[torch.from_numpy(agents == agent)] for name, column in batch.items()})
        for agent in range(3)
    ]
    weighted = sum(count * own for count, own in zip(counts.tolist(), of_agents, strict=True)) / counts.sum()
    torch.testing.assert_close(gradient(learner, batch), weighted)


def test_advantages_end_where_an_agent_dies_and_begin_where_it_is_born():
    spec, (rollout,) = collected(steps=12)
    learner = learner_of(spec)
    learning_batch(learner, rollout, gamma=0.9, gae_lambda=0.8)
    steps, advantages = rollout.steps, learner.advantages
    dies = steps["rewards"][3, 1] - steps["values"][3, 1]  # agent b of the first environment: nothing follows its death
    assert steps["terminations"][3, 1]
    assert advantages[3, 1] == pytest.approx(dies, rel=1e-5)
    before = steps["rewards"][2, 1] + 0.9 * steps["values"][3, 1] - steps["values"][2, 1]
    assert advantages[2, 1] == pytest.approx(before + 0.9 * 0.8 * dies, rel=1e-5)
    assert steps["resets"][4:8, 1].all()
    assert not steps["resets"][8, 1]  # born again


def test_a_memory_is_empty_at_a_birth_and_of_one_life():
    """The learner unrolls what the worker did: the same log-probabilities, though agents die and are born between."""
    spec, rollouts = collected(steps=8, rollouts=3, memory="lstm", sequence_length=4)
    for rollout in rollouts:
        learner = learner_of(spec)
        batch = learning_batch(learner, rollout, gamma=0.9, gae_lambda=0.8)
        _, log_probs, _ = learner.model.evaluate(batch["rows"], batch["actions"])
        torch.testing.assert_close(log_probs.detach(), batch["log_probs"], atol=1e-5, rtol=1e-5)
    first = rollouts[
        0
    ]  # c is born at tick 3, so that its first sequence begins with nothing; at tick 4 it has seen one
    memory = first.memories["memory"]
    assert all(not leaf[0].any() for leaf in memory.values())
    assert all(leaf[1, 2].any() for leaf in memory.values())
    assert all(not leaf[1, 1].any() for leaf in memory.values())  # b has just died


CENTRAL = [(Crowd, {"reborn": True}), (Rounds, {})]


@pytest.mark.parametrize("memory", [{}, {"memory": "gru", "sequence_length": 4}], ids=["plain", "memory"])
@pytest.mark.parametrize(("env", "env_kwargs"), CENTRAL, ids=["parallel", "turns"])
def test_a_central_critic_sees_everybody_and_the_policy_only_its_agent(env, env_kwargs, memory):
    spec, (rollout,) = collected(12, env=env, env_kwargs=env_kwargs, central=True, **memory)
    learner = learner_of(spec)
    batch = learning_batch(learner, rollout, gamma=0.9, gae_lambda=0.8)
    values, log_probs, _ = learner.model.evaluate(batch["rows"], batch["actions"])
    torch.testing.assert_close(values.detach(), batch["values"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(log_probs.detach(), batch["log_probs"], atol=1e-5, rtol=1e-5)
    columns = {name: np.array(column) for name, column in rollout.steps.items()}
    columns["observations"]["critic"] += 1
    other = learning_batch(learner, dataclasses.replace(rollout, steps=Batch(columns, 2)), gamma=0.9, gae_lambda=0.8)
    new_values, new_log_probs, _ = learner.model.evaluate(other["rows"], other["actions"])
    assert new_log_probs.detach().numpy().tobytes() == log_probs.detach().numpy().tobytes()
    assert not torch.isclose(new_values, values).any()


def test_what_a_central_critic_sees():
    _, (rollout,) = collected(12, central=True)
    seen = rollout.steps["observations"]["critic"].reshape(12, SIZE, 3, -1)
    own = rollout.steps["observations"]["observation"].reshape(12, SIZE, 3, -1)
    there = ~rollout.steps["resets"].reshape(12, SIZE, 3)
    everybody = (own * there[..., np.newaxis]).reshape(12, SIZE, 1, 9).repeat(3, axis=2)
    np.testing.assert_array_equal(seen[..., :9], everybody)  # zeros of whoever is dead or not yet born
    np.testing.assert_array_equal(seen[..., 9:], np.broadcast_to(np.eye(3), (12, SIZE, 3, 3)))


def test_rewards_and_values_have_one_unit_before_advantages():
    """Values are of normalized returns where rewards are normalized: a reward is scaled before a value is added to it,
    by its own agent's steps alone, so that the unit in which an environment pays changes no advantage."""
    spec, (rollout,) = collected(12)
    steps, advantages = rollout.steps, []
    for unit in (1, 1000):
        paid = dataclasses.replace(rollout, steps=steps.plus(rewards=steps["rewards"] * np.float32(unit)))
        learner = learner_of(spec)
        learner.begin(paid)
        learning_batch(learner, paid, gamma=0.9, gae_lambda=0.8)
        advantages.append(np.array(learner.advantages))
    acted = ~steps["resets"]
    np.testing.assert_allclose(advantages[1][acted], advantages[0][acted], rtol=1e-4)
    sums = []  # of each row's discounted rewards so far, as `RewardScale(0.99)` has them
    for row in range(3 * SIZE):
        running = 0.0
        for t in np.flatnonzero(acted[:, row]):
            running = 0.99 * running + float(steps["rewards"][t, row])
            sums.append(running)
            running *= 1 - float(steps["terminations"][t, row] | steps["truncations"][t, row])
    dies = steps["rewards"][3, 1] / np.std(sums) - steps["values"][3, 1]  # agent b: nothing follows its death
    assert advantages[0][3, 1] == pytest.approx(dies, rel=1e-5)
