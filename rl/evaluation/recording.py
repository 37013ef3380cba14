"""Recording: episodes of a policy, of random play, or of both, as a Minari dataset.

Units of episodes are played by actors, each unit in a simulation group of its own, and written in their order. What
happens in one follows from the seed and its number alone, so a dataset is the same, byte for byte, for any number of
workers and whatever is killed.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec as GymnasiumSpec

from ... import runtime
from ...envs import (
    EnvGroup,
    EnvSpec,
    GroupStep,
    allowed_action,
    check_same_spaces,
    codec,
    derive_seed,
    inspect_environment,
    mask_of,
    own_generators,
    resolve,
    spec_from_json,
    spec_to_json,
    stream,
)
from ...runtime import InputError, get
from ..data.dataset import RecordedEpisode
from ..data.dataset_writer import DatasetWriter, check_dataset_id
from ..lazy import load
from ..runs.checkpoint import SavedPolicy, find_checkpoint, read_policy, run_of
from ..settings import Bounds, RunSettings
from ..threads import limit_threads, limit_torch_threads

if TYPE_CHECKING:
    from ..models.policy import Policy

_ENVIRONMENTS = 8
"""Stepped together in a unit."""
_EPISODES = 32
"""Of a unit, at most."""
_PURPOSE = "recording"


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How episodes are played. Raises InputError on values that cannot be."""

    deterministic: bool = True
    """Whether the policy takes its best action; else it is drawn."""
    random_share: float = 0.0
    """Share of the episodes in which all actions are random."""
    epsilon: float = 0.0
    """How often, in the others, an action is random."""

    def __post_init__(self) -> None:
        for name in ("random_share", "epsilon"):
            object.__setattr__(self, name, Bounds(at_least=0, at_most=1).read(name, getattr(self, name)))

    def is_random(self, episode: int) -> bool:
        """Whether all of an episode is random: they are spread evenly."""
        return math.floor((episode + 1) * self.random_share) > math.floor(episode * self.random_share)


@dataclass(frozen=True)
class Recording:
    """What was recorded."""

    dataset: str
    """Its id."""
    path: str
    """Its folder."""
    env: str
    """Id of the environment."""
    episodes: int
    steps: int
    episode_return_mean: float
    episode_return_std: float

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


def record(
    policy: str | Path | None,
    env: Any = None,
    *,
    dataset: str,
    episodes: int = 100,
    seed: int = 0,
    deterministic: bool = True,
    random_share: float = 0.0,
    epsilon: float = 0.0,
    workers: int = 1,
    env_kwargs: dict[str, Any] | None = None,
    overwrite: bool = False,
    check: str = "error",
    step_timeout: float | None = None,
    threads: int = 1,
) -> Recording:
    """Play episodes and write them as a Minari dataset; `minari.load_dataset` reads it.

    policy: folder of a run (its last weights), checkpoint or policy; None plays at random.
    env: id, class or factory; may be left out with a policy: then it is the environment of its training.
    dataset: Minari id to write, such as "cartpole/expert-v0"; `overwrite` replaces one of that id.
    deterministic, random_share, epsilon: as in `Behaviour`.
    workers: actors that play; they have no influence on what is recorded, which `seed` decides.
    env_kwargs, check, step_timeout, threads: as in `evaluate`.

    The runtime is started if it is not running. Raises InputError for bad arguments, SpaceMismatchError if the policy
    was made for other spaces than the environment's.
    """
    episodes = Bounds(whole=True, at_least=1).read("episodes", episodes)
    settings = RunSettings(seed=seed, check=check, step_timeout=step_timeout, threads=threads, workers=workers)
    behaviour = Behaviour(deterministic=deterministic, random_share=random_share, epsilon=epsilon)
    check_dataset_id(dataset, overwrite=overwrite)
    saved = None if policy is None else read_policy(policy)
    spec = _environment(policy, saved, env, env_kwargs or {})
    found = inspect_environment(spec, run_seed=settings.seed, mode=check, step_timeout=step_timeout)
    if saved is not None:
        check_same_spaces(saved.spec, found, spec.id)
    if not runtime.is_initialized():
        runtime.init()
    writer = DatasetWriter(
        dataset,
        observation_space=found.observation_space,
        action_space=found.action_space,
        environment=spec_to_json(found.spec),
        gymnasium_spec=_gymnasium_spec(found.spec),
        metadata=_metadata(policy, saved, behaviour, settings.seed),
        overwrite=overwrite,
    )
    with writer:
        played = _played(found.spec, saved, behaviour, settings, episodes)
        returns, lengths = zip(*_written(writer, played), strict=True)
    mean, deviation = float(np.mean(returns)), float(np.std(returns))
    return Recording(dataset, str(writer.path), spec.id, episodes, sum(lengths), mean, deviation)


