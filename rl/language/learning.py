"""What updates of language models have in common: samples as tensors, log-probabilities in parts, whose weights they
are, passes over them, and metrics.

This module doesn't import torch (see `lazy`): algorithms import it for its names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...runtime import ShoalError
from ..clock import Clock
from ..data.rollout import Rollout
from ..lazy import losses, torch
from ..schedules import rate_at
from .algorithm import LanguageConfig
from .samples import REWARD_OF, Samples

if TYPE_CHECKING:
    from torch import Tensor

    from ..learn.learner import Learner
    from ..learn.shards import LossOf

_DIGITS = 13
"""Of a weights' hash that a learner notes: as many as a float64 holds."""


class UnknownWeightsError(ShoalError):
    """Answers came from weights that the learner never had, or that are too old."""


def log_probs_of(model: Any, tokens: Tensor, temperature: float) -> Tensor:
    """log π [B, L] of each of `tokens` [B, L] int64, given those before it."""
    found: Tensor = losses.log_probs_of(model(tokens), tokens, temperature)
    return found


def log_probs_in_parts(learner: Learner, model: Any, tokens: Tensor, config: LanguageConfig) -> Tensor:
    """As `log_probs_of`, without gradients, float32: in the precision of the loss, `batch_size` rows at a time, so that
    their bits are those that a minibatch has."""
    with torch.no_grad(), learner.in_precision(tokens.device):
        parts = [log_probs_of(model, part, config.temperature) for part in tokens.split(config.batch_size)]
        return torch.cat(parts).float()


def add_old_policy(learner: Learner, batch: dict[str, Tensor], config: Any) -> dict[str, float]:
    """Have `sampled` of a batch be log π_old [B, L]: as it was, or of the learner's weights of now where `config` says
    to recompute it, or has a `behaviour_cap`; then tokens also have `importance` [B, L], π_old / π_behaviour up to that
    (see `losses.behaviour_weights`). `generated` is what it was. Returns metrics."""
    batch["generated"], cap = batch["sampled"], config.behaviour_cap
    if cap is not None or config.recompute == "same_shape":
        batch["sampled"] = log_probs_in_parts(learner, learner.model, batch["tokens"], config)
    if cap is None:
        return {}
    both = batch["sampled"], batch["generated"]
    batch["importance"] = losses.behaviour_weights(*both, batch["mask"], config.ratio, cap)
    return {"train/importance": float(batch["importance"][batch["mask"]].mean())}


def values_of(values: Tensor) -> Tensor:
    """V [B, L] before each token, of `values` [B, L] after each."""
    return torch.nn.functional.pad(values[:, :-1], (1, 0))


def values_in_parts(learner: Learner, tokens: Tensor, config: LanguageConfig) -> Tensor:
    """`values_of` of the learner's model, which has a value head, as `log_probs_in_parts`."""
    with torch.no_grad(), learner.in_precision(tokens.device):
        parts = [values_of(learner.model.evaluate(part)[1]) for part in tokens.split(config.batch_size)]
        return torch.cat(parts).float()


def sampled_batch(learner: Learner, rollout: Rollout) -> dict[str, Tensor]:
    """The rows of samples as tensors: `tokens` [B, L] int64, `mask` [B, L] bool, `sampled` [B, L], log π of the weights
    that sampled; `rewards` [B] float64, `cut` [B] bool, `solved` [B] float64 of 0 and 1, `prompts` [B] int64."""
    steps = rollout.steps
    columns = {
        "tokens": steps["tokens"].astype(np.int64),
        "mask": steps["mask"],
        "sampled": steps["log_probs"],
        "rewards": steps["rewards"].astype(np.float64),
        "cut": steps["cut"],
        "solved": steps["solved"].astype(np.float64),
        "prompts": steps["prompts"],
    }
    return learner.tensors(columns)


