import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from shoal.envs import codec, stream
from shoal.rl import Bernoulli, Categorical, DiagonalGaussian, MultiCategorical
from shoal.rl.models.distributions import draw_noise


def test_categorical_by_hand():
    logits = torch.tensor([[0.0, math.log(3.0)]])  # probabilities 1/4 and 3/4
    distribution = Categorical(logits)
    assert distribution.log_prob(torch.tensor([0])).item() == pytest.approx(math.log(0.25))
    assert distribution.log_prob(torch.tensor([1])).item() == pytest.approx(math.log(0.75))
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert distribution.entropy().item() == pytest.approx(entropy)
    assert distribution.mode().tolist() == [1]


def test_categorical_takes_the_largest_of_logits_plus_noise():
    logits = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    assert Categorical(logits).sample(torch.tensor([[0.0, 0.0], [2.0, 0.0]])).tolist() == [1, 0]


def test_multi_categorical_sums_its_choices():
    logits = torch.tensor([[0.0, math.log(3.0), 0.0, 0.0, 0.0]])  # (1/4, 3/4) and (1/3, 1/3, 1/3)
    distribution = MultiCategorical(logits, (2, 3))
    log_prob = distribution.log_prob(torch.tensor([[1, 2]])).item()
    assert log_prob == pytest.approx(math.log(0.75) + math.log(1 / 3))
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) + math.log(3)
    assert distribution.entropy().item() == pytest.approx(entropy)
    noise = torch.tensor([[9.0, 0.0, 0.0, 5.0, 0.0]])
    assert distribution.sample(noise).tolist() == [[0, 1]]
    assert distribution.mode().tolist() == [[1, 0]]


def test_bernoulli_by_hand():
    distribution = Bernoulli(torch.tensor([[math.log(3.0), 0.0]]))  # P(1) = 3/4 and 1/2
    assert distribution.log_prob(torch.tensor([[1, 0]])).item() == pytest.approx(math.log(0.75) + math.log(0.5))
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) + math.log(2)
    assert distribution.entropy().item() == pytest.approx(entropy)
    assert distribution.mode().tolist() == [[1, 0]]
    assert distribution.sample(torch.tensor([[-2.0, 0.1]])).tolist() == [[0, 1]]


def test_gaussian_by_hand():
    # mean (1, 0), σ (2, 1), action (3, 0): z = (1, 0)
    distribution = DiagonalGaussian(torch.tensor([[1.0, 0.0]]), torch.tensor([math.log(2.0), 0.0]))
    log_prob = -0.5 - math.log(2) - math.log(2 * math.pi)
    assert distribution.log_prob(torch.tensor([[3.0, 0.0]])).item() == pytest.approx(log_prob)
    entropy = 1 + math.log(2 * math.pi) + math.log(2)
    assert distribution.entropy().tolist() == pytest.approx([entropy])
    assert distribution.sample(torch.tensor([[1.0, -1.0]])).tolist() == [[3.0, -1.0]]
    assert distribution.mode().tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    ("space", "outputs", "expected"),
    [
        (spaces.Discrete(2), [0.0, math.log(3.0)], [0.75]),
        (spaces.MultiBinary(2), [math.log(3.0), 0.0], [0.75, 0.5]),
        (spaces.Box(-9, 9, (1,)), [0.0], [0.0]),
    ],
)
def test_sampling_with_drawn_noise_has_the_right_mean(space, outputs, expected):
    noise = torch.from_numpy(draw_noise(codec(space), stream(0, "test"), (20_000,)))
    logits = torch.tensor([outputs]).expand(20_000, -1)
    made = {spaces.Discrete: Categorical, spaces.MultiBinary: Bernoulli}.get(type(space))
    distribution = made(logits) if made else DiagonalGaussian(logits, torch.zeros(1))
    means = np.atleast_1d(distribution.sample(noise).float().mean(0).numpy())
    np.testing.assert_allclose(means, expected, atol=0.02)
    assert noise.dtype == torch.float32