def _written(writer: DatasetWriter, played: Iterable[list[RecordedEpisode]]) -> Iterator[tuple[float, int]]:
    """Return and length of each episode, once it is written."""
    for episodes in played:
        writer.write(episodes)
        yield from ((float(episode.rewards.sum(dtype=np.float64)), len(episode)) for episode in episodes)


def _environment(policy: Any, saved: SavedPolicy | None, env: Any, env_kwargs: dict[str, Any]) -> EnvSpec:
    """The environment to play in; where the policy sees a mask, one that an environment tells in its info, too."""
    if env is not None:
        return resolve(resolve(env, env_kwargs))
    if saved is None or saved.metadata.get("env") is None:
        raise InputError("record needs an environment: pass env=…, since no policy names one")
    found = spec_from_json(saved.metadata["env"], folder=run_of(find_checkpoint(policy)))
    return resolve(found, env_kwargs)


def _gymnasium_spec(spec: EnvSpec) -> GymnasiumSpec | None:
    """What gymnasium makes the same environment from, if it can; with it `minari` recovers the environment."""
    if spec.mask_from_info or spec.generators:
        return None
    entry = spec.entry
    if isinstance(entry, str):
        entry = gymnasium.spec(entry)
    if not isinstance(entry, GymnasiumSpec) or not isinstance(entry.entry_point, str):
        return None
    made = copy.deepcopy(entry)
    made.kwargs = {**made.kwargs, **spec.kwargs}
    made.max_episode_steps = spec.max_episode_steps
    return made


def _metadata(policy: Any, saved: SavedPolicy | None, behaviour: Behaviour, seed: int) -> dict[str, Any]:
    """Entries of Minari's metadata that say how it came about."""
    parts = [] if saved is None else [f"policy {Path(policy).name!r} of version {saved.metadata['version']}"]
    if saved is None or behaviour.random_share:
        share = 1.0 if saved is None else behaviour.random_share
        parts.append(f"random actions in a share of {share:g} of the episodes")
    if behaviour.epsilon:
        parts.append(f"each other action random with probability {behaviour.epsilon:g}")
    name = "random" if saved is None else f"{saved.spec.kind}{'' if behaviour.deterministic else ', stochastic'}"
    return {"algorithm_name": name, "description": f"{', '.join(parts)}; seed {seed}. Recorded by shoal"}


def _played(
    spec: EnvSpec,
    saved: SavedPolicy | None,
    behaviour: Behaviour,
    settings: RunSettings,
    episodes: int,
) -> Iterator[list[RecordedEpisode]]:
    """The episodes of each unit, in order; two units for each worker are under way at most."""
    counts = [min(_EPISODES, episodes - first) for first in range(0, episodes, _EPISODES)]
    actor = runtime.remote(EpisodePlayer).options(max_restarts=-1, max_task_retries=10, lineage=False)
    players = [actor.remote(spec, saved, behaviour, settings) for _ in range(min(settings.workers, len(counts)))]
    ahead: deque[Any] = deque()
    try:
        for unit, count in enumerate(counts):
            ahead.append(players[unit % len(players)].play.remote(unit, count))
            if len(ahead) >= 2 * len(players):
                yield get(ahead.popleft())
        while ahead:
            yield get(ahead.popleft())
    finally:
        for player in players:
            runtime.kill(player)


class EpisodePlayer:
    """Actor class. What it gives depends on its arguments alone, so a call can be repeated by a restarted process."""

    def __init__(self, spec: EnvSpec, saved: SavedPolicy | None, behaviour: Behaviour, settings: RunSettings) -> None:
        limit_threads(settings.threads)
        self._spec, self._behaviour, self._settings = spec, behaviour, settings
        self._policy: Policy | None = None
        if saved is not None:
            self._policy = load("Policy").of(saved.spec)
            weights = saved.weights_for(self._policy.model.layout)
            self._policy.set_weights(weights, version=int(saved.metadata["version"]))

    def play(self, unit: int, count: int) -> list[RecordedEpisode]:
        """The `count` episodes of a unit, ordered by environment, then by time."""
        limit_torch_threads(self._settings.threads)
        seed, size = self._settings.seed, min(count, _ENVIRONMENTS)
        with (
            own_generators(derive_seed(seed, _PURPOSE, unit)),
            EnvGroup(
                self._spec,
                size=size,
                first_index=unit * _ENVIRONMENTS,
                run_seed=derive_seed(seed, _PURPOSE),
                check=self._settings.check,
                step_timeout=self._settings.step_timeout,
            ) as group,
        ):
            return _Unit(group, self._policy, self._behaviour, seed=seed, unit=unit, count=count).play()


