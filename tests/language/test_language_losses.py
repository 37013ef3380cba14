"""Losses of language models by numbers worked by hand: what others got wrong."""

import math

import pytest
import torch

from shoal.rl.language import losses

T = torch.tensor
LOG = math.log


def mask_of(*rows):
    return torch.tensor(rows, dtype=torch.bool)


def advantages(rewards, groups=None, counted=None, baseline="group", scale="none"):
    rewards = T(rewards, dtype=torch.float64)
    groups = torch.zeros(len(rewards), dtype=torch.long) if groups is None else T(groups)
    counted = torch.ones(len(rewards), dtype=torch.bool) if counted is None else T(counted)
    return losses.advantages_of(rewards, groups, counted, baseline=baseline, scale=scale).tolist()


def test_a_token_is_predicted_by_the_logits_before_it():
    logits, tokens = torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(0)), T([[1, 2, 3, 4]])
    found = losses.log_probs_of(logits, tokens)
    assert found[0, 0] == 0
    assert found[0, 2] == pytest.approx(float(torch.log_softmax(logits[0, 1], -1)[3]))
    last = logits.clone()
    last[:, -1] += 1 + torch.arange(5)
    assert torch.equal(losses.log_probs_of(last, tokens), found)
    other = losses.log_probs_of(logits, T([[1, 2, 0, 4]]))
    assert (other != found).tolist() == [[False, False, True, False]]


def test_temperature_divides_the_logits():
    logits = T([[[0.0, LOG(4)], [0.0, 0.0]]])
    assert losses.log_probs_of(logits, T([[0, 1]]), 2.0)[0, 1] == pytest.approx(LOG(2 / 3))


def test_what_is_masked_changes_neither_loss_nor_gradient():
    mask = mask_of([1, 1, 0], [1, 0, 0])
    weights = losses.token_weights(mask, "token", 3)

    def gradient_with(filling):
        log_probs = T([[-1.0, -2.0, filling], [-3.0, filling, filling]], requires_grad=True)
        sampled = T([[-1.1, -2.0, filling], [-3.2, filling, filling]])
        ratios = losses.log_ratios_of(log_probs, sampled, mask, "sequence")
        loss, _ = losses.clipped_losses(ratios, T([1.0, -1.0]), 0.2, 0.2)
        kl = losses.kl_losses(log_probs, sampled, ratios, mask, "k3_corrected")
        capped, _ = losses.capped_losses(ratios, log_probs, T([2.0, 0.5]), 1.0)
        total = losses.mean_over_rows(loss + kl + capped, mask, weights)
        total.backward()
        return total.item(), log_probs.grad.tolist()

    assert gradient_with(0.0) == gradient_with(math.nan) == gradient_with(-math.inf)


def test_the_reward_sits_on_the_last_real_token_and_returns_are_zero_on_padding():
    mask = mask_of([1, 1, 0, 0], [0, 1, 0, 1])
    last = losses.last_of(mask)
    assert last.tolist() == [[0, 1, 0, 0], [0, 0, 0, 1]]
    rewards = torch.where(last, T([[2.0], [3.0]]), 0)
    _, returns = losses.token_advantages(rewards, torch.zeros(2, 4), mask, 0.5, 1.0)
    assert returns.tolist() == [[1, 2, 0, 0], [0, 1.5, 0, 3]]


def test_mean_and_deviation_are_over_the_same_mask_and_padding_changes_nothing():
    values, mask = T([[1.0, 3.0, 99.0]]), mask_of([1, 1, 0])
    assert losses.whitened(values, mask).tolist() == [[-1, 1, 0]]
    assert losses.whitened(T([[1.0, 3.0, 99.0, -7.0]]), mask_of([1, 1, 0, 0])).tolist() == [[-1, 1, 0, 0]]


def test_what_does_not_count_is_in_no_statistic():
    counted = [True, True, False, True]
    for scale in ("group", "batch"):
        wild = advantages([0, 1, 1e6, 0.5], counted=counted, scale=scale)
        assert wild == advantages([0, 1, 0, 0.5], counted=counted, scale=scale)
        assert wild == pytest.approx([-1, 1, 0, 0])


