import functools

import numpy as np
import pytest
import torch
from by_hand import rollout_worker
from learning_envs import Walk

from shoal import runtime
from shoal.algorithms import PPO, PPOConfig
from shoal.envs import resolve, to_env_actions
from shoal.rl import Clock, Rollout, RunSettings, build_model
from shoal.rl.collect import worker as collecting
from shoal.rl.collect.worker import GroupProgress
from shoal.rl.data.tree import leaves

STEPS, SIZE = 30, 4


@pytest.fixture(autouse=True)
def _serial():
    runtime.init(engine="serial")


def worker():
    spec = resolve(functools.partial(Walk, limit=9, noise=0.8))
    settings = RunSettings(n_envs=8, group_size=SIZE, seed=5)
    made, model_spec = rollout_worker(PPO, PPOConfig(n_steps=STEPS), spec, settings)
    return made, build_model(model_spec, seed=5)


def collect(made, weights, group=1, state=None, rollouts=0):
    progress = GroupProgress(rollouts, None if state is None else runtime.put(state))
    return made.collect(group, progress, weights, 3, Clock(0, 1000))


def columns(rollout):
    return dict(leaves({"steps": dict(rollout.steps), "finals": dict(rollout.finals)}))


def assert_same(first, second):
    assert columns(first).keys() == columns(second).keys()
    for name, column in columns(first).items():
        np.testing.assert_array_equal(column, columns(second)[name], err_msg=name)


def values(model, observations):
    with torch.inference_mode():
        return model.values(model.encode(observations)).numpy()


def test_a_rollout_is_consistent_in_itself():
    made, model = worker()
    rollout, _, stats = collect(made, model.get_weights())
    steps, finals = rollout.steps, rollout.finals
    assert rollout.shape == (STEPS, SIZE)
    assert rollout.version == 3
    ends = steps["terminations"] | steps["truncations"]
    assert steps["truncations"].any()
    assert steps["terminations"].any()
    assert not (steps["terminations"] & steps["truncations"]).any()
    assert len(stats.episodes) == ends.sum()
    assert {episode.environment for episode in stats.episodes} <= {4, 5, 6, 7}
    ends[-1] = True
    assert finals["rows"].tolist() == np.flatnonzero(ends).tolist()
    assert (finals["observations"][:-SIZE] != steps["observations"][1:][ends[:-1]]).any(axis=-1).all()
    assert "outputs" not in steps
    np.testing.assert_array_equal(to_env_actions(model.spec.action_space, steps["actions"][0]), steps["actions"][0])


def test_values_and_log_probs_are_those_of_the_weights_that_acted():
    made, model = worker()
    rollout, _, _ = collect(made, model.get_weights())
    for t in (0, 7, STEPS - 1):
        found = values(model, rollout.steps["observations"][t])
        np.testing.assert_allclose(found, rollout.steps["values"][t], rtol=1e-5)  # a row's bits follow the batch's size
    flat = rollout.steps.flat()
    _, log_probs, _ = model.evaluate(model.encode(flat["observations"]), torch.tensor(flat["actions"]))
    np.testing.assert_allclose(log_probs.detach(), flat["log_probs"], rtol=1e-4)


def test_next_values_bootstrap_truncations_and_the_end_but_not_terminations():
    made, model = worker()
    rollout, _, _ = collect(made, model.get_weights())
    steps, after = rollout.steps, rollout.next_observations()
    for t in range(STEPS):
        of_next = values(model, after[t])
        for i in range(SIZE):
            expected = 0.0 if steps["terminations"][t, i] else of_next[i]
            assert steps["next_values"][t, i] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("at_a_time", [0, 1, 7])
def test_what_is_written_at_a_time_changes_nothing(monkeypatch, at_a_time):
    """Large observations are written as soon as they are seen, so that they do not lie in memory twice."""
    made, model = worker()
    expected, _, _ = collect(made, model.get_weights())
    monkeypatch.setattr(collecting, "_NOTED_BYTES", at_a_time * expected.steps["observations"][0].nbytes)
    rollout, _, _ = collect(worker()[0], model.get_weights())
    assert_same(expected, rollout)


def test_collecting_again_elsewhere_gives_the_same_bytes():
    (first, model), (second, _), (third, _) = worker(), worker(), worker()
    weights = model.get_weights()
    live, state, _ = collect(first, weights)
    again, _, _ = collect(second, weights)
    assert_same(live, again)
    following, _, stats = collect(first, weights, state=state, rollouts=1)
    rebuilt, _, stats_rebuilt = collect(third, weights, state=state, rollouts=1)
    assert_same(following, rebuilt)
    assert stats.episodes == stats_rebuilt.episodes
    joined, ended = Rollout.end_to_end([live, following]), (live.steps["terminations"] | live.steps["truncations"])[-1]
    after, begin = joined.next_observations()[STEPS - 1], following.steps["observations"][0]
    np.testing.assert_array_equal(after[~ended], begin[~ended])
    assert ended.any()
    assert (after[ended] != begin[ended]).any()


def test_groups_differ_and_do_not_depend_on_who_else_is_simulated():
    (first, model), (second, _) = worker(), worker()
    weights = model.get_weights()
    zero, _, _ = collect(first, weights, group=0)
    one, _, _ = collect(first, weights, group=1)
    alone, _, _ = collect(second, weights, group=1)
    assert_same(one, alone)
    assert (zero.steps["observations"] != one.steps["observations"]).any()


def test_a_stale_live_group_is_rebuilt():
    made, model = worker()
    weights = model.get_weights()
    expected, state, _ = collect(made, weights)
    collect(made, weights, state=state, rollouts=1)
    again, _, _ = collect(made, weights, rollouts=0)
    assert_same(expected, again)