def check_weights(learner: Learner, rollout: Rollout, max_lag: int) -> None:
    """Note which weights the learner has now, and refuse samples of any but those of the last `max_lag` updates.

    Raises:
        UnknownWeightsError: names the group, the version it says, and both hashes.
    """
    model, numbers, now = learner.model, learner.numbers, learner.iteration
    numbers[_entry(now)] = _number(model.layout.sha256(model.get_weights()))
    numbers.pop(_entry(now - max_lag - 1), None)
    for group in rollout.parts or (rollout,):
        assert isinstance(group, Samples)
        known = numbers.get(_entry(group.version)) if now - max_lag <= group.version <= now else None
        if known != _number(group.weights_sha256):
            raise UnknownWeightsError(
                f"group {group.group} was sampled by weights {group.weights_sha256[:_DIGITS]} of version "
                f"{group.version}, but the learner, at version {now}, had "
                f"{'none of that version' if known is None else f'{int(known):0{_DIGITS}x}'}: they were changed on the "
                "way, or are of another training"
            )


def learn_from_answers(
    learner: Learner,
    batch: dict[str, Tensor],
    config: LanguageConfig,
    clock: Clock,
    *,
    loss_of: LossOf,
    aggregation: str,
) -> dict[str, float]:
    """Descend on minibatches of an iteration's answers, which have `advantages`, `n_epochs` times; `loss_of` is as in
    `Learner.differentiate`, and finds in each minibatch the `weights` [B, L] of its tokens, by which
    `losses.mean_over_rows` aggregates them.

    Returns the means of what it tells. Its `difference` [B], how far log-probabilities are from those of the weights
    that sampled, is told of the first minibatch alone: only there both weights are the same.
    """
    learner.advantages = batch["advantages"].cpu().numpy()
    rate = rate_at(config.learning_rate, clock.remaining)
    history: list[dict[str, Tensor]] = []
    for epoch in range(config.n_epochs):
        for minibatch in learner.minibatches(batch, config.batch_size, epoch):
            minibatch["weights"] = losses.token_weights(minibatch["mask"], aggregation, config.max_new_tokens)
            told = learner.minimize(minibatch, loss_of, learning_rate=rate, max_grad_norm=config.max_grad_norm)
            history.append(told)
        learner.n_updates += 1
    difference = float(history[0].pop("difference").max())
    means = {name: float(torch.stack([told[name] for told in history]).mean()) for name in history[0]}
    return means | {"train/log_prob_difference": difference, "train/learning_rate": rate}


def _entry(version: int) -> str:
    return f"weights of version {version}"


def _number(sha256: str) -> float:
    return float(int(sha256[:_DIGITS], 16))


def sampling_metrics(learner: Learner, rollout: Rollout, dead: Tensor | None, max_lag: int) -> dict[str, float]:
    """What there is to say of samples: reward, length, entropy, shares of what was cut off and of rows in dead groups
    (where answers are compared in groups), and how far behind the weights were that sampled, `lag/N`."""
    steps, parts = rollout.steps, rollout.parts or (rollout,)
    mask, tokens = steps["mask"], steps["mask"].sum(-1)
    lags = np.array([learner.iteration - group.version for group in parts])
    left = (steps["log_probs"] - steps["sampled_log_probs"])[mask]
    return {
        "train/n_updates": learner.n_updates,
        "rollout/reward_mean": float(steps["rewards"].mean()),
        "rollout/reward_std": float(steps["rewards"].std()),
        "rollout/tokens_mean": float(tokens.mean()),
        "rollout/tokens_max": int(tokens.max()),
        "rollout/cut": float(steps["cut"].mean()),
        "rollout/solved": float(steps["solved"].mean()),
        "rollout/entropy": float(steps["entropies"][mask].mean()),
        "rollout/filtered": float(1 - np.exp(left).mean()),
        **({} if dead is None else {"rollout/dead_groups": float(dead.double().mean())}),
        **{f"rollout/{name}": float(value.mean()) for name, value in steps.items() if name.startswith(REWARD_OF)},
        **{f"lag/{lag}": float(np.mean(lags == lag)) for lag in range(max_lag + 1)},
    }