def test_parts_of_a_minibatch_have_gradients_that_add_up_to_the_wholes():
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    mask = torch.rand(6, 5, generator=generator) < 0.6
    for aggregation in losses.AGGREGATIONS:
        weights = losses.token_weights(mask, aggregation, 8)
        whole = values.clone().requires_grad_()
        losses.mean_over_rows(whole**2, mask, weights).backward()
        parts = values.clone().requires_grad_()
        for rows in (slice(0, 1), slice(1, 4), slice(4, 6)):
            share = (rows.stop - rows.start) / 6
            (losses.mean_over_rows(parts[rows] ** 2, mask[rows], weights[rows]) * share).backward()
        assert torch.allclose(whole.grad, parts.grad, atol=1e-12)


def test_aggregations():
    mask, each = mask_of([1, 1, 1], [1, 0, 0]), T([[1.0, 1.0, 1.0], [5.0, 0.0, 0.0]])
    found = [
        float(losses.mean_over_rows(each, mask, losses.token_weights(mask, how, 4))) for how in losses.AGGREGATIONS
    ]
    assert found == pytest.approx([3.0, 2.0, 1.0])  # (1 + 5) / 2; 8 / 4 tokens; (3 + 5) / (2 · 4)
    longer = mask_of([1, 1, 1, 0, 0], [1, 0, 0, 0, 0])  # the length of the setting counts, not the batch's longest row
    assert losses.token_weights(longer, "constant", 4).max() == 0.25


def test_groups_stay_together_whatever_the_order():
    rewards, groups = [0.0, 1, 5, 6, 7, 1], [3, 3, 8, 8, 8, 3]
    order = [4, 0, 2, 5, 1, 3]
    for scale in losses.SCALES:
        found = advantages(rewards, groups, scale=scale)
        permuted = advantages([rewards[i] for i in order], [groups[i] for i in order], scale=scale)
        assert permuted == pytest.approx([found[i] for i in order])


def test_a_group_of_equal_rewards_has_advantage_zero_exactly():
    for baseline in ("group", "leave_one_out"):
        for scale in losses.SCALES:
            assert advantages([0.1] * 3 + [0, 1], [0] * 3 + [1] * 2, baseline=baseline, scale=scale)[:3] == [0, 0, 0]
    dead = losses.dead_groups(T([0.1, 0.1, 0.3, 0.3, 0.2]), T([0, 0, 1, 1, 1]), torch.ones(5, dtype=torch.bool))
    assert dead.tolist() == [True, True, False, False, False]


def test_baselines_and_scales():
    assert advantages([0, 1, 5]) == pytest.approx([-2, -1, 3])
    assert advantages([0, 1, 5], baseline="leave_one_out") == pytest.approx([-3, -1.5, 4.5], abs=1e-7)  # · 3 / 2
    assert advantages([0, 1, 5], baseline="none") == [0, 1, 5]
    assert advantages([0, 2, 6, 8], [0, 0, 1, 1], baseline="batch") == [-4, -2, 2, 4]
    assert advantages([0, 2, 6, 8], [0, 0, 1, 1], scale="group") == pytest.approx([-(0.5**0.5), 0.5**0.5] * 2)
    assert advantages([0, 2, 6, 8], [0, 0, 1, 1], scale="batch") == pytest.approx(
        [-1 / (40 / 3) ** 0.5, 1 / (40 / 3) ** 0.5] * 2
    )


def test_a_loss_of_value_zero_has_the_policys_gradient():
    log_probs = T([[-1.0, -2.0]], requires_grad=True)
    mask = mask_of([1, 1])
    for level in losses.RATIOS:
        log_probs.grad = None
        ratios = losses.log_ratios_of(log_probs, log_probs.detach(), mask, level)
        loss, clipped = losses.clipped_losses(ratios, T([3.0]), 0.2, 0.2)
        (losses.mean_over_rows(loss, mask, losses.token_weights(mask, "sequence", 2)) + 3).backward()
        assert not clipped.any()
        assert log_probs.grad.tolist() == [[-1.5, -1.5]]


