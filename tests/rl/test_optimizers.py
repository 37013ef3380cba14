import numpy as np
import pytest
import torch

from shoal.rl import FlatAdam, FlatAdamW, FlatRMSprop, FlatSGD
from shoal.rl.learn.lost import StateLostError
from shoal.rl.learn.parts import whole as join_states

CASES = [
    (FlatAdam, lambda leaves: torch.optim.Adam(leaves, lr=0.01, eps=1e-5), {"epsilon": 1e-5}),
    (FlatRMSprop, lambda leaves: torch.optim.RMSprop(leaves, lr=0.01, alpha=0.99, eps=1e-3), {"epsilon": 1e-3}),
    (FlatAdamW, lambda leaves: torch.optim.AdamW(leaves, lr=0.01, weight_decay=0.3), {"weight_decay": 0.3}),
    (FlatSGD, lambda leaves: torch.optim.SGD(leaves, lr=0.01, momentum=0.8, weight_decay=0.3),
     {"momentum": 0.8, "weight_decay": 0.3}),
]  # fmt: skip


def problem():
    """Two leaves, views into one flat tensor, and a loss."""
    generator = torch.Generator().manual_seed(0)
    flat, gradients = torch.randn(6, generator=generator), torch.zeros(6)
    target = torch.randn(6, generator=generator)
    leaves = []
    for part, gradient in zip(flat.split([4, 2]), gradients.split([4, 2]), strict=True):
        leaf = part.detach().requires_grad_()
        leaf.grad = gradient
        leaves.append(leaf)
    return flat, gradients, leaves, lambda: 10 * (torch.cat(leaves) - target).pow(4).sum()


@pytest.mark.parametrize(("kind", "reference", "options"), CASES)
def test_equals_torchs_with_gradient_clipping(kind, reference, options):
    flat, gradients, _, loss = problem()
    optimizer = kind(flat, gradients, **options)
    wanted, _, leaves, wanted_loss = problem()
    theirs = reference(leaves)
    for _ in range(20):
        optimizer.minimize(loss(), learning_rate=0.01, max_grad_norm=0.5)
        theirs.zero_grad(set_to_none=False)
        wanted_loss().backward()
        torch.nn.utils.clip_grad_norm_(leaves, 0.5)
        theirs.step()
    torch.testing.assert_close(flat, wanted, rtol=1e-6, atol=1e-7)


def test_weight_decay_by_hand():
    # θ = 1, g = 2. AdamW: θ ← 1 − 0.1 · 0.5, then a step of 0.1 (the first one of Adam is lr · sign g).
    # SGD: v = 2 + 0.5 · 1, θ = 1 − 0.1 · 2.5; then v = 0.9 · 2.5 + 2 + 0.5 · 0.75, θ = 0.75 − 0.1 v.
    for kind, options, wanted in (
        (FlatAdamW, {"weight_decay": 0.5}, [0.85]),
        (FlatSGD, {"momentum": 0.9, "weight_decay": 0.5}, [0.75, 0.75 - 0.1 * (0.9 * 2.5 + 2 + 0.375)]),
    ):
        parameter = torch.ones(1, requires_grad=True)
        parameter.grad = torch.zeros(1)
        optimizer = kind(parameter.detach(), parameter.grad, **options)
        for value in wanted:
            optimizer.minimize(2 * parameter.sum(), learning_rate=0.1)
            assert parameter.item() == pytest.approx(value, rel=1e-6)


def test_rmsprop_adds_epsilon_outside_the_root():
    # g = 2: v = 0.01 · 4, step 0.1 · 2 / (0.2 + 0.3); inside the root it would be 0.1 · 2 / √(0.04 + 0.3)
    parameter = torch.zeros(1, requires_grad=True)
    parameter.grad = torch.zeros(1)
    flat = parameter.detach()
    FlatRMSprop(flat, parameter.grad, alpha=0.99, epsilon=0.3).minimize(2 * parameter.sum(), learning_rate=0.1)
    assert flat.item() == pytest.approx(-0.4)


def test_gradients_smaller_than_the_limit_are_left_alone():
    free, limited = problem(), problem()
    for made, limit in ((free, None), (limited, 1e9)):
        FlatAdam(made[0], made[1]).minimize(made[3](), learning_rate=0.1, max_grad_norm=limit)
    torch.testing.assert_close(free[0], limited[0])


def test_a_norm_near_the_limit_clips_as_torchs_does():
    gradients = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    norm = float(torch.linalg.vector_norm(gradients))
    for factor in (0.98, 1 - 1e-6, 1, 1 + 1e-6, 1.005, 1.02):
        flat, limit = torch.zeros(5000), factor * norm
        FlatSGD(flat, gradients.clone(), momentum=0.0).step(learning_rate=1.0, max_grad_norm=limit)
        scale = limit / (norm + 1e-6)
        assert torch.equal(flat, -gradients * scale if scale < 1 else -gradients)


@pytest.mark.parametrize("kind", [FlatAdam, FlatAdamW, FlatRMSprop, FlatSGD])
def test_continues_from_a_saved_state(kind):
    flat, gradients, _, loss = problem()
    optimizer = kind(flat, gradients)
    optimizer.minimize(loss(), learning_rate=0.01, max_grad_norm=0.5)
    state, before = optimizer.state(), flat.clone()
    optimizer.minimize(loss(), learning_rate=0.01, max_grad_norm=0.5)
    after = flat.clone()
    flat.copy_(before)
    resumed = kind(flat, gradients)
    resumed.load(state)
    resumed.minimize(loss(), learning_rate=0.01, max_grad_norm=0.5)
    assert torch.equal(flat, after)
    assert state["steps"] == 1
    assert all(state[name].dtype == np.float32 for name in kind.moments)


class Halves:
    """A share of the first numbers, whose others have stepped as `reference` has."""

    def __init__(self, stop, reference):
        self.stop, self.reference = stop, reference

    def part(self, size):
        return 0, self.stop

    def others(self, start, own):
        return [(self.stop, self.reference[self.stop :].numpy().copy())]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (FlatAdam, {}),
        (FlatAdamW, {"decayed": (slice(10, 50), slice(100, 190))}),
        (FlatSGD, {"weight_decay": 0.1}),
        (FlatRMSprop, {}),
    ],
)
def test_a_part_of_the_moments_steps_as_all_of_them(kind, options):
    draws = torch.Generator().manual_seed(0)
    reference, slopes = torch.randn(203, generator=draws), torch.zeros(203)
    own = reference.clone()
    whole, part = kind(reference, slopes, **options), kind(own, slopes, **options)
    for _ in range(3):
        slopes.copy_(torch.randn(203, generator=draws))
        whole.step(learning_rate=0.1)
        part.share(Halves(128, reference))
        part.step(learning_rate=0.1)
        assert torch.equal(own, reference)
    state = part.state()
    assert state["begins_at"] == 0
    assert all(len(state[name]) == 128 for name in kind.moments)
    rest = {name: whole.state()[name][128:] for name in kind.moments}
    joined = join_states([{"model": {**rest, "steps": 3, "begins_at": 128}}, {"model": state}])["model"]
    assert all(np.array_equal(joined[name], whole.state()[name]) for name in kind.moments)
    with pytest.raises(StateLostError, match=r"the moments \(0, 128\) are kept, but those of \(0, 64\) are needed"):
        part.share(Halves(64, reference))
