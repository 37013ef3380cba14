"""What trainings of language models share: generators that sample answers, and a learner.

    generators ────samples────▶ learner          as rollout workers and learner of all others; a rollout of a simulation
        ▲                          │             group is one whole episode in each of its rows, `samples` rows of which
        └─────────weights──────────┘             begin with the same prompt

A timestep is an episode here. With `max_lag` 0 both take turns; else generators run ahead by so many updates, what met
what is recorded, and `shoal verify` follows it to the same weights.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

from ..actors import ActorLearnerRun
from ..algorithm import Algorithm
from ..asynchronous.run import AsynchronousRun
from ..clock import Clock
from ..declaration import Learning
from ..schedules import Rate
from ..settings import Hyperparameters, RunSettings, number
from ..training_state import IterationOutcome, TrainingState
from .capacity import Capacity
from .initial import language_network

logger = logging.getLogger("shoal")


@dataclass(frozen=True, kw_only=True)
class LanguageConfig(Hyperparameters):
    """Hyperparameters of all that sample answers and learn from their rewards.

    Raises:
        InputError: a value that cannot work.
    """

    learning_rate: Rate = number(1e-4, rate=True, above=0)  # noqa: RUF009 — it makes a field
    """Step size of Adam; a number, or lin_NUMBER to let it fall linearly to 0."""
    batch_size: int = number(128, whole=True, at_least=1)
    """Answers per minibatch; at most n_envs."""
    n_epochs: int = number(1, whole=True, at_least=1)
    """Passes over each iteration's answers."""
    max_grad_norm: float = number(1.0, above=0)
    """The gradient's norm is clipped to this."""
    samples: int = number(8, whole=True, at_least=1)
    """Answers to each prompt (G); n_envs / samples prompts are answered in an iteration."""
    max_new_tokens: int = number(64, whole=True, at_least=1)
    """Tokens of an answer at most; a longer one is cut off."""
    temperature: float = number(1.0, at_least=1e-4)
    """Divides the logits when answers are sampled, and when they are learned from."""
    top_k: int = number(0, whole=True, at_least=0, at_most=10**9)
    """Sample from this many of the most likely tokens only; 0: from all. Ratios are those of the whole softmax."""
    top_p: float = number(1.0, above=0, at_most=1)
    """Sample from the most likely tokens that together are as likely as this; 1: from all."""
    stop_text: str = ""
    """An answer ends with this text, too. Default: only where the model says that it ends."""
    max_lag: int = number(0, whole=True, at_least=0)
    """Updates by which the weights that sample may be behind those that learn. 0: generators and learner take turns;
    more: they work at the same time, what met what is recorded, and `shoal verify` repeats it."""

    @property
    def sampling(self) -> dict[str, Any]:
        """Arguments of `Sampling`."""
        stop = (self.stop_text,) if self.stop_text else ()
        return {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p, "stop": stop}

    def pacing(self, settings: RunSettings, rollouts: Sequence[int], version: int) -> Capacity:
        """What decides when rollouts begin, where generators run ahead."""
        return Capacity(settings.groups, self.max_lag, rollouts, version)


Config = TypeVar("Config", bound=LanguageConfig)


class LanguageAlgorithm(Algorithm[Config], Learning, Generic[Config]):
    """Trains a language model on a task between texts. Arguments as in `Algorithm`; `workers` are generators, `n_envs`
    the answers of an iteration, `group_size` those that are sampled together."""

    models = ("language_model",)
    has_workers = True
    takes_memory: ClassVar[bool] = False
    trains_agents: ClassVar[bool] = False
    shards_gradients: ClassVar[bool] = True
    run_defaults: ClassVar[Mapping[str, Any]] = {"n_envs": 256}

    def __init__(self, env: Any, *, policy_kwargs: Mapping[str, Any] | None = None, **settings: Any) -> None:
        network = language_network(policy_kwargs, settings.get("initial"))
        self._dead_iterations = self._told_dead = 0
        super().__init__(env, policy_kwargs=network or None, **settings)

    def check(self) -> None:
        """Raise InputError for settings of a run that texts have no use for, for groups that hold no whole prompts, and
        for a minibatch that is larger than an iteration."""
        run, samples, size = self.run, self.config.samples, self.config.batch_size
        self.require(size <= run.n_envs, "batch_size", size, f"at most n_envs = {run.n_envs}")
        self.require(run.normalize == "none", "normalize", run.normalize, "none: there are no numbers to normalize")
        self.require(run.vectorization == "sync", "vectorization", run.vectorization, "'sync'")
        size = run.environments_per_group
        whole = size % samples == 0
        self.require(whole, "group_size", size, f"a multiple of samples = {samples}: answers to a prompt stay together")

    @staticmethod
    def rollout_steps(config: Any) -> int:
        """A rollout is one episode in each row."""
        return 1

    def make_run(self) -> ActorLearnerRun:
        """Generators and a learner."""
        kind = AsynchronousRun if self.config.max_lag else ActorLearnerRun
        return kind(**self.run_options())

    def training_step(self, run: ActorLearnerRun, state: TrainingState, clock: Clock) -> IterationOutcome:
        """One iteration: the generators sample, the learner learns, in turns or at the same time."""
        began = time.perf_counter()
        if isinstance(run, AsynchronousRun):
            outcome = run.iterate(state, clock)
        else:
            outcome = run.learn(state, run.workers.collect(state, clock), clock)
        seconds, metrics = time.perf_counter() - began, outcome.metrics
        sampling = metrics["time/inference_seconds"] + metrics["time/environment_seconds"]
        idle = {
            "time/learner_idle": max(0.0, 1 - metrics["time/update_seconds"] / seconds),
            "time/generators_idle": max(0.0, 1 - sampling / (seconds * len(run.workers.actors))),
        }
        self._tell_dead(outcome)
        return replace(outcome, metrics={**metrics, **idle})

    def _tell_dead(self, outcome: IterationOutcome) -> None:
        """Say where nothing can be learned, but for all being right: after 1, 10, 100 … iterations in a row, once."""
        metrics = outcome.metrics
        if metrics.get("rollout/dead_groups", 0.0) < 1 or metrics.get("rollout/solved") == 1:
            self._dead_iterations = 0
            return
        self._dead_iterations += 1
        count = self._dead_iterations
        if count == 10 ** (len(str(count)) - 1) and count > self._told_dead:
            self._told_dead = count
            logger.warning(
                "no group had any variance in %d iteration%s (now %d): all answers to a prompt had the same reward, so "
                "there is nothing to compare them by. Reward parts of an answer, too, begin with weights that find a "
                "right one now and then, or raise samples or temperature",
                count,
                "" if count == 1 else "s in a row",
                outcome.state.iteration,
            )