def test_ratios_are_clipped_per_token_or_their_mean_per_sequence():
    log_probs, sampled, mask = T([[LOG(0.9), LOG(0.3)]]), T([[LOG(0.3), LOG(0.9)]]), mask_of([1, 1])
    token, clipped = losses.clipped_losses(losses.log_ratios_of(log_probs, sampled, mask, "token"), T([1.0]), 0.2, 0.28)
    assert token[0].tolist() == pytest.approx([-1.28, -1 / 3])
    assert clipped.tolist() == [[True, False]]
    sequence, clipped = losses.clipped_losses(
        losses.log_ratios_of(log_probs, sampled, mask, "sequence"), T([1.0]), 0.2, 0.28
    )
    assert sequence[0].tolist() == pytest.approx([-1, -1])  # √(3 · ⅓)
    assert not clipped.any()


def test_decoupled_a_token_is_clipped_around_the_old_policy_and_counts_by_that_over_behaviours():
    mask = mask_of([1, 1, 0])
    behaviour, old = T([[LOG(0.5), LOG(0.1), 9.0]]), T([[LOG(0.25), LOG(0.4), math.nan]])
    weights = losses.behaviour_weights(old, behaviour, mask, "token", 3.0)
    assert weights[mask].tolist() == pytest.approx([0.5, 3.0])  # 0.4 / 0.1 is 4
    sequence = losses.behaviour_weights(old, behaviour, mask, "sequence", 3.0)
    assert sequence[mask].tolist() == pytest.approx([2**0.5] * 2)  # √(½ · 4)
    log_probs = T([[LOG(0.2), LOG(0.44), 0.0]], requires_grad=True)
    ratios = losses.log_ratios_of(log_probs, old, mask, "token")  # 0.8 and 1.1, where behaviour's are 0.4 and 4.4
    each, clipped = losses.clipped_losses(ratios, T([2.0]), 0.2, 0.2)
    assert not clipped[mask].any()
    loss = losses.mean_over_rows(each, mask, losses.token_weights(mask, "sequence", 3) * weights)
    assert loss.item() == pytest.approx(-(0.5 * 0.8 * 2 + 3 * 1.1 * 2) / 2)
    loss.backward()
    assert log_probs.grad[0].tolist() == pytest.approx([-0.4, -3.3, 0])  # weights have no gradient of their own


def test_what_is_cut_off_counts_is_left_out_or_is_penalised():
    rewards, cut = T([1.0, 2.0, 6.0]), mask_of([0, 0, 1])[0]
    found = []
    for how in losses.TRUNCATIONS:
        judged, counted = losses.truncated_rewards(rewards, cut, how, 1.5)
        found.append(losses.advantages_of(judged, torch.zeros(3), counted, baseline="group", scale="none").tolist())
    assert found == [pytest.approx(each) for each in ([-2, -1, 3], [-0.5, 0.5, 0], [-1.5, -0.5, 2])]


def test_divergence_in_the_reward_and_in_the_loss():
    log_probs, reference, mask = T([[-1.0, -2.0, 9.0]]), T([[-1.5, -1.0, 0.0]]), mask_of([1, 1, 0])
    assert losses.rewards_with_kl(T([1.0]), log_probs, reference, mask, 0.1).tolist() == pytest.approx([1.05])
    k3 = losses.kl_losses(log_probs, reference, torch.zeros(1, 3), mask, "k3_in_loss")
    assert k3[0, :2].tolist() == pytest.approx([math.exp(-0.5) - 0.5, math.e - 2])
    corrected = losses.kl_losses(log_probs, reference, torch.full((1, 3), LOG(2)), mask, "k3_corrected")
    assert corrected[0, :2].tolist() == pytest.approx([2 * (math.exp(-0.5) - 0.5), 2 * (math.e - 2)])
