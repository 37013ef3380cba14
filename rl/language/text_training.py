"""What trainings of language models on texts that are there share: no generators; the driver lays out rows of tokens,
the learner descends on them.

    for iteration = 1, 2, …
        the next gradient_steps · batch_size rows, a function of seed and place             (driver)
        gradient_steps times: descend on a minibatch                                        (learner)

Rows are what rollouts are elsewhere: the learner holds none of them, a killed one is
given those since its last snapshot again, and learners of a group read the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np
from gymnasium.spaces import Text

from ... import runtime
from ...envs import EnvSpec, Inspection
from ...runtime import InputError, ObjectRef
from ..actors import LearnerRun
from ..clock import Clock
from ..data.batch import Batch
from ..data.rollout import Rollout
from ..dataset_training import DatasetAlgorithm, steps_of
from ..engine import start_runtime
from ..lazy import torch
from ..learn.learner import Learner
from ..models.own_modules import check_import_path
from ..models.spec import ModelSpec
from ..runs.checkpoint import run_of
from ..runs.saved_training import SavedTraining
from ..settings import Hyperparameters, choice, number
from ..supervised.stream import is_import_path
from ..training_state import IterationOutcome, TrainingState
from .initial import language_network
from .tokens import Tokens, tokens_between

if TYPE_CHECKING:
    from torch import Tensor

    from ..learn.shards import LossOf

_ASCII = "".join(map(chr, (*range(9, 11), *range(32, 127))))


@dataclass(frozen=True, kw_only=True)
class TextConfig(Hyperparameters):
    """Hyperparameters of all that learn from texts.

    Raises:
        InputError: a value that cannot work.
    """

    dataset: str = ""
    """Files, folders or patterns, separated by commas, or package.module:function, of a function of yours that returns
    a shoal.data.Dataset or a list of rows; see `shoal.rl.rows_of_dataset`."""
    learning_rate: float = number(1e-3, above=0)
    """Largest step size of AdamW."""
    warmup: int = number(20, whole=True, at_least=0)
    """Gradient steps over which the step size grows from 0 to that."""
    schedule: str = choice("cosine", "cosine", "linear", "constant")
    """How it falls from then on to final_rate of it, over all gradient steps; constant: it does not."""
    final_rate: float = number(0.1, at_least=0, at_most=1)
    """Share of the learning rate that is left at the end."""
    batch_size: int = number(16, whole=True, at_least=1)
    """Rows per minibatch."""
    gradient_steps: int = number(20, whole=True, at_least=1)
    """Minibatches per iteration; a timestep is one minibatch."""
    weight_decay: float = number(0.0, at_least=0)
    """How much matrices are drawn to 0, in parts of the step size; not norms and embeddings."""
    beta2: float = number(0.95, above=0, at_most=1)
    """Memory of AdamW's second moment."""
    max_grad_norm: float = number(1.0, above=0)
    """The gradient's norm is clipped to this."""
    held_out: float = number(0.02, at_least=0, at_most=0.5)
    """Share of the dataset that is not learned from, but measured after each iteration: eval/loss."""


Config = TypeVar("Config", bound=TextConfig)
BatchOf = Callable[[Learner, Batch], dict[str, "Tensor"]]
"""Columns of a minibatch → tensors, with the `mask` of what is learned."""


@dataclass(frozen=True, eq=False)
class TextRows(Rollout):
    """Rows to learn from in one iteration; the second of its `parts`, if there is one, are those that are held out."""

    @staticmethod
    def side_by_side(rollouts: Any) -> Rollout:
        """The first, with all as its parts."""
        return replace(rollouts[0], parts=tuple(rollouts))

    @staticmethod
    def of(columns: dict[str, np.ndarray]) -> TextRows:
        """Rows of these columns."""
        return TextRows(Batch(columns), Batch({}), 0)


