"""Evaluation: how well a policy does, over a number of episodes that is fixed for each environment beforehand.

Taking the first n episodes that end, of many environments, would favour short episodes. So each of the environments
plays its share, and what it plays beyond that doesn't count.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from ...envs import (
    EnvGroup,
    EnvSpec,
    Episode,
    agents_of_episodes,
    check_same_spaces,
    codec,
    derive_seed,
    inspect_environment,
    mask_of,
    own_generators,
    resolve,
    spec_from_json,
)
from ...runtime import InputError
from ..lazy import load
from ..league import score_of
from ..runs.checkpoint import find_checkpoint, policy_metadata, run_of
from ..settings import Bounds, RunSettings
from ..statistics import mean_returns
from ..threads import limit_threads
from ..trainable import Trainable
from .match import RANDOM, Match
from .result import Evaluation
from .video import check_video, filmed

MAX_ENVIRONMENTS = 32

#: Seconds between two lines about an evaluation that takes long.
_NEWS_INTERVAL = 10.0

logger = logging.getLogger(__name__)


class Actor(Protocol):
    """What can be evaluated: a `Policy`, a served policy, or anything of this shape."""

    def act(self, observations: Any, *, deterministic: bool = False) -> Any:
        """Actions [B, …] for observations [B, …]."""


def evaluate(
    policy: Actor | Trainable | str | Path,
    env: Any = None,
    *,
    episodes: int = 20,
    seed: int = 0,
    deterministic: bool = True,
    env_kwargs: dict[str, Any] | None = None,
    threads: int = 1,
    check: str = "error",
    step_timeout: float | None = None,
    video: str | Path | None = None,
    against: str | Path | None = None,
    samples: int = 1,
) -> Evaluation:
    """Play `episodes` episodes and return their statistics.

    Args:
        policy: something with `act`, a training, or the folder of a run, checkpoint or policy (these import torch). No
        module that lies in that folder is imported.
        env: id, class or factory, as in `envs.resolve`; may be left out for what knows the environment of its training:
        all but a served policy and an `Actor` of your own.
        episodes: how many in total, spread over at most 32 environments that are stepped together.
        seed: decides every reset, apart from any seed used in training.
        deterministic: take the most probable actions.
        env_kwargs: arguments of the environment, on top of those of the training or of what is registered, and of what
        its class has as `evaluation_kwargs`.
        threads: threads for numerical libraries, while a folder's policy acts.
        check: "error", or "warn" to go on with observations beyond the bounds of their space; step_timeout: seconds
        after which a call into an environment that has not returned raises EnvTimeoutError. As in `RunSettings`.
        against: of several agents, who plays all but one, in environment e all but agent e, counted round: "random", or
        the folder of another policy. What came of it is in `scores`.
        samples: of a language model, answers that are drawn for each of `episodes` prompts; `pass_at` tells of several.
        video: .mp4 or .gif file to write, of the episodes of the first environment; needs the extra `video`.

    Raises InputError for bad arguments, SpaceMismatchError, naming both, if the policy is for other spaces than the
    environment's, ValueError if an action is not finite.
    """
    count = Bounds(whole=True, at_least=1)
    episodes, threads = count.read("episodes", episodes), count.read("threads", threads)
    seed, samples = Bounds(whole=True, at_least=0).read("seed", seed), count.read("samples", samples)
    path = None if video is None else check_video(video)
    actor, own = _read_policy(policy, threads)
    described = own() if env is None else env
    if described is None:
        raise InputError("evaluate needs an environment: pass env=… (--env), since the policy names none")
    spec = evaluation_spec(described, env_kwargs or {})
    settings = RunSettings(seed=seed, check=check, step_timeout=step_timeout)
    how: Any = {"run_seed": derive_seed(seed, "evaluation"), "deterministic": deterministic, "settings": settings}
    if getattr(actor, "answers_texts", False) or samples > 1:
        return _evaluate_texts(actor, spec, episodes, how, samples, numbers_only=(video, against))
    seen = getattr(actor, "observation_space", None)
    if seen is not None and mask_of(seen) is not None:  # which an environment may tell in its info
        spec = replace(spec, mask_from_info=True)
    if against is not None:
        actor = Match(actor, None if against == RANDOM else load("load_policy")(against), seed=seed)
    with contextlib.nullcontext(spec) if path is None else filmed(spec, path, _shares(episodes)[0]) as made:
        return play(actor, made, episodes, **how)


def _read_policy(policy: Any, threads: int) -> tuple[Actor, Callable[[], EnvSpec | None]]:
    """What acts, and what tells the environment of its training, None if nobody knows it."""
    if isinstance(policy, Trainable):
        training: Any = policy
        if not hasattr(type(training), "policy"):
            raise InputError(
                f"a training by {type(training).__name__} has no policy: evaluate(table), its own, scores it"
            )
        return training.policy, lambda: training.spec
    if not isinstance(policy, str | Path):
        return policy, lambda: _described(getattr(policy, "env", None), None)
    limit_threads(threads)
    description = policy_metadata(policy).get("env")
    return load("load_policy")(policy), lambda: _described(description, run_of(find_checkpoint(policy)))


def _described(description: Any, folder: Path | None) -> EnvSpec | None:
    return spec_from_json(description, folder=folder) if isinstance(description, dict) else None


def _evaluate_texts(
    actor: Any, spec: EnvSpec, episodes: int, how: dict[str, Any], samples: int, *, numbers_only: tuple[Any, ...]
) -> Evaluation:
    """Let a language model answer; greedily only where there is one answer to each prompt. InputError for another
    policy, and for arguments that only others have."""
    if not getattr(actor, "answers_texts", False):
        raise InputError(f"samples is {samples}, but the policy is no language model: play more episodes")
    if any(each is not None for each in numbers_only):
        raise InputError("a language model is neither filmed nor played against: leave out video and against")
    settings = how["settings"]
    found = inspect_environment(spec, run_seed=how["run_seed"], mode=settings.check, step_timeout=settings.step_timeout)
    actor.check_task(found, spec.id)
    how = how | {"deterministic": how["deterministic"] and samples == 1}
    told: Evaluation = load("play_texts")(actor, found.spec, episodes, **how, samples=samples)
    return told


def play(
    actor: Actor,
    spec: EnvSpec,
    episodes: int,
    *,
    run_seed: int,
    deterministic: bool,
    settings: RunSettings,
    each_step: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Evaluate `actor` on environments whose every random number derives from `run_seed`.

    `each_step` is called before each step of the environments, which are closed if it raises.
    """
    if getattr(actor, "answers_texts", False):
        how = {"run_seed": run_seed, "deterministic": deterministic, "settings": settings, "each_step": each_step}
        found: Evaluation = load("play_texts")(actor, spec, episodes, **how)
        return found
    shares = _shares(episodes)
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
        finished = _play_shares(actor, group, shares, deterministic, each_step)
    played = [episode for done, share in zip(finished, shares, strict=True) for episode in done[:share]]
    found = _evaluation(played)
    if not isinstance(actor, Match):
        return found
    names = actor.agents
    seated = [msgspec.structs.replace(each, seat=names[each.environment % len(names)]) for each in played]
    return replace(found, scores=tuple(score_of(episode) for episode in seated))


