"""Off-policy evaluation: what a policy would earn, from episodes that another one played.

Each step of an episode has a ratio ρ_t = π(a_t|s_t) / μ(a_t|s_t), of the policy that is evaluated and the one that
acted; G is the discounted return, w_t = ρ_0 · … · ρ_t (Precup, Sutton & Singh, 2000).

    importance_sampling                   mean of w G                              no bias, largest variance
    weighted_importance_sampling          Σ w G / Σ w                              consistent, much less variance
    per_decision_importance_sampling      mean of Σ_t γ^t w_t r_t                  no bias, less variance
    weighted_per_decision_importance_sampling   Σ_t γ^t (Σ w_t r_t / Σ w_t)        consistent   (Thomas, 2015)

All take log-ratios, since products of hundreds of ratios leave the range of floats. A policy that never takes some
action says nothing of episodes that do: where it is greedy, evaluate it ε-greedily.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...envs import codec
from ...runtime import InputError, nearest
from ..data.dataset import Dataset, RecordedEpisode
from ..lazy import load, torch
from ..settings import Bounds

if TYPE_CHECKING:
    from ..models.policy import Policy

Episodes = Sequence[np.ndarray]
"""An array [T] for each episode; lengths may differ."""


@dataclass(frozen=True, kw_only=True)
class OffPolicyEstimate:
    """What was estimated."""

    value: float
    """Mean discounted return of the policy."""
    standard_error: float
    """Of the value, from how episodes differ; NaN for a single one."""
    effective_episodes: float
    """(Σ w)² / Σ w²: how many episodes of the policy itself these are worth (Kong, 1992)."""
    episodes: int
    """Episodes that were used."""


def importance_sampling(rewards: Episodes, log_ratios: Episodes, *, gamma: float) -> OffPolicyEstimate:
    """Ordinary importance sampling, from rewards and log-ratios [T] of each episode."""
    returns, logs = _returns(rewards, gamma), _totals(rewards, log_ratios)
    return _mean(np.exp(logs) * returns, logs)


def per_decision_importance_sampling(rewards: Episodes, log_ratios: Episodes, *, gamma: float) -> OffPolicyEstimate:
    """Each reward counts by the ratios of the steps until it."""
    logs = _totals(rewards, log_ratios)
    weighted = [np.exp(np.cumsum(ratios)) * given for given, ratios in zip(rewards, log_ratios, strict=True)]
    return _mean(_returns(weighted, gamma), logs)


def weighted_importance_sampling(rewards: Episodes, log_ratios: Episodes, *, gamma: float) -> OffPolicyEstimate:
    """The mean of the returns, each as often as its weight says."""
    returns, logs = _returns(rewards, gamma), _totals(rewards, log_ratios)
    weights = _normalized(logs)
    value = float(weights @ returns)
    error = float(np.sqrt(np.square(weights * (returns - value)).sum())) if len(logs) > 1 else float("nan")
    return OffPolicyEstimate(value=value, standard_error=error, effective_episodes=_effective(logs), episodes=len(logs))


def weighted_per_decision_importance_sampling(
    rewards: Episodes, log_ratios: Episodes, *, gamma: float
) -> OffPolicyEstimate:
    """At each step the mean of the rewards, each as often as its weight until then says; after its end an episode has
    rewards of 0 and keeps its weight."""
    logs = _totals(rewards, log_ratios)
    longest = max(map(len, rewards))
    earned, sums = np.zeros((2, len(rewards), longest))
    for row, (given, ratios) in enumerate(zip(rewards, log_ratios, strict=True)):
        earned[row, : len(given)] = given
        sums[row] = np.concatenate([np.cumsum(ratios), np.full(longest - len(ratios), np.sum(ratios))])
    weights = np.stack([_normalized(column) for column in sums.T], 1)  # [episodes, T], columns sum to 1
    discounts = gamma ** np.arange(longest)
    means = (weights * earned).sum(0)
    spread = ((weights * (earned - means)) * discounts).sum(1)
    error = float(np.sqrt(np.square(spread).sum())) if len(logs) > 1 else float("nan")
    return OffPolicyEstimate(
        value=float(means @ discounts), standard_error=error, effective_episodes=_effective(logs), episodes=len(logs)
    )


def epsilon_greedy_log_probs(log_probs: np.ndarray, allowed: np.ndarray | int, epsilon: float) -> np.ndarray:
    """log((1 − ε) π + ε / n): of a policy that takes one of `allowed` actions at random with probability ε, from its
    log-probabilities without that. Any shape, float64."""
    with np.errstate(divide="ignore"):  # of probability 0
        return np.log((1 - epsilon) * np.exp(np.asarray(log_probs, np.float64)) + epsilon / np.asarray(allowed))


METHODS: dict[str, Callable[..., OffPolicyEstimate]] = {
    "is": importance_sampling,
    "wis": weighted_importance_sampling,
    "pdis": per_decision_importance_sampling,
    "wpdis": weighted_per_decision_importance_sampling,
}
"""Estimators by their names in the field."""


def evaluate_off_policy(
    policy: Policy | str | Path,
    dataset: Dataset | str | Path,
    *,
    method: str = "wis",
    gamma: float = 0.99,
    epsilon: float = 0.0,
    deterministic: bool = True,
) -> OffPolicyEstimate:
    """Estimate a policy of Discrete actions from a dataset that holds the log-probabilities of its actions (`shoal
    record` writes them).

    Args:
        policy: a `Policy`, or the folder of a run, checkpoint or policy (this imports torch).
        dataset: a `Dataset`, its id or its folder.
        method: a key of `METHODS`.
        gamma: discount per step.
        epsilon: how often the policy takes a random action.
        deterministic: evaluate its best action; else its distribution.

    Raises InputError for bad arguments, a dataset without log-probabilities, or one in which no episode is possible
    with the policy; SpaceMismatchError, naming both, if their spaces differ.
    """
    if method not in METHODS:
        raise InputError(f"method is {method!r}, but must be one of {', '.join(METHODS)}. {nearest(method, METHODS)}")
    gamma = Bounds(at_least=0, at_most=1).read("gamma", gamma)
    epsilon = Bounds(at_least=0, at_most=1).read("epsilon", epsilon)
    data = dataset if isinstance(dataset, Dataset) else Dataset(dataset)
    acting: Policy = load("Policy").load(policy) if isinstance(policy, str | Path) else policy
    data.check_fits("the policy", acting.observation_space, acting.action_space)
    if codec(data.action_space).kind != "Discrete":
        raise InputError(
            "off-policy evaluation here is of Discrete actions: others have densities, which a greedy "
            "policy lacks. Give rewards and log-ratios to the functions of this module"
        )
    rewards, log_ratios = [], []
    for index, episode in enumerate(data.read(range(data.episodes))):
        if episode.log_probs is None:
            raise InputError(
                f"episode {index} of dataset {data.name!r} does not say how probable its actions were: record it with "
                "`shoal record`, greedy or with --epsilon"
            )
        own = epsilon_greedy_log_probs(*_log_probs(acting, episode, deterministic), epsilon)
        rewards.append(episode.rewards.astype(np.float64))
        log_ratios.append(own - episode.log_probs)
    return METHODS[method](rewards, log_ratios, gamma=gamma)


def _log_probs(policy: Any, episode: RecordedEpisode, deterministic: bool) -> tuple[np.ndarray, np.ndarray | int]:
    """log π(a_t|s_t) [T], and how many actions are allowed there."""
    model, observations = policy.model, episode.observations[:-1]
    with torch.inference_mode():
        rows = model.encode(observations)
        outputs, taken = model.outputs(rows), torch.from_numpy(model.own_actions(episode.actions))
        mask = model.mask(rows)
        allowed = codec(policy.action_space).row_size if mask is None else mask.sum(-1).numpy()
        if deterministic or not hasattr(model, "distribution"):
            with np.errstate(divide="ignore"):
                return np.log((model.choose(outputs, None) == taken).numpy().astype(np.float64)), allowed
        return model.distribution(outputs).log_prob(taken).numpy(), allowed


def _returns(rewards: Episodes, gamma: float) -> np.ndarray:
    return np.array([np.asarray(given) @ gamma ** np.arange(len(given)) for given in rewards])


def _totals(rewards: Episodes, log_ratios: Episodes) -> np.ndarray:
    """Sum of the log-ratios of each episode; ValueError, naming the episode, if it has not as many as rewards."""
    if not len(rewards):
        raise ValueError("there is no episode to estimate from")
    for index, (given, ratios) in enumerate(zip(rewards, log_ratios, strict=True)):
        if np.shape(given) != np.shape(ratios) or np.ndim(given) != 1:
            raise ValueError(
                f"episode {index} has rewards of shape {np.shape(given)}, log-ratios of {np.shape(ratios)}"
            )
    return np.array([np.sum(ratios) for ratios in log_ratios], np.float64)


def _normalized(logs: np.ndarray) -> np.ndarray:
    """Weights whose sum is 1, of which `logs` are the logarithms but for a common number."""
    highest = logs.max()
    if highest == -np.inf:
        raise InputError(
            "no episode is possible with this policy: each holds an action that it never takes. Evaluate it with an "
            "epsilon above 0, or its distribution"
        )
    weights = np.exp(logs - highest)
    return weights / weights.sum()


def _effective(logs: np.ndarray) -> float:
    return float(1 / np.square(_normalized(logs)).sum())


def _mean(values: np.ndarray, logs: np.ndarray) -> OffPolicyEstimate:
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    return OffPolicyEstimate(
        value=float(values.mean()), standard_error=error, effective_episodes=_effective(logs), episodes=len(values)
    )