class TextAlgorithm(DatasetAlgorithm[Config], Generic[Config]):
    """Trains a language model on a `dataset` of texts. `env` may be left out: it is what is evaluated on. Further
    arguments as in `Algorithm`; those of rollout workers have no effect."""

    models = ("language_model",)
    shards_gradients: ClassVar[bool] = True

    @staticmethod
    def schedules(config: TextConfig) -> tuple[str, ...]:
        """How the step size falls."""
        return ("schedule",) if config.schedule != "constant" and config.final_rate < 1 else ()

    @staticmethod
    def prepare(learner: Learner, config: Any) -> None:
        """AdamW."""
        learner.adamw(weight_decay=config.weight_decay, beta2=config.beta2)

    def __init__(
        self,
        env: Any = None,
        *,
        dataset: Any = "",
        engine: str | None = None,
        policy_kwargs: Any = None,
        **settings: Any,
    ) -> None:
        network = language_network(policy_kwargs, settings.get("initial"))
        self._env_is_given, self._engine = env is not None, engine
        texts = dataset if isinstance(dataset, str) else ",".join(map(str, dataset))
        super().__init__(
            EnvSpec("texts", "texts") if env is None else env,
            engine=engine,
            dataset=texts,
            policy_kwargs=network or None,
            **settings,
        )

    # ---- what an algorithm defines

    def examples(self) -> Iterator[Any]:
        """The dataset's examples, as the algorithm takes them, from the first one each time; InputError for what it
        cannot take."""
        raise NotImplementedError

    def texts_of(self, example: Any) -> str:
        """All characters of an example."""
        raise NotImplementedError

    def rows(self, start: int, count: int) -> dict[str, np.ndarray]:
        """Columns of rows `start` to `start + count`, counted over all epochs."""
        raise NotImplementedError

    def held_out_rows(self) -> dict[str, np.ndarray] | None:
        """Columns of the rows that are held out; None without any."""
        raise NotImplementedError

    # ---- what is the same for all

    @property
    def tokens(self) -> Tokens:
        """What encodes texts."""
        spec = self.language_spec
        return tokens_between(spec.architecture.tokenizer, spec.observation_space, spec.action_space)

    @property
    def language_spec(self) -> ModelSpec:
        """What the model is made from."""
        assert isinstance(self.model_spec, ModelSpec)
        return self.model_spec

    def _environment(self) -> dict[str, Any] | None:
        return super()._environment() if self._env_is_given else None

    def nothing_there(self) -> InputError:
        """What is raised where there are no examples."""
        return InputError(f"dataset {self.config.dataset!r} has no rows: there is nothing to learn")

    def _inspect(self) -> Inspection:
        """The environment, if there is one; else a space of all characters that the texts have."""
        start_runtime(self._engine)
        if self._env_is_given:
            return super()._inspect()
        characters, empty = set(_ASCII), True
        for example in self.examples():  # not kept: they may be more than memory holds
            characters |= set(self.texts_of(example))
            empty = False
        if empty:
            raise self.nothing_there()
        charset = "".join(sorted(characters))
        space = Text(self.run.policy_kwargs.get("context", 256), min_length=0, charset=charset)
        return Inspection(self.spec, space, space, ())

    def check(self) -> None:
        """Raise InputError for settings of a run that texts have no use for."""
        run = self.run
        self.require(run.normalize == "none", "normalize", run.normalize, "none: there are no numbers to normalize")
        evaluated = self._env_is_given or run.eval_freq is None
        self.require(evaluated, "eval_freq", run.eval_freq, "none without an environment to evaluate in")
        if is_import_path(self.config.dataset):
            check_import_path("dataset", self.config.dataset)

    def check_spaces(self) -> None:
        """Read and encode the dataset."""
        try:
            self.facts()
        except ValueError as error:  # a character that no token has
            dataset, told = self.config.dataset, str(error)
            named = f"dataset {dataset!r}" if dataset else f"environment {self.spec.id!r}"
            raise InputError(told if named in told else f"{named}: {told}") from None

    @classmethod
    def saved_environment(cls, saved: SavedTraining, env: Any) -> Any:
        """The environment of the training; none where there was none. InputError if the dataset is a function of a
        module that lies in the run: what a run holds is not run."""
        dataset = saved.document["hyperparameters"]["dataset"]
        if is_import_path(dataset):
            check_import_path("dataset", dataset, run_of(saved.folder))
        if env is None and saved.document["env"] == "texts":
            return None
        return saved.spec(env)

    def make_run(self) -> TextRun:
        """A learner."""
        return TextRun(**self.run_options())

    def training_step(self, run: TextRun, state: TrainingState, clock: Clock) -> IterationOutcome:
        """One iteration: `gradient_steps` minibatches of the next rows, or the training's last."""
        size, steps = self.config.batch_size, steps_of(self.config, clock)
        rows = self.rows(state.timesteps * size, steps * size)
        return run.learn_from(state, rows, self.held_out_rows, steps, clock)


