"""What evolution strategies share: generations of perturbed policies, whose returns say where to go.

for generation = 1, 2, …
    draw directions ε_1 … ε_n from the noise table
    play episodes with θ + σ ε_i and θ − σ ε_i, and a few with θ, whose returns are reported       (tasks)
    coefficients c_i from all the returns                                                          `weigh`
    g ← Σ c_i ε_i                                                                   (a tree of tasks)
    θ from θ and g                                                                                 `move`
    statistics of the observations, if they are normalized, for the next generation

Of several agents θ is the weights of all policies that learn, in a row, and a direction moves all of them at once. A
policy's score is the sum of its agents' returns, and by its own scores alone it goes its own part of the way: so agents
that play against each other are searched for, too, and of agents that share their rewards each policy climbs the same
sum. What others' perturbations add to a score is independent of its own, so the gradient is that of its expectation
over the others' noise.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from ...runtime import get, machine_memory, put
from ..algorithm import Algorithm
from ..clock import Clock
from ..divergence import divergence
from ..hashes import digest_of
from ..learn.log import LearnerLog
from ..models.joint_spec import JointSpec
from ..schedules import Rate, rate_at
from ..settings import Hyperparameters, number
from ..statistics import mean_returns
from ..training_state import IterationOutcome, TrainingState, Weights, extend_window
from .noise import NORMALIZER
from .run import EvolutionRun, Generation, observed

_SHARE = 0.5
"""Of the machine's memory that the noise table may take."""


@dataclass(frozen=True, kw_only=True)
class EvolutionConfig(Hyperparameters):
    """Hyperparameters of all evolution strategies.

    Raises:
        InputError: a value that cannot work.
    """

    n_delta: int = number(8, whole=True, at_least=1, at_most=1_000_000)
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

    def make_run(self) -> EvolutionRun:
        """Tasks."""
        return EvolutionRun(**self.run_options())

    def training_step(self, run: EvolutionRun, state: TrainingState, clock: Clock) -> IterationOutcome:
        """One generation."""
        played = run.play(state, rate_at(self.config.delta_std, clock.remaining))
        following, after = self._move_all(run, state, clock, played)
        next_state = TrainingState(
            iteration=state.iteration + 1,
            timesteps=state.timesteps + played.timesteps,
            weights=Weights(state.weights.version + 1, put(following)),
            groups=(),
            learner=LearnerLog(state.iteration + 1, put(after)),
            recent=extend_window(state.recent, played.episodes),
        )
        metrics = self._metrics(run, played, clock, following - get(state.weights.ref))
        metrics |= {"train/n_updates": next_state.weights.version} | played.times | run.deaths.metrics()
        return IterationOutcome(
            state=next_state,
            episodes=played.episodes,
            metrics=metrics,
            digests={name: digest_of([getattr(played, name)]) for name in ("directions", "lengths", "returns")},
        )

    def _move_all(
        self, run: EvolutionRun, state: TrainingState, clock: Clock, played: Generation
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The next flat weights of all policies, each moved by its own score; and what is remembered after that."""
        assert state.learner.snapshot is not None
        before, weights = get(state.learner.snapshot), get(state.weights.ref)
        config, following = self.config, weights.copy()
        after: dict[str, Any] = {"memory": {}, "moments": {}}
        views = run.description[1].views(following)
        for (name, own), returns in zip(run.space.policies.items(), played.returns, strict=True):
            fitness = self.fitness(returns, played.lengths, config)
            ascent = run.weighted_noise(name, played.directions, self.weigh(fitness, config, clock))
            memory = before["memory"].get(name, {})
            moved, after["memory"][name] = self.move(weights[own.weights], ascent, memory, config, clock)
            self._check_finite(state, played, ascent, moved)
            following[own.weights] = moved
            if own.spec.normalized:
                seen = [moments[name] for moments in played.moments]
                statistics = observed(own.spec, before["moments"].get(name), seen)
                after["moments"][name] = statistics.state()
                for index, (mean, spread) in enumerate(statistics.scales().values()):
                    views[f"{own.prefix}{NORMALIZER}means.{index}"][:] = mean
                    views[f"{own.prefix}{NORMALIZER}scales.{index}"][:] = spread
        return following, after

    def _metrics(self, run: EvolutionRun, played: Generation, clock: Clock, step: np.ndarray) -> dict[str, float]:
        found = {f"agents/{agent}/ep_rew_mean": value for agent, value in mean_returns(played.episodes).items()}
        alone = not isinstance(self.model_spec, JointSpec) or len(self.model_spec.policies) == 1
        for (name, policy), returns in zip(run.space.policies.items(), played.returns, strict=True):
            own = {
                "rollout/perturbed_rew_mean": float(returns.mean()),
                "rollout/perturbed_rew_std": float(returns.mean(-1).std()),
                "rollout/perturbed_rew_max": float(returns.mean(-1).max()),
                "train/step_norm": float(np.linalg.norm(step[policy.weights])),
            }
            found |= own if alone else {f"policies/{name}/{tag}": value for tag, value in own.items()}
        return found | {
            "train/delta_std": rate_at(self.config.delta_std, clock.remaining),
            "train/learning_rate": rate_at(self.config.learning_rate, clock.remaining),
        }

    def _check_finite(self, state: TrainingState, played: Generation, ascent: np.ndarray, weights: np.ndarray) -> None:
        stages = {"the sum over the directions": ascent, "a weight": weights}
        error = divergence(state.iteration + 1, stages, [played.returns], None)
        if error is not None:
            raise error
