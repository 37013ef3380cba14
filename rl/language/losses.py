"""The mathematics of reinforcing a language model: pure functions of tensors, in the order in which an update asks.

    log-probabilities ─▶ advantages: (reward − baseline) / scale
                      ─▶ ratio to the policy that sampled, clipped ─▶ loss of each token ─▶ weights ─▶ mean over rows
                      ─▶ distance to the reference

GRPO (Shao et al., 2024, arXiv 2402.03300), Dr. GRPO (Liu et al., 2025, 2503.20783), DAPO (Yu et al., 2025, 2503.14476),
RLOO (Ahmadian et al., 2024, 2402.14740) and GSPO (Zheng et al., 2025, 2507.18071) are choices of these.

Shapes: B rows (sampled answers), T positions of their tokens, filled up on the right. A mask [B, T] bool is True at the
tokens that the model itself has sampled: not at the prompt's, at an environment's, nor at what fills up. What stands at
a masked place, be it NaN, has no influence: it is replaced, never multiplied by 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCALES = ("group", "batch", "none")
AGGREGATIONS = ("sequence", "token", "constant")
RATIOS = ("token", "sequence")
TRUNCATIONS = ("count", "mask", "penalise")
_SMALLEST_SCALE = 1e-6


def log_probs_of(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """log π(token t | tokens before t) [B, T] of `tokens` [B, T] int64, from `logits` [B, T, V] at each position.

    The logits at t − 1 predict token t; the first token has no predecessor, and 0. The policy is the softmax of
    logits / temperature, as that which samples.
    """
    predicted = _log_policy(logits, temperature)
    found = predicted.gather(-1, tokens[:, 1:, None]).squeeze(-1)
    return torch.nn.functional.pad(found, (1, 0))


def _log_policy(logits: Tensor, temperature: float) -> Tensor:
    # Of logits in bfloat16 the logarithms would have three digits, and sums over an answer's tokens none.
    precise = torch.promote_types(logits.dtype, torch.float32)
    return torch.log_softmax(logits[:, :-1].to(precise) / temperature, -1)


def entropies_of(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy [B, T] in nats of what each token was drawn from, from `logits` [B, T, V] as in `log_probs_of`."""
    predicted = _log_policy(logits, temperature)
    return torch.nn.functional.pad(-(predicted.exp() * predicted).sum(-1), (1, 0))


def last_of(mask: Tensor) -> Tensor:
    """[B, T] bool: the last place of each row where the mask is True."""
    places = torch.arange(mask.shape[-1], device=mask.device)
    return mask & (places == torch.where(mask, places, -1).amax(-1, keepdim=True))