class TextRun(LearnerRun):
    """A learner that is given rows."""

    _held_out: tuple[ObjectRef, ...] | None = None

    def learn_from(
        self,
        state: TrainingState,
        rows: dict[str, np.ndarray],
        held_out: Callable[[], dict[str, np.ndarray] | None],
        steps: int,
        clock: Clock,
    ) -> IterationOutcome:
        """Let the learner update on rows, which count for so many timesteps, and measure those held out."""
        if self._held_out is None:
            columns = held_out()
            self._held_out = () if columns is None else (runtime.put(TextRows.of(columns)),)
        given = (runtime.put(TextRows.of(rows)), *self._held_out)
        outcome = self.learn_given(state, given, steps, clock)
        metrics = dict(outcome.metrics)
        metrics["time/tokens_per_second"] = metrics["train/tokens"] * steps / metrics["time/update_seconds"]
        return replace(outcome, metrics=metrics)


# ---- in the learner


def rate_of(config: TextConfig, clock: Clock) -> float:
    """The step size of the gradient step that a clock tells: warmed up linearly, then falling (Loshchilov & Hutter,
    2017, arXiv 1608.03983, equation 5, without restarts)."""
    warm = min(1.0, (clock.timesteps + 1) / config.warmup) if config.warmup else 1.0
    done = (clock.timesteps - config.warmup) / max(1, clock.total_timesteps - config.warmup)
    done = min(1.0, max(0.0, done))
    left = {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}[config.schedule]
    return config.learning_rate * warm * (config.final_rate + (1 - config.final_rate) * left)


def take_text_steps(
    learner: Learner,
    rollout: Rollout,
    config: Any,
    clock: Clock,
    *,
    batch_of: BatchOf,
    loss_of: LossOf,
    counted: Callable[[Batch], int],
) -> dict[str, float]:
    """Descend on the rows of an iteration, minibatch by minibatch; measure those that are held out, where each
    minibatch counts by what is `counted` in it.

    `batch_of` makes a minibatch of columns, with the mask [B, …] of what is learned; `loss_of` is as in
    `Learner.differentiate`, what it tells are means over rows. Returns their means over the steps as train/…, and over
    the held-out rows as eval/….
    """
    given, *held_out = rollout.parts or (rollout,)
    history: list[dict[str, Tensor]] = []
    tokens = 0
    for step, batch in enumerate(_minibatches(given.steps, config.batch_size)):
        rate = rate_of(config, clock.after(step))
        minibatch = batch_of(learner, batch)
        told = learner.minimize(minibatch, loss_of, learning_rate=rate, max_grad_norm=config.max_grad_norm)
        history.append(told)
        tokens += int(np.count_nonzero(batch["mask"]))
        learner.n_updates += 1
    means = {f"train/{name}": float(torch.stack([told[name] for told in history]).mean()) for name in history[0]}
    learner.numbers["tokens"] = learner.numbers.get("tokens", 0.0) + tokens
    means |= {"train/tokens": tokens / len(history), "train/tokens_seen": learner.numbers["tokens"]}
    means |= {"train/learning_rate": rate, "train/n_updates": learner.n_updates}
    if held_out:
        with torch.no_grad(), learner.in_precision(learner.model.flat.device):
            batches = list(_minibatches(held_out[0].steps, config.batch_size))
            told_of = [loss_of(batch_of(learner, batch))[1] for batch in batches]
        shares = np.array([counted(batch) for batch in batches]) / sum(map(counted, batches))
        for name in told_of[0]:
            means[f"eval/{name}"] = float(shares @ [float(told[name]) for told in told_of])
    return means


def _minibatches(rows: Batch, size: int) -> Iterator[Batch]:
    for start in range(0, rows.rows, size):
        yield rows.take(slice(start, start + size))
