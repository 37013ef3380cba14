import functools

import numpy as np
import pytest
from learning_envs import Walk
from shoal.rl.rollout import RolloutWorker

from shoal import runtime
from shoal.envs import resolve, to_env_actions
from shoal.rl import Policy, RunSettings

STEPS, SIZE = 30, 4


@pytest.fixture(autouse=True)
def _serial():
    runtime.init(engine="serial")


def worker():
    spec = resolve(functools.partial(Walk, limit=9, noise=0.8))
    settings = RunSettings(n_envs=8, group_size=SIZE, seed=5)
    env = spec.make()
    policy = Policy(env.observation_space, env.action_space, seed=5)
    return RolloutWorker(spec, settings, STEPS), policy


def collect(made, weights, group=1, state=None, iteration=0):
    return made.collect(group, [None if state is None else runtime.put(state)], weights, iteration)


def assert_same(first, second):
    for name in vars(first):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


def test_a_trajectory_is_consistent_in_itself():
    made, policy = worker()
    trajectory, _, stats = collect(made, policy.get_weights())
    assert trajectory.shape == (STEPS, SIZE)
    ends = trajectory.terminations | trajectory.truncations
    assert trajectory.truncations.any()
    assert trajectory.terminations.any()
    assert not (trajectory.terminations & trajectory.truncations).any()
    assert len(stats.episodes) == ends.sum()
    assert {episode.environment for episode in stats.episodes} <= {4, 5, 6, 7}
    going_on = ~ends[:-1]
    np.testing.assert_array_equal(trajectory.final_observations[:-1][going_on], trajectory.observations[1:][going_on])
    assert (trajectory.final_observations[:-1][~going_on] != trajectory.observations[1:][~going_on]).any(axis=-1).all()
    np.testing.assert_array_equal(to_env_actions(policy.action_space, trajectory.actions[0]), trajectory.actions[0])


def test_values_and_log_probs_are_those_of_the_weights_that_acted():
    made, policy = worker()
    trajectory, _, _ = collect(made, policy.get_weights())
    for t in (0, 7, STEPS - 1):
        np.testing.assert_array_equal(policy.values(trajectory.observations[t]), trajectory.values[t])
    rows = policy.encode(trajectory.flat("observations"))
    import torch

    _, log_probs, _ = policy.evaluate_actions(rows, torch.tensor(trajectory.flat("actions")))
    np.testing.assert_allclose(log_probs.detach(), trajectory.flat("log_probs"), rtol=1e-4)


def test_next_values_bootstrap_truncations_and_the_end_but_not_terminations():
    made, policy = worker()
    trajectory, _, _ = collect(made, policy.get_weights())
    for t in range(STEPS):
        of_final = policy.values(trajectory.final_observations[t])
        for i in range(SIZE):
            if trajectory.terminations[t, i]:
                expected = 0.0
            elif trajectory.truncations[t, i] or t == STEPS - 1:
                expected = of_final[i]
            else:
                expected = trajectory.values[t + 1, i]
            assert trajectory.next_values[t, i] == expected


def test_collecting_again_elsewhere_gives_the_same_bytes():
    (first, policy), (second, _), (third, _) = worker(), worker(), worker()
    weights = policy.get_weights()
    live, state, _ = collect(first, weights)
    again, _, _ = collect(second, weights)
    assert_same(live, again)
    following, _, stats = collect(first, weights, state=state, iteration=1)
    rebuilt, _, stats_rebuilt = collect(third, weights, state=state, iteration=1)
    assert_same(following, rebuilt)
    assert stats.episodes == stats_rebuilt.episodes


def test_groups_differ_and_do_not_depend_on_who_else_is_simulated():
    (first, policy), (second, _) = worker(), worker()
    weights = policy.get_weights()
    zero, _, _ = collect(first, weights, group=0)
    one, _, _ = collect(first, weights, group=1)
    alone, _, _ = collect(second, weights, group=1)
    assert_same(one, alone)
    assert (zero.observations != one.observations).any()


def test_a_stale_live_group_is_rebuilt():
    made, policy = worker()
    weights = policy.get_weights()
    expected, state, _ = collect(made, weights)
    collect(made, weights, state=state, iteration=1)
    again, _, _ = collect(made, weights, iteration=0)
    assert_same(expected, again)