def _shares(episodes: int) -> list[int]:
    """Episodes that each environment plays."""
    size = min(episodes, MAX_ENVIRONMENTS)
    return [episodes // size + (index < episodes % size) for index in range(size)]


def evaluation_spec(env: Any, env_kwargs: dict[str, Any]) -> EnvSpec:
    """The environment to play in, with what its class says is different in evaluations, unless the user says it."""
    spec = resolve(env)
    made = resolve(spec, {**getattr(spec.entry, "evaluation_kwargs", {}), **env_kwargs})
    return replace(made, tells_state=False)  # only critics see that


def _evaluation(played: list[Episode]) -> Evaluation:
    returns, lengths = tuple(float(e.return_) for e in played), tuple(int(e.length) for e in played)
    return Evaluation(
        episodes=len(played),
        episode_return_mean=float(np.mean(returns)),
        episode_return_std=float(np.std(returns)),
        episode_length_mean=float(np.mean(lengths)),
        returns=returns,
        lengths=lengths,
        agents=mean_returns(played),
    )


def _play_shares(
    actor: Actor, group: EnvGroup, shares: list[int], deterministic: bool, each_step: Callable[[], None]
) -> list[list[Episode]]:
    """The finished episodes of each environment, until each has finished its share."""
    finished: list[list[Episode]] = [[] for _ in shares]
    seen, taken = codec(group.observation_space), codec(group.action_space)
    begin = getattr(actor, "initial_memory", None)
    memory = None if begin is None else begin(len(shares))
    begins = np.ones(len(shares), np.bool_)
    observations = group.reset()
    steps, told_at = 0, time.monotonic()
    while any(len(done) < share for done, share in zip(finished, shares, strict=True)):
        each_step()
        given = seen.unpack(observations)
        if memory is None:
            chosen = actor.act(given, deterministic=deterministic)
        else:
            chosen, memory = actor.act_with_memory(given, memory, begins, deterministic=deterministic)  # type: ignore[attr-defined]
        if taken.is_nested:
            actions = np.empty(len(shares), taken.dtype)
            taken.put(actions, chosen)
        else:
            actions = _finite(np.asarray(chosen))
        step = group.step(actions)
        observations, begins = step.observations, step.terminations | step.truncations
        for episode in agents_of_episodes(group.observation_space, step):
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