def token_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Generalized advantages (Schulman et al., 2016, equation 16) of the tokens of the mask, and the returns that their
    values shall become, [B, T] each, 0 elsewhere. What lies between two tokens of the model's, it did not choose: no
    time passes there. `values` are those before each token; the last one is terminal."""
    value = advantage = torch.zeros_like(values[:, 0])
    found = torch.zeros_like(values)
    for t in reversed(range(values.shape[1])):
        here = rewards[:, t] + gamma * value - values[:, t] + gamma * gae_lambda * advantage
        value, advantage = torch.where(mask[:, t], values[:, t], value), torch.where(mask[:, t], here, advantage)
        found[:, t] = torch.where(mask[:, t], here, 0)
    return found, torch.where(mask, found + values, 0)


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Σ over the mask, [B] of [B, T]."""
    return torch.where(mask, values, 0).sum(-1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the mask, [B] of [B, T]; 0 where it is empty."""
    return masked_sum(values, mask) / mask.sum(-1).clamp(min=1)


def whitened(values: Tensor, mask: Tensor) -> Tensor:
    """Values [B, T] shifted and scaled to mean 0 and deviation 1 over the mask of all rows; 0 elsewhere."""
    kept = values[mask]
    return torch.where(mask, (values - kept.mean()) / kept.std(correction=0).clamp(min=_SMALLEST_SCALE), 0)


# ---- rewards


def truncated_rewards(rewards: Tensor, truncated: Tensor, how: str, penalty: float) -> tuple[Tensor, Tensor]:
    """Rewards [B], and which rows count, [B] bool, where answers were cut off at their limit (`truncated` [B] bool):
    "count" them like all others; "mask" them: nothing is learned from them, and no statistics know them; or "penalise"
    them: `penalty` is taken off."""
    if how == "mask":
        return rewards, ~truncated
    judged = torch.where(truncated, rewards - penalty, rewards) if how == "penalise" else rewards
    return judged, torch.ones_like(truncated)


def rewards_with_kl(rewards: Tensor, log_probs: Tensor, reference: Tensor, mask: Tensor, coefficient: float) -> Tensor:
    """r − β Σ_t (log π − log π_ref) [B]: the estimator k1 of the divergence from the reference, in the reward, where
    its expected gradient is that of the divergence (in the loss it is 0)."""
    return rewards - coefficient * masked_sum(log_probs - reference, mask)


def dead_groups(outcomes: Tensor, groups: Tensor, counted: Tensor) -> Tensor:
    """[B] bool: rows of groups (`groups` [B] says which) whose counted rows all have the same outcome, exactly. By
    equality, since the deviation of equal float numbers need not be 0."""
    index = torch.unique(groups, return_inverse=True)[1]
    largest, smallest = (
        _by_group(torch.where(counted, outcomes, fill), index, how)
        for fill, how in ((-torch.inf, "amax"), (torch.inf, "amin"))
    )
    return (largest <= smallest)[index]  # a group of which nothing counts is dead, too


def advantages_of(rewards: Tensor, groups: Tensor, counted: Tensor, *, baseline: str, scale: str) -> Tensor:
    """(reward − baseline) / scale [B] float64, of rewards [B] in `groups` [B] of answers to the same prompt.

    Args:
        rewards: finite where `counted`.
        groups: whatever names the group; its rows need not lie together.
        counted: [B] bool; other rows have advantage 0, and are in no mean and no deviation.
        baseline: mean of the "group", of the "batch", of the group's other rows ("leave_one_out"), or "none", 0.
        scale: deviation (n − 1) of the "group", of the "batch", or "none", 1.

    A group of equal rewards has 0 exactly, where it is compared with itself.
    """
    values = torch.where(counted, rewards.double(), 0)
    index = torch.unique(groups, return_inverse=True)[1]
    ones = counted.double()
    count, batch_count = _by_group(ones, index, "sum")[index], ones.sum().clamp(min=1)
    mean, batch_mean = _by_group(values, index, "sum")[index] / count.clamp(min=1), values.sum() / batch_count
    subtracted = {
        "group": mean,
        "batch": batch_mean,
        "leave_one_out": (mean * count - values) / (count - 1).clamp(min=1),
        "none": torch.zeros_like(mean),
    }[baseline]
    if scale == "group":
        squares = _by_group(torch.where(counted, (values - mean) ** 2, 0), index, "sum")[index]
        divisor = (squares / (count - 1).clamp(min=1)).sqrt()
    elif scale == "batch":
        divisor = (torch.where(counted, (values - batch_mean) ** 2, 0).sum() / (batch_count - 1).clamp(min=1)).sqrt()
    else:
        divisor = torch.ones(())
    found = (values - subtracted) / divisor.clamp(min=_SMALLEST_SCALE)
    compared_with_itself = baseline in ("group", "leave_one_out")
    nothing = ~counted | (dead_groups(values, groups, counted) if compared_with_itself else torch.zeros_like(counted))
    return torch.where(nothing, 0, found)


def _by_group(values: Tensor, index: Tensor, how: str) -> Tensor:
    """One number for each group."""
    size = int(index.max()) + 1
    return torch.zeros(size, dtype=values.dtype, device=values.device).scatter_reduce(
        0, index, values, how, include_self=False
    )


# ---- losses


def token_weights(mask: Tensor, aggregation: str, length: int) -> Tensor:
    """Weights [B, T] with which the mean over rows of Σ_t weight · loss is the aggregate of a whole minibatch:

    "sequence": mean over each row's tokens, then over the rows (GRPO);  "token": mean over all tokens (DAPO);
    "constant": Σ_t / `length`, a setting, so that a long wrong answer costs no less per token (Dr. GRPO).

    As they are computed from all of the minibatch, any parts of it have gradients that add up to the whole's.
    """
    tokens = mask.sum(-1, keepdim=True)
    if aggregation == "sequence":
        return mask / tokens.clamp(min=1)
    if aggregation == "token":
        return mask * (len(mask) / tokens.sum().clamp(min=1))
    return mask / length


def mean_over_rows(losses: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """The mean over rows of Σ_t weight · loss."""
    return torch.where(mask, weights * losses, 0).sum(-1).mean()


def log_ratios_of(log_probs: Tensor, sampled: Tensor, mask: Tensor, level: str) -> Tensor:
    """log π / π_sampled [B, T]: of each "token"; or of the "sequence" (GSPO, equation 7), the mean of its tokens' at
    each of them. Where both are the same it is 0, and its gradient that of log π all the same."""
    ratios = torch.where(mask, log_probs - sampled, 0)
    if level == "token":
        return ratios
    return masked_mean(ratios, mask)[:, None].expand_as(ratios)


def behaviour_weights(old: Tensor, behaviour: Tensor, mask: Tensor, level: str, cap: float) -> Tensor:
    """min(π_old / π_behaviour, cap) [B, T] of log-probabilities [B, T], by token or sequence as the ratios are, where
    weights that lag behind have sampled: with them as factors, and ratios to π_old, a step is bounded around the policy
    that it begins with, not around one of the past (Hilton et al., 2022, arXiv 2110.00641; AReaL, Fu et al., 2025,
    2505.24298, the decoupled objective)."""
    return log_ratios_of(old, behaviour, mask, level).exp().clamp(max=cap)


def clipped_losses(log_ratios: Tensor, advantages: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """−min(ρ A, clip(ρ, 1 − low, 1 + high) A) [B, T] for advantages [B] or [B, T], and where the clipped one counts,
    [B, T] bool (Schulman et al., 2017, equation 7; with two limits as in DAPO)."""
    ratios = log_ratios.exp()
    advantages = advantages[:, None] if advantages.dim() == 1 else advantages
    clipped = ratios.clamp(1 - low, 1 + high)
    plain, bounded = ratios * advantages, clipped * advantages
    return -torch.minimum(plain, bounded), bounded < plain


def capped_losses(log_ratios: Tensor, log_probs: Tensor, advantages: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """−min(ρ, cap) A log π [B, T], no gradient through the weight (truncated importance sampling: Espeholt et al.,
    2018; CISPO), and where it was cut off, [B, T] bool."""
    ratios = log_ratios.detach().exp()
    return -ratios.clamp(max=cap) * advantages[:, None] * log_probs, ratios > cap


def kl_losses(log_probs: Tensor, reference: Tensor, log_ratios: Tensor, mask: Tensor, kind: str) -> Tensor:
    """The estimator k3 of KL(π ‖ π_ref), π_ref / π − 1 − log(π_ref / π), at each token [B, T].

    "k3_in_loss" differentiates it as it is, as GRPO's paper does: on average that is the gradient of the *forward*
    divergence. "k3_corrected" multiplies it by ρ, with its gradient, always per token: then it is the reverse one's.
    """
    difference = torch.where(mask, reference - log_probs, 0)
    estimate = difference.exp() - 1 - difference
    return log_ratios.exp() * estimate if kind == "k3_corrected" else estimate
