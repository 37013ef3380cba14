"""Expected gradients and fixed points of losses, by enumeration of all that policies of one or two tokens sample."""

import itertools
import math

import pytest
import torch

from shoal.rl.language import losses

REWARDS = torch.tensor([0.0, 1.0, 0.3, -0.5], dtype=torch.float64)
START = torch.tensor([0.4, -0.3, 0.1, 0.9], dtype=torch.float64)
REFERENCE = torch.log_softmax(torch.tensor([0.0, -1.0, 0.5, 1.0], dtype=torch.float64), -1)
FAR = 1e9


def true_gradient(rewards=REWARDS, start=START):
    """∇ Σ_v π(v) r(v) by the softmax's derivative: π (r − J)."""
    policy = torch.softmax(start, -1)
    return policy * (rewards - (policy * rewards).sum())


def expected_gradient(group, baseline, scale, rewards=REWARDS, start=START):
    """Of an update's ascent, over all groups of answers of one token."""
    theta = start.clone().requires_grad_()
    log_policy = torch.log_softmax(theta, -1)
    answers = torch.tensor(list(itertools.product(range(len(start)), repeat=group)))
    chances = log_policy.detach()[answers].sum(-1).exp()
    mask, total = torch.ones(group, 1, dtype=torch.bool), 0.0
    for chance, answer in zip(chances, answers, strict=True):
        advantages = losses.advantages_of(
            rewards[answer], torch.zeros(group), mask[:, 0], baseline=baseline, scale=scale
        )
        log_probs = log_policy[answer][:, None]
        ratios = losses.log_ratios_of(log_probs, log_probs.detach(), mask, "token")
        each, _ = losses.clipped_losses(ratios, advantages, 0.2, 0.2)
        total = total + chance * losses.mean_over_rows(each, mask, losses.token_weights(mask, "sequence", 1))
    total.backward()
    return -theta.grad


@pytest.mark.parametrize("group", [2, 3])
def test_rloo_ascends_the_true_gradient_and_dr_grpo_a_share_of_it(group):
    assert torch.allclose(expected_gradient(group, "leave_one_out", "none"), true_gradient(), atol=1e-12)
    share = (group - 1) / group
    assert torch.allclose(expected_gradient(group, "group", "none"), share * true_gradient(), atol=1e-12)


def test_the_true_gradient_is_that_of_the_mean_reward():
    theta = START.clone().requires_grad_()
    (torch.softmax(theta, -1) * REWARDS).sum().backward()
    assert torch.allclose(theta.grad, true_gradient(), atol=1e-12)


def grpo_of_coins(group, p):
    """E of GRPO's step on the logit of a coin whose heads are rewarded, by the binomial: heads have advantage
    (1 − k/G) / s, tails −(k/G) / s, with s² = k (G − k) / (G (G − 1))."""
    total = 0.0
    for k in range(1, group):
        chance = math.comb(group, k) * p**k * (1 - p) ** (group - k)
        spread = math.sqrt(k * (group - k) / (group * (group - 1)))
        heads, tails = (1 - k / group) / spread, -(k / group) / spread
        total += chance * (k * heads * (1 - p) - (group - k) * tails * p) / group
    return total


def test_grpo_of_a_coin_is_the_enumerated_sum_which_tends_to_the_root():
    p = 0.3
    start = torch.tensor([math.log(p / (1 - p)), 0.0], dtype=torch.float64)
    coin = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for group in (2, 4):
        found = expected_gradient(group, "group", "group", coin, start)
        assert float(found[0]) == pytest.approx(grpo_of_coins(group, p), abs=1e-9)
    assert grpo_of_coins(900, p) == pytest.approx(math.sqrt(p * (1 - p)), rel=2e-3)  # ∇J / √(p (1 − p))


def fixed_point(kind, beta, steps=400):
    """Where exact gradient steps lead, with one answer in each group and all answers by their chance."""
    theta, mask = torch.zeros(4, dtype=torch.float64), torch.ones(4, 1, dtype=torch.bool)
    for _ in range(steps):
        theta.requires_grad_()
        log_probs = torch.log_softmax(theta, -1)[:, None]
        sampled, reference = log_probs.detach(), REFERENCE[:, None]
        rewards = REWARDS
        if kind == "k1_in_reward":
            rewards = losses.rewards_with_kl(rewards, sampled, reference, mask, beta)
        ratios = losses.log_ratios_of(log_probs, sampled, mask, "token")
        each, _ = losses.clipped_losses(ratios, rewards, FAR, FAR)
        if kind != "k1_in_reward":
            each = each + beta * losses.kl_losses(log_probs, reference, ratios, mask, kind)
        (sampled.exp() * each).sum().backward()
        theta = theta.detach() - 2 * theta.grad
    return torch.softmax(theta, -1)


def forward_optimum(beta):
    """β π_ref / (λ − r), with λ from its sum, by bisection."""
    low, high = float(REWARDS.max()) + 1e-12, float(REWARDS.max()) + 100
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if float((beta * REFERENCE.exp() / (middle - REWARDS)).sum()) > 1 else (low, middle)
    return beta * REFERENCE.exp() / (low - REWARDS)


def test_fixed_points_tell_the_three_divergences_apart():
    beta = 0.6
    reverse = torch.softmax(REFERENCE + REWARDS / beta, -1)
    forward = forward_optimum(beta)

    def apart(one, other):
        return float((one - other).abs().sum() / 2)

    assert apart(reverse, forward) > 0.02
    for kind, right in (("k1_in_reward", reverse), ("k3_corrected", reverse), ("k3_in_loss", forward)):
        assert apart(fixed_point(kind, beta), right) < 1e-4, kind


def test_importance_weights_make_another_policys_answers_count_and_a_cap_cuts_them():
    behaviour = torch.log_softmax(torch.tensor([1.0, 0.0, -1.5, 0.3], dtype=torch.float64), -1)
    mask = torch.ones(4, 1, dtype=torch.bool)
    for cap in (None, 0.8):
        theta = START.clone().requires_grad_()
        log_probs = torch.log_softmax(theta, -1)[:, None]
        ratios = losses.log_ratios_of(log_probs, behaviour[:, None], mask, "token")
        if cap is None:
            each, _ = losses.clipped_losses(ratios, REWARDS, FAR, FAR)
            wanted = true_gradient()
        else:
            each, _ = losses.capped_losses(ratios, log_probs, REWARDS, cap)
            policy = torch.softmax(START, -1)
            weighted = behaviour.exp() * (policy / behaviour.exp()).clamp(max=cap) * REWARDS
            wanted = weighted - policy * weighted.sum()  # Σ_v w_v (1_v − π)
        (behaviour.exp() * each[:, 0]).sum().backward()
        assert torch.allclose(-theta.grad, wanted, atol=1e-12)


def test_ratios_of_tokens_and_of_sequences_differ_by_the_enumerated_amount():
    new = torch.log_softmax(START, -1)
    old = REFERENCE
    pairs = torch.tensor(list(itertools.product(range(4), repeat=2)))
    mask, chances = torch.ones(16, 2, dtype=torch.bool), old[pairs].sum(-1).exp()
    for level in losses.RATIOS:
        ratios = losses.log_ratios_of(new[pairs], old[pairs], mask, level).exp()
        found = (chances[:, None] * ratios).sum(0)
        root = ((new + old) / 2).exp().sum() ** 2  # Σ μ √(π/μ) of each token, squared
        assert found.tolist() == pytest.approx([1, 1] if level == "token" else [float(root)] * 2, abs=1e-12)
