import math

import numpy as np
import pytest
import torch

from shoal.algorithms import PPOConfig
from shoal.algorithms.ppo import ppo_loss
from shoal.rl import Batch, normalized_advantages
from shoal.rl.on_policy import advantages_and_returns
from shoal.runtime import InputError


class TwoActions:
    """A policy whose outputs are what the test says."""

    def __init__(self, values, probabilities, entropies):
        self.values = torch.tensor(values, requires_grad=True)
        self.log_probs = torch.tensor([math.log(p) for p in probabilities], requires_grad=True)
        self.entropies = torch.tensor(entropies, requires_grad=True)

    def evaluate(self, rows, actions):
        return self.values, self.log_probs, self.entropies


def minibatch(old_probabilities, advantages, returns=(0.0, 0.0), old_values=(0.0, 0.0)):
    return {
        "rows": torch.zeros(len(advantages), 1),
        "actions": torch.zeros(len(advantages)),
        "log_probs": torch.tensor([math.log(p) for p in old_probabilities]),
        "values": torch.tensor(old_values),
        "advantages": torch.tensor(advantages),
        "returns": torch.tensor(returns),
    }


def config(**changes):
    return PPOConfig(**{"normalize_advantage": False, "vf_coef": 0.0} | changes)


def test_clipped_surrogate_by_hand():
    # ratios 1.5 and 0.5, advantages 2 and −1, ε = 0.2: min(3, 2.4) and min(−0.5, −0.8); loss −(2.4 − 0.8)/2
    policy = TwoActions([0.0, 0.0], [0.6, 0.2], [0.0, 0.0])
    loss, metrics = ppo_loss(policy, minibatch([0.4, 0.4], [2.0, -1.0]), config(), 0.2, None)
    assert loss.item() == pytest.approx(-0.8)
    assert metrics["train/policy_gradient_loss"].item() == pytest.approx(-0.8)
    assert metrics["train/clip_fraction"].item() == 1
    kl = ((1.5 - 1 - math.log(1.5)) + (0.5 - 1 - math.log(0.5))) / 2
    assert metrics["train/approx_kl"].item() == pytest.approx(kl)
    loss.backward()
    assert policy.log_probs.grad.tolist() == [0.0, 0.0]


def test_gradient_flows_where_the_ratio_is_not_clipped():
    # ratio 1.1 with advantage 2: d(−1.1 · 2 / 2)/d log π = −1.1; ratio 1.5 with advantage −1 is pulled back: +0.75
    policy = TwoActions([0.0, 0.0], [0.44, 0.6], [0.0, 0.0])
    loss, metrics = ppo_loss(policy, minibatch([0.4, 0.4], [2.0, -1.0]), config(), 0.2, None)
    loss.backward()
    assert policy.log_probs.grad.tolist() == pytest.approx([-1.1, 0.75])
    assert metrics["train/clip_fraction"].item() == 0.5


def test_advantages_are_normalized():
    # advantages 3 and 1: mean 2, standard deviation √2 (n − 1): ±1/√2; ratios 1 and 2 (clipped at 1.2 only upwards)
    policy = TwoActions([0.0, 0.0], [0.4, 0.8], [0.0, 0.0])
    loss, _ = ppo_loss(policy, normalized_advantages(minibatch([0.4, 0.4], [3.0, 1.0])), config(), 0.2, None)
    assert loss.item() == pytest.approx(-(1 / math.sqrt(2) - 2 / math.sqrt(2)) / 2, rel=1e-6)


def test_a_single_row_is_not_normalized():
    policy = TwoActions([0.0], [0.4], [0.0])
    loss, _ = ppo_loss(policy, normalized_advantages(minibatch([0.4], [3.0], [0.0], [0.0])), config(), 0.2, None)
    assert loss.item() == pytest.approx(-3.0)


def test_value_loss_by_hand():
    # errors 1 − 3 and 2 − 2: mean of 4 and 0 is 2, times vf_coef
    policy = TwoActions([3.0, 2.0], [0.4, 0.4], [0.0, 0.0])
    loss, metrics = ppo_loss(policy, minibatch([0.4, 0.4], [0.0, 0.0], [1.0, 2.0]), config(vf_coef=0.25), 0.2, None)
    assert metrics["train/value_loss"].item() == pytest.approx(2.0)
    assert loss.item() == pytest.approx(0.5)
    loss.backward()
    assert policy.values.grad.tolist() == pytest.approx([0.5, 0.0])


