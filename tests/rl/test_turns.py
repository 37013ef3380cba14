"""Rollouts of agents that act one after the other: each transition goes from one of its agent's turns to the next."""

import itertools

import numpy as np
import pytest
import torch
from agents_envs import Rounds
from by_hand import joint_worker

from shoal import runtime
from shoal.algorithms import PPO, PPOConfig
from shoal.rl import Clock, learning_batch
from shoal.rl.collect.worker import GroupProgress
from shoal.rl.data.transitions import TransitionMaker
from shoal.rl.learn.learner import Learner
from shoal.rl.models.joint_model import JointModel

SIZE = 2


@pytest.fixture(autouse=True)
def _serial():
    runtime.init(engine="serial")


def collected(steps, rollouts, *, afresh=False, **network):
    """Rollouts of a group of two, and the policy's spec. `afresh`: by another worker each."""
    made, joint = joint_worker(PPO, PPOConfig(n_steps=steps), Rounds, SIZE, **network)
    weights, progress, found = JointModel(joint).get_weights(), GroupProgress(), []
    for index in range(rollouts):
        if afresh:
            made.close()
            made, joint = joint_worker(PPO, PPOConfig(n_steps=steps), Rounds, SIZE, **network)
        rollout, state, _ = made.collect(0, progress, weights, 0, Clock(0, 1000))
        progress = GroupProgress(index + 1, runtime.put(state))
        found.append(rollout["shared"])
    made.close()
    return joint.policies["shared"], found


def turns_of(agent):
    """(turn, next turn or end) of each of an agent's turns in an episode, and whether it dies then."""
    alive = Rounds.DEATH if agent == "b" else len(Rounds.ORDER)
    turns = [turn for turn, whose in enumerate(Rounds.ORDER[:alive]) if whose == agent]
    return [(turn, after, after == alive) for turn, after in zip(turns, [*turns[1:], alive], strict=True)]


@pytest.mark.parametrize("steps", [3, 5, 28, 40])
def test_each_turn_is_one_transition_with_all_that_it_led_to(steps):
    """However long the rollouts are; none is lost between two of them, and none told twice."""
    _, rollouts = collected(steps, -(-56 // steps))
    told = {(row, agent): [] for row in range(SIZE) for agent in "abc"}
    for rollout in rollouts:
        finals = dict(zip(rollout.finals["rows"].tolist(), rollout.finals["observations"], strict=True))
        places, width = rollout.shape
        for t in range(places):
            for row in np.flatnonzero(~rollout.steps["resets"][t]).tolist():
                final = finals.get(t * width + row)
                after = rollout.steps["observations"][t + 1, row] if final is None else final
                turn, number = rollout.steps["observations"][t, row].astype(int).tolist()
                ends = bool(rollout.steps["terminations"][t, row]), bool(rollout.steps["truncations"][t, row])
                transition = turn, int(after[0]), *ends, float(rollout.steps["rewards"][t, row])
                told[row // 3, "abc"[number - 1]].append(transition)
    for (_, agent), transitions in told.items():
        dies = agent == "b"
        wanted = [
            (turn, after, over and dies, over and not dies, sum(Rounds.earned(agent, k) for k in range(turn, after)))
            for turn, after, over in turns_of(agent)
        ] * 8
        assert transitions == wanted[: len(transitions)]
        complete = len(turns_of(agent)) * (len(rollouts) * steps // len(Rounds.ORDER))
        assert len(transitions) >= complete


@pytest.mark.parametrize("steps", [3, 5, 40])
def test_sums_over_several_steps_are_over_an_agents_own_turns(steps):
    """However long the rollouts are, also where a maker goes on from another's state: by hand, from `Rounds`."""
    _, rollouts = collected(steps, -(-56 // steps))
    maker, told = TransitionMaker(gamma=0.5, n=2), {agent: [] for agent in "abc"}
    for rollout in rollouts:
        made, state = maker.transitions(rollout), maker.state()
        maker = TransitionMaker(gamma=0.5, n=2)
        maker.load(state)
        for index in range(made.rows):
            turn, number = made["observations"][index].astype(int).tolist()
            transition = turn, int(made["next_observations"][index][0]), float(made["rewards"][index])
            told["abc"[number - 1]].append((*transition, float(made["discounts"][index])))
    for agent, transitions in told.items():
        earned = [
            (turn, after, over, sum(Rounds.earned(agent, k) for k in range(turn, after)))
            for turn, after, over in turns_of(agent)
        ]
        wanted = []
        for one, following in itertools.zip_longest(earned, earned[1:]):
            last = one if one[2] else following
            both = one[3] if last is one else one[3] + 0.5 * following[3]
            discount = 0.0 if last[2] and agent == "b" else 0.5 if last is one else 0.25
            wanted.append((one[0], last[1], both, discount))
        assert set(transitions) == set(wanted)
        complete = len(rollouts) * steps // len(Rounds.ORDER)
        assert all(transitions.count(one) >= SIZE * (complete - 1) for one in wanted)
        assert len(transitions) <= SIZE * len(wanted) * (complete + 1)


def test_what_is_carried_on_comes_back_with_the_state():
    for one, other in zip(collected(5, 4)[1], collected(5, 4, afresh=True)[1], strict=True):
        for name in one.steps:
            assert one.steps[name].tobytes() == other.steps[name].tobytes(), name


def test_advantages_go_from_turn_to_turn():
    spec, (rollout,) = collected(14, 1)
    learner = Learner(spec, seed=0, device="cpu")
    PPO.prepare(learner, PPOConfig())
    batch = learning_batch(learner, rollout, gamma=0.5, gae_lambda=0.5)
    assert len(batch["actions"]) == SIZE * len(Rounds.ORDER)
    steps = rollout.steps
    values, rewards = steps["values"][:, 1], steps["rewards"][:, 1]  # of b, who has three turns before it dies
    deltas = [
        rewards[0] + 0.5 * values[1] - values[0],
        rewards[1] + 0.5 * values[2] - values[1],
        rewards[2] - values[2],
    ]
    wanted = [deltas[0] + 0.25 * (deltas[1] + 0.25 * deltas[2]), deltas[1] + 0.25 * deltas[2], deltas[2]]
    np.testing.assert_allclose(learner.advantages[:3, 1], wanted, rtol=1e-5)


def test_a_memory_is_that_of_an_agents_own_turns():
    spec, rollouts = collected(5, 6, memory="lstm", sequence_length=2)
    for rollout in rollouts:
        learner = Learner(spec, seed=0, device="cpu")
        PPO.prepare(learner, PPOConfig())
        batch = learning_batch(learner, rollout, gamma=0.9, gae_lambda=0.8)
        _, log_probs, _ = learner.model.evaluate(batch["rows"], batch["actions"])
        torch.testing.assert_close(log_probs.detach(), batch["log_probs"], atol=1e-5, rtol=1e-5)