class _Unit:
    """The episodes of one group, row by row; episode number k of the dataset is that of row and turn."""

    def __init__(
        self, group: EnvGroup, policy: Policy | None, behaviour: Behaviour, *, seed: int, unit: int, count: int
    ) -> None:
        self._group, self._policy, self._behaviour = group, policy, behaviour
        size = group.size
        self._shares = [count // size + (row < count % size) for row in range(size)]
        self._firsts = unit * _EPISODES + np.cumsum([0, *self._shares])[:-1]
        self._done: list[list[RecordedEpisode]] = [[] for _ in range(size)]
        self._steps: list[list[tuple[Any, Any, float, float]]] = [[] for _ in range(size)]
        self._seen, self._taken = codec(group.observation_space), codec(group.action_space)
        self._explores, self._noise = stream(seed, "recording exploration", unit), stream(seed, "recording", unit)
        self._space = copy.deepcopy(group.action_space)
        self._space.seed(derive_seed(seed, "recording random actions", unit) % 2**31)
        self._memory = None if policy is None else policy.initial_memory(size)
        self._begins = np.ones(size, np.bool_)

    def play(self) -> list[RecordedEpisode]:
        observations = self._group.reset()
        while any(len(done) < share for done, share in zip(self._done, self._shares, strict=True)):
            actions, log_probs = self._choose(observations)
            step = self._group.step(actions)
            self._keep(observations, actions, log_probs, step)
            observations, self._begins = step.observations, step.terminations | step.truncations
        return [episode for done in self._done for episode in done]

    def _choose(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of actions, and the log-probability of each, NaN where that is not known."""
        size = len(observations)
        actions = self._random_actions(observations)
        epsilons = np.array([self._epsilon(row) for row in range(size)])
        explores = self._explores.random(size) < epsilons
        if self._policy is None:
            return actions, self._log_probs(observations, actions, actions, epsilons)
        given = self._seen.unpack(observations)
        chosen, self._memory = self._policy.act_with_memory(
            given,
            self._memory,
            self._begins,
            deterministic=self._behaviour.deterministic,
            noise_stream=self._noise,
        )
        wanted = np.empty_like(actions)
        self._taken.put(wanted, chosen)
        actions = np.where(explores.reshape(size, *(1,) * (actions.ndim - 1)), actions, wanted)
        return actions, self._log_probs(observations, actions, wanted, epsilons)

    def _epsilon(self, row: int) -> float:
        episode = int(self._firsts[row]) + len(self._done[row])
        return 1.0 if self._policy is None or self._behaviour.is_random(episode) else self._behaviour.epsilon

    def _random_actions(self, observations: np.ndarray) -> np.ndarray:
        rows = np.empty((len(observations), *self._taken.shape), self._taken.dtype)
        for row, observation in enumerate(observations):
            drawn = allowed_action(self._group.action_space, self._space.sample(), self._seen.unpack(observation))
            rows[row] = self._taken.pack(drawn)
        return rows

    def _log_probs(
        self, observations: np.ndarray, actions: np.ndarray, wanted: np.ndarray, epsilons: np.ndarray
    ) -> np.ndarray:
        """log(ε / n + (1 − ε) · [the action is the policy's]), of n allowed actions, where these are Discrete and the
        policy takes its best one."""
        known = self._taken.kind == "Discrete" and (self._policy is None or self._behaviour.deterministic)
        if not known:
            return np.full(len(actions), np.nan, np.float32)
        masked = mask_of(self._group.observation_space) is not None
        allowed = observations["action_mask"].sum(-1) if masked else np.full(len(actions), self._taken.row_size)
        return np.log(epsilons / allowed + (1 - epsilons) * (actions == wanted)).astype(np.float32)

    def _keep(self, observations: np.ndarray, actions: np.ndarray, log_probs: np.ndarray, step: GroupStep) -> None:
        ended = {episode.environment - self._group.first_index: episode for episode in step.episodes}
        for row, steps in enumerate(self._steps):
            if len(self._done[row]) == self._shares[row]:
                continue
            steps.append((observations[row].copy(), actions[row].copy(), step.rewards[row], log_probs[row]))
            if row in ended:
                self._done[row].append(self._episode(row, step, ended[row].seed))
                steps.clear()

    def _episode(self, row: int, step: GroupStep, seed: int) -> RecordedEpisode:
        observations, actions, rewards, log_probs = zip(*self._steps[row], strict=True)
        terminations, truncations = np.zeros((2, len(rewards)), np.bool_)
        terminations[-1] = step.terminations[row]
        truncations[-1] = step.truncations[row] and not step.terminations[row]
        return RecordedEpisode(
            np.stack([*observations, step.final_observations[row]]),
            np.stack(actions),
            np.array(rewards, np.float32),
            terminations,
            truncations,
            seed=seed,
            log_probs=None if np.isnan(log_probs).any() else np.array(log_probs, np.float32),
        )