def test_clipped_values_stay_near_the_old_ones():
    # old values 0 and 2, new 3 and 2, range 0.5: 0.5 and 2; errors (1 − 0.5)² and 0; no gradient for the clipped one
    policy = TwoActions([3.0, 2.0], [0.4, 0.4], [0.0, 0.0])
    rows = minibatch([0.4, 0.4], [0.0, 0.0], [1.0, 2.0], [0.0, 2.0])
    loss, metrics = ppo_loss(policy, rows, config(vf_coef=1.0), 0.2, 0.5)
    assert metrics["train/value_loss"].item() == pytest.approx(0.125)
    loss.backward()
    assert policy.values.grad.tolist() == [0.0, 0.0]


def test_entropy_bonus_by_hand():
    policy = TwoActions([0.0, 0.0], [0.4, 0.4], [1.0, 3.0])
    loss, metrics = ppo_loss(policy, minibatch([0.4, 0.4], [0.0, 0.0]), config(ent_coef=0.1), 0.2, None)
    assert metrics["train/entropy_loss"].item() == pytest.approx(-2.0)
    assert loss.item() == pytest.approx(-0.2)


def test_advantages_of_a_rollout_with_both_kinds_of_end():
    # γ = 0.5, λ = 0.5; rows: step 0 goes on, step 1 terminates, step 2 truncates with final value 4, step 3 is the last
    columns = {
        "rewards": [1, 1, 1, 1],
        "terminations": [False, True, False, False],
        "truncations": [False, False, True, False],
        "values": [1, 2, 3, 4],
        "next_values": [2, 0, 4, 6],
    }
    dtypes = {"terminations": np.bool_, "truncations": np.bool_}
    steps = Batch({k: np.array(v, dtypes.get(k, np.float32))[:, np.newaxis] for k, v in columns.items()}, 2)
    advantages, returns = advantages_and_returns(steps, gamma=0.5, gae_lambda=0.5)
    # δ = [1 + 1 − 1, 1 − 2, 1 + 2 − 3, 1 + 3 − 4] = [1, −1, 0, 0]; A_0 = 1 − 0.25
    np.testing.assert_allclose(advantages[:, 0], [0.75, -1, 0, 0])
    np.testing.assert_allclose(returns[:, 0], [1.75, 1, 3, 4])
    assert advantages.dtype == np.float32


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("gamma", 1.5, "gamma is 1.5, but must be a number of at least 0 and at most 1"),
        ("gae_lambda", -0.1, "gae_lambda is -0.1"),
        ("n_steps", 0, "n_steps is 0, but must be a whole number of at least 1"),
        ("n_steps", 12.5, "n_steps is 12.5"),
        ("batch_size", -64, "batch_size is -64"),
        ("learning_rate", 0, "learning_rate is 0, but must be a number above 0 .*lin_0.001"),
        ("learning_rate", "lin_-1", "learning_rate is 'lin_-1'"),
        ("learning_rate", "fast", "learning_rate is 'fast'"),
        ("clip_range", float("nan"), "clip_range is nan"),
        ("max_grad_norm", 0, "max_grad_norm is 0"),
        ("target_kl", -1, "target_kl is -1"),
        ("vf_coef", "half", "vf_coef is 'half'"),
        ("normalize_advantage", 3, "normalize_advantage is 3, but must be True or False"),
    ],
)
def test_hyperparameters_that_cannot_work_are_named_with_their_bounds(setting, value, message):
    with pytest.raises(InputError, match=message):
        PPOConfig(**{setting: value})


def test_defaults_are_those_of_stable_baselines3():
    assert PPOConfig() == PPOConfig(
        learning_rate=3e-4,
        n_steps=2048,
        batch_size=64,
        n_epochs=10,
        gamma=0.99,
        gae_lambda=0.95,
        clip_range=0.2,
        clip_range_vf=None,
        normalize_advantage=True,
        ent_coef=0.0,
        vf_coef=0.5,
        max_grad_norm=0.5,
        target_kl=None,
    )
