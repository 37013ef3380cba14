"""Importance sampling, by hand, and against what the policy earns."""

import math

import numpy as np
import pytest
from datasets import episode, write_dataset
from gymnasium import spaces

from shoal.envs import SpaceMismatchError
from shoal.rl import (
    Policy,
    epsilon_greedy_log_probs,
    evaluate_off_policy,
    importance_sampling,
    per_decision_importance_sampling,
    weighted_importance_sampling,
    weighted_per_decision_importance_sampling,
)
from shoal.runtime import InputError

pytestmark = pytest.mark.usefixtures("datasets")

# γ = ½. First: rewards 1, 2, ratios 2, 3: G = 2, w = 6. Second: reward 4, ratio ½: G = 4, w = ½.
REWARDS = [np.array([1.0, 2.0]), np.array([4.0])]
LOG_RATIOS = [np.log([2.0, 3.0]), np.log([0.5])]


def test_by_hand():
    found = importance_sampling(REWARDS, LOG_RATIOS, gamma=0.5)
    assert found.value == pytest.approx((6 * 2 + 0.5 * 4) / 2)
    assert found.standard_error == pytest.approx(math.sqrt(((12 - 7) ** 2 + (2 - 7) ** 2) / 1) / math.sqrt(2))
    assert found.effective_episodes == pytest.approx(6.5**2 / (36 + 0.25))
    found = weighted_importance_sampling(REWARDS, LOG_RATIOS, gamma=0.5)
    assert found.value == pytest.approx((6 * 2 + 0.5 * 4) / 6.5)
    assert found.standard_error == pytest.approx(math.hypot(6 * (2 - 14 / 6.5), 0.5 * (4 - 14 / 6.5)) / 6.5)
    found = per_decision_importance_sampling(REWARDS, LOG_RATIOS, gamma=0.5)
    assert found.value == pytest.approx((2 * 1 + 0.5 * 6 * 2 + 0.5 * 4) / 2)
    # Step 0: (2 · 1 + ½ · 4) / 2½. Step 1: 6 · 2 / (6 + ½): the episode that ended keeps its weight.
    found = weighted_per_decision_importance_sampling(REWARDS, LOG_RATIOS, gamma=0.5)
    assert found.value == pytest.approx(4 / 2.5 + 0.5 * 12 / 6.5)


@pytest.mark.parametrize(
    "method",
    [
        importance_sampling,
        weighted_importance_sampling,
        per_decision_importance_sampling,
        weighted_per_decision_importance_sampling,
    ],
)
def test_on_policy_it_is_the_mean_return_and_off_policy_near_it(method):
    """A bandit of two steps: action 1 earns 1, 0 earns 0; μ takes 1 with ½, π with 0.9: π earns 1.8."""
    generator = np.random.default_rng(0)
    actions = generator.random((4_000, 2)) < 0.5
    rewards = list(actions.astype(float))
    same = method(rewards, [np.zeros(2)] * len(rewards), gamma=1.0)
    assert same.value == pytest.approx(actions.sum(1).mean())
    assert same.effective_episodes == pytest.approx(4_000)
    ratios = list(np.log(np.where(actions, 0.9, 0.1) / 0.5))
    found = method(rewards, ratios, gamma=1.0)
    assert abs(found.value - 1.8) < 4 * found.standard_error < 0.2
    assert found.effective_episodes < 4_000


def test_long_episodes_leave_no_range():
    logs = [np.full(5000, -1.0), np.full(5000, -1.0)]
    found = weighted_importance_sampling([np.ones(5000)] * 2, logs, gamma=1.0)
    assert found.value == pytest.approx(5000)
    assert importance_sampling([np.ones(5000)] * 2, logs, gamma=1.0).value == 0


def test_epsilon_greedy_probabilities():
    found = np.exp(epsilon_greedy_log_probs(np.log([1.0, 0.5, 1e-300]), np.array([2, 4, 4]), 0.2))
    assert found.tolist() == pytest.approx([0.9, 0.45, 0.05])


def test_what_cannot_be_estimated():
    with pytest.raises(ValueError, match=r"episode 1 has rewards of shape \(1,\), log-ratios of \(2,\)"):
        importance_sampling(REWARDS, [np.zeros(2), np.zeros(2)], gamma=1)
    with pytest.raises(ValueError, match="no episode"):
        importance_sampling([], [], gamma=1)
    with pytest.raises(InputError, match=r"no episode is possible with this policy.*epsilon above 0"):
        weighted_importance_sampling(REWARDS, [np.array([-np.inf, 0]), np.array([-np.inf])], gamma=1)


def test_a_policy_from_a_dataset():
    """Two states and actions, γ = 1, episodes of one step: the reward is 1 where the action is the policy's. Actions
    were uniform; the greedy policy earns 1, with ε = ½ ¾."""
    state, choice = spaces.Discrete(2), spaces.Discrete(2, start=3)
    policy = Policy(state, choice, seed=1, policy_kwargs={"ortho_init": False})
    played = []
    for seed in range(40):
        made = episode(state, choice, 1, seed=seed)
        made.rewards[:] = policy.act(made.observations[:-1], deterministic=True) == made.actions
        object.__setattr__(made, "log_probs", np.log([0.5], dtype=np.float32))
        played.append(made)
    share = np.mean([made.rewards for made in played])
    name = write_dataset("two/states-v0", played, state, choice)
    greedy = evaluate_off_policy(policy, name, gamma=1.0)
    assert greedy.value == pytest.approx(1.0)
    assert greedy.effective_episodes == pytest.approx(40 * share)
    half = evaluate_off_policy(policy, name, method="is", gamma=1.0, epsilon=0.5)
    assert half.value == pytest.approx(share * 0.75 / 0.5)
    drawn = evaluate_off_policy(policy, name, method="is", gamma=1.0, deterministic=False)
    rows = policy.model.encode(np.array([0, 1]))
    best = policy.model.outputs(rows).softmax(-1).amax(-1).tolist()
    each = [best[int(made.observations[0])] / 0.5 * made.rewards[0] for made in played]
    assert drawn.value == pytest.approx(np.mean(each), rel=1e-5)
    with pytest.raises(SpaceMismatchError, match=r"but the policy has Discrete\(2\)"):
        evaluate_off_policy(Policy(state, spaces.Discrete(2)), name)
    with pytest.raises(InputError, match=r"method is 'wiss'.*Did you mean 'wis'"):
        evaluate_off_policy(policy, name, method="wiss")
    write_dataset("two/unknown-v0", [episode(state, choice, 1)], state, choice)
    with pytest.raises(InputError, match="does not say how probable its actions were"):
        evaluate_off_policy(policy, "two/unknown-v0")
