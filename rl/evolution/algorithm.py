"""What evolution strategies share: generations of perturbed policies, whose returns say where to go.

for generation = 1, 2, …
    draw directions ε_1 … ε_n from the noise table
    play episodes with θ + σ ε_i and θ − σ ε_i, and a few with θ, whose returns are reported       (tasks)
    coefficients c_i from all the returns                                                          `weigh`
    g ← Σ c_i ε_i                                                                   (a tree of tasks)
    θ from θ and g                                                                                 `move`
    statistics of the observations, if they are normalized, for the next generation
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from ...runtime import InputError, get, machine_memory, put
from ..algorithm import Algorithm
from ..clock import Clock
from ..divergence import divergence
from ..hashes import digest_of
from ..learn.log import LearnerLog
from ..models.spec import ModelSpec
from ..schedules import Rate, rate_at
from ..settings import number, validate
from ..training_state import IterationOutcome, TrainingState, Weights, extend_window
from .run import EvolutionRun, Generation, observed

_SHARE = 0.5
"""Of the machine's memory that the noise table may take."""


@dataclass(frozen=True, kw_only=True)
class EvolutionConfig:
    """Hyperparameters of all evolution strategies.

    Raises:
        InputError: a value that cannot work.
    """

    n_delta: int = number(8, whole=True, at_least=1)
    """Directions per generation (n): for each, the policy is moved both ways along it."""
    delta_std: Rate = number(0.05, rate=True, above=0)  # noqa: RUF009 — it makes a field
    """How far it is moved along them, each of whose numbers is standard normal (σ); a number, or lin_NUMBER to let it
    fall linearly to 0."""
    learning_rate: Rate = number(0.02, rate=True, above=0)  # noqa: RUF009 — it makes a field
    """Step size (α); a number, or lin_NUMBER to let it fall linearly to 0."""
    delta_episodes: int = number(1, whole=True, at_least=1)
    """Episodes that each moved policy plays; their mean return counts."""
    score_episodes: int = number(4, whole=True, at_least=1)
    """Episodes per generation of the policy as it is: those are what is reported, and what --stop-return asks."""
    noise_table_size: int = number(10_000_000, whole=True, at_least=1_000)
    """Numbers in the table of noise that directions are cut from, 4 bytes each."""

    def __post_init__(self) -> None:
        validate(self)


Evolving = TypeVar("Evolving", bound=EvolutionConfig)


class EvolutionAlgorithm(Algorithm[Evolving], Generic[Evolving]):
    """A search in the space of a policy's weights, by tasks of the runtime."""

    models = ("actor",)
    has_workers = True
    unsharded_since = "no gradient is computed"

    @staticmethod
    def begin(weights: np.ndarray, config: Any) -> np.ndarray:
        """Where the search begins, [P] float32, from the network's own initial `weights`."""
        del config
        return weights

    @staticmethod
    @abstractmethod
    def weigh(returns: np.ndarray, config: Any, clock: Clock) -> np.ndarray:
        """What each direction counts, [n] float64, by the `returns` [n, 2] of both its policies, θ + σε first."""

    @staticmethod
    @abstractmethod
    def move(
        weights: np.ndarray, ascent: np.ndarray, memory: Mapping[str, Any], config: Any, clock: Clock
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The next weights [P] float32, from these and Σ c_i ε_i [P] float64; and what is to be remembered, arrays and
        numbers, of which `memory` is what the last call gave ({} at first)."""

    @staticmethod
    def fitness(returns: np.ndarray, lengths: np.ndarray, config: Any) -> np.ndarray:
        """What counts as the return of each policy, [n, 2], from those of its episodes [n, 2, episodes]."""
        del lengths, config
        return returns.mean(-1)

    def check(self) -> None:
        """Raise InputError for settings of a run that a search has no use for."""
        run, size = self.run, self.config.noise_table_size
        self.require(run.device in ("auto", "cpu"), "device", run.device, "'cpu': no gradient is computed")
        self.require(
            not run.normalizes_rewards, "normalize", run.normalize, "obs or none: returns are compared, not predicted"
        )
        self.require(
            run.vectorization == "sync",
            "vectorization",
            run.vectorization,
            "'sync': each episode has a seed of its own, and each row begins its next one alone",
        )
        largest = int(_SHARE * machine_memory() / 4)
        self.require(size <= largest, "noise_table_size", size, f"at most {largest:,}: half of this machine's memory")

    def check_spaces(self) -> None:
        """Raise InputError for several agents."""
        if not isinstance(self.model_spec, ModelSpec):
            raise InputError(
                f"{self.name} does not work with the several agents of environment {self.spec.id!r}: their policies "
                "would have to be compared with each other's. Train them with an algorithm that learns from each step, "
                "such as ppo"
            )

    def make_run(self) -> EvolutionRun:
        """Tasks."""
        return EvolutionRun(**self.run_options())

    def training_step(self, run: EvolutionRun, state: TrainingState, clock: Clock) -> IterationOutcome:
        """One generation."""
        config, first = self.config, run.space.first
        assert state.learner.snapshot is not None
        before, weights = get(state.learner.snapshot), get(state.weights.ref)
        scale = rate_at(config.delta_std, clock.remaining)
        played = run.play(state, scale)
        fitness = self.fitness(played.returns, played.lengths, config)
        ascent = run.weighted_noise(played.directions, self.weigh(fitness, config, clock))
        moved, memory = self.move(weights[first:], ascent, before["memory"], config, clock)
        self._check_finite(state, played, ascent, moved)
        following = np.concatenate([weights[:first], moved])
        moments = None
        spec = self.model_spec
        if isinstance(spec, ModelSpec) and spec.normalized:
            statistics = observed(spec, before["moments"], played.moments)
            moments = statistics.state()
            views = run.description[1].views(following)
            for index, (mean, spread) in enumerate(statistics.scales().values()):
                views[f"normalizer.means.{index}"][:] = mean
                views[f"normalizer.scales.{index}"][:] = spread
        after = TrainingState(
            iteration=state.iteration + 1,
            timesteps=state.timesteps + played.timesteps,
            weights=Weights(state.weights.version + 1, put(following)),
            groups=(),
            learner=LearnerLog(state.iteration + 1, put({"memory": memory, "moments": moments})),
            recent=extend_window(state.recent, played.episodes),
        )
        metrics = self._metrics(played, clock, after.weights.version, moved - weights[first:]) | played.times
        return IterationOutcome(
            state=after,
            episodes=played.episodes,
            metrics=metrics | run.deaths.metrics(),
            digests={name: digest_of([getattr(played, name)]) for name in ("directions", "lengths", "returns")},
        )

    def _metrics(self, played: Generation, clock: Clock, updates: int, step: np.ndarray) -> dict[str, float]:
        returns = played.returns
        return {
            "rollout/perturbed_rew_mean": float(returns.mean()),
            "rollout/perturbed_rew_std": float(returns.mean(-1).std()),
            "rollout/perturbed_rew_max": float(returns.mean(-1).max()),
            "train/delta_std": rate_at(self.config.delta_std, clock.remaining),
            "train/learning_rate": rate_at(self.config.learning_rate, clock.remaining),
            "train/n_updates": updates,
            "train/step_norm": float(np.linalg.norm(step)),
        }

    def _check_finite(self, state: TrainingState, played: Generation, ascent: np.ndarray, weights: np.ndarray) -> None:
        stages = {"the sum over the directions": ascent, "a weight": weights}
        error = divergence(state.iteration + 1, stages, [played.returns], None)
        if error is not None:
            raise error
