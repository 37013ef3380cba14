import math

import pytest
import torch

from shoal.algorithms import A2CConfig, PPOConfig
from shoal.algorithms.a2c import a2c_loss
from shoal.algorithms.ppo import ppo_loss
from shoal.rl import normalized_advantages


class Outputs:
    """A model whose outputs are what the test says."""

    def __init__(self, values, probabilities, entropies):
        self.values = torch.tensor(values, requires_grad=True)
        self.log_probs = torch.tensor([math.log(p) for p in probabilities], requires_grad=True)
        self.entropies = torch.tensor(entropies, requires_grad=True)

    def evaluate(self, rows, actions):
        return self.values, self.log_probs, self.entropies


def batch(advantages, returns):
    return {
        "rows": torch.zeros(len(advantages), 1),
        "actions": torch.zeros(len(advantages)),
        "advantages": torch.tensor(advantages),
        "returns": torch.tensor(returns),
    }


def test_loss_by_hand():
    # policy −(2 ln ½ − ln ¼)/2 = 0; value ((3 − 1)² + 0)/2 = 2, weighted ½; entropy −(1 + 3)/2, weighted 0.1
    model = Outputs([1.0, 2.0], [0.5, 0.25], [1.0, 3.0])
    loss, metrics = a2c_loss(model, batch([2.0, -1.0], [3.0, 2.0]), A2CConfig(ent_coef=0.1))
    assert metrics["train/policy_loss"].item() == pytest.approx(0, abs=1e-6)
    assert loss.item() == pytest.approx(0 + 0.5 * 2 - 0.1 * 2, abs=1e-6)
    loss.backward()
    assert model.log_probs.grad.tolist() == [-1, 0.5]
    assert model.values.grad.tolist() == [-1, 0]


def test_its_gradient_is_that_of_one_unclipped_minibatch_of_ppo():
    values, probabilities, entropies = [0.3, -0.2, 1.0], [0.2, 0.5, 0.9], [0.1, 0.2, 0.3]
    rows = batch([1.0, -2.0, 0.5], [1.0, 0.0, 2.0])
    old = {"log_probs": torch.tensor([math.log(p) for p in probabilities]), "values": torch.tensor(values)}
    gradients = []
    for loss in (
        lambda model: a2c_loss(model, rows, A2CConfig(ent_coef=0.01)),
        lambda model: ppo_loss(model, rows | old, PPOConfig(ent_coef=0.01, normalize_advantage=False), 1e9, None),
    ):
        model = Outputs(values, probabilities, entropies)
        loss(model)[0].backward()
        gradients.append([model.values.grad, model.log_probs.grad, model.entropies.grad])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)


def test_equal_advantages_are_zero_when_normalized():
    model = Outputs([0.0, 0.0], [0.5, 0.25], [0.0, 0.0])
    loss, _ = a2c_loss(model, normalized_advantages(batch([3.0, 3.0], [0.0, 0.0])), A2CConfig())
    assert loss.item() == 0
