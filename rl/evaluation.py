"""Evaluation: how well a policy does, over a number of episodes that is fixed for each environment beforehand.

Taking the first n episodes that end, of many environments, would favour short episodes. So each of the environments
plays its share, and what it plays beyond that doesn't count.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..envs import EnvGroup, EnvSpec, Episode, check_same_spaces, derive_seed, own_generators, resolve, spec_from_json
from ..runtime import InputError
from .checkpoint import find_checkpoint, policy_metadata, run_of
from .lazy import load
from .settings import Bounds, RunSettings
from .threads import limit_threads

MAX_ENVIRONMENTS = 32

#: Seconds between two lines about an evaluation that takes long.
_NEWS_INTERVAL = 10.0

logger = logging.getLogger(__name__)


class Actor(Protocol):
    """What can be evaluated: a `Policy`, a served policy, or anything of this shape."""

    def act(self, observations: Any, *, deterministic: bool = False) -> Any:
        """Actions [B, …] for observations [B, …]."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation measured."""

    episodes: int
    """Number of episodes."""
    episode_return_mean: float
    """Mean undiscounted return."""
    episode_return_std: float
    """Standard deviation of the returns (of the population: divided by the number of episodes)."""
    episode_length_mean: float
    """Mean number of steps."""
    returns: tuple[float, ...]
    """Return of each episode, ordered by environment, then by time."""
    lengths: tuple[int, ...]
    """Steps of each episode, in the same order."""

    def to_json(self) -> dict[str, float]:
        """The summary, without the single episodes."""
        names = ("episodes", "episode_return_mean", "episode_return_std", "episode_length_mean")
        return {name: getattr(self, name) for name in names}


def evaluate(
    policy: Actor | str | Path,
    env: Any = None,
    *,
    episodes: int = 20,
    seed: int = 0,
    deterministic: bool = True,
    env_kwargs: dict[str, Any] | None = None,
    threads: int = 1,
    check: str = "error",
    step_timeout: float | None = None,
) -> Evaluation:
    """Play `episodes` episodes and return their statistics.

    Args:
        policy: something with `act`, or the folder of a run, checkpoint or policy (this imports torch). No module that
        lies in that folder is imported.
        env: id, class or factory, as in `envs.resolve`; may be left out for a folder: then it's the environment of the
        training.
        episodes: how many in total, spread over at most 32 environments that are stepped together.
        seed: decides every reset, apart from any seed used in training.
        deterministic: take the most probable actions.
        env_kwargs: arguments of the environment.
        threads: threads for numerical libraries, while a folder's policy acts.
        check: "error", or "warn" to go on with observations beyond the bounds of their space; step_timeout: seconds
        after which a call into an environment that has not returned raises EnvTimeoutError. As in `RunSettings`.

    Raises InputError for bad arguments, and SpaceMismatchError naming both spaces if the policy was made for others
    than the environment's, ValueError if an action is not finite.
    """
    episodes = Bounds(whole=True, at_least=1).read("episodes", episodes)
    seed = Bounds(whole=True, at_least=0).read("seed", seed)
    threads = Bounds(whole=True, at_least=1).read("threads", threads)
    description: dict[str, Any] | None = None
    folder: Path | None = None
    if isinstance(policy, str | Path):
        folder = run_of(find_checkpoint(policy))
        description = policy_metadata(policy).get("env")
        limit_threads(threads)
        actor: Actor = load("Policy").load(policy)
    else:
        actor = policy
    if env is None and description is None:
        raise InputError("evaluate needs an environment: pass env=…, since the policy does not name one")
    spec = spec_from_json(description or {}, folder=folder) if env is None else resolve(env, env_kwargs)
    size = min(episodes, MAX_ENVIRONMENTS)
    shares = [episodes // size + (index < episodes % size) for index in range(size)]
    settings = RunSettings(seed=seed, check=check, step_timeout=step_timeout)
    finished = _play(actor, spec, shares, deterministic, settings)
    played = [episode for done, share in zip(finished, shares, strict=True) for episode in done[:share]]
    return _evaluation(played)


def _evaluation(played: list[Episode]) -> Evaluation:
    returns, lengths = tuple(float(e.return_) for e in played), tuple(int(e.length) for e in played)
    return Evaluation(
        episodes=len(played),
        episode_return_mean=float(np.mean(returns)),
        episode_return_std=float(np.std(returns)),
        episode_length_mean=float(np.mean(lengths)),
        returns=returns,
        lengths=lengths,
    )


def _play(
    actor: Actor, spec: EnvSpec, shares: list[int], deterministic: bool, settings: RunSettings
) -> list[list[Episode]]:
    """The finished episodes of each environment, until each has finished its share."""
    run_seed = derive_seed(settings.seed, "evaluation")
    with (
        own_generators(run_seed),
        EnvGroup(
            spec,
            size=len(shares),
            first_index=0,
            run_seed=run_seed,
            check=settings.check,
            step_timeout=settings.step_timeout,
        ) as group,
    ):
        check_same_spaces(actor, group, spec.id)
        return _play_shares(actor, group, shares, deterministic)


def _play_shares(actor: Actor, group: EnvGroup, shares: list[int], deterministic: bool) -> list[list[Episode]]:
    finished: list[list[Episode]] = [[] for _ in shares]
    observations = group.reset()
    steps, told_at = 0, time.monotonic()
    while any(len(done) < share for done, share in zip(finished, shares, strict=True)):
        step = group.step(_finite(np.asarray(actor.act(observations, deterministic=deterministic))))
        observations = step.observations
        for episode in step.episodes:
            finished[episode.environment].append(episode)
        steps += 1
        if time.monotonic() - told_at >= _NEWS_INTERVAL:
            told_at = time.monotonic()
            _tell(finished, shares, steps)
    return finished


def _tell(finished: list[list[Episode]], shares: list[int], steps: int) -> None:
    done = sum(min(len(episodes), share) for episodes, share in zip(finished, shares, strict=True))
    advice = "" if done else "; an environment that does not end its episodes needs max_episode_steps"
    logger.warning(
        "evaluation: %d of %d episodes have ended after %d steps of each environment%s",
        done,
        sum(shares),
        steps,
        advice,
    )


def _finite(actions: np.ndarray) -> np.ndarray:
    if actions.dtype.kind == "f" and not np.isfinite(actions).all():
        row = int(np.argwhere(~np.isfinite(actions))[0][0])
        raise ValueError(f"the policy's action for environment {row} is {actions[row]}; want finite numbers")
    return actions
