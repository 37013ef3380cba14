"""What a training tells the outside: a report per iteration, a result at the end, and the callbacks that receive them.

Everything that watches a training (run folder, progress display, TensorBoard, a user's own early stopping) is a
`Callback`. Callbacks run in the driver, between iterations, and see numbers only: no trajectory and no torch tensor
reaches them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ...envs import Episode
from ...runtime import InputError, signals_held
from ..elsewhere import hook_instead


@dataclass(frozen=True, kw_only=True)
class IterationReport:
    """What one iteration (one rollout of every simulation group and the update that followed) did."""

    iteration: int
    """Number of finished iterations, this one included; counts on after a resume."""
    timesteps: int
    """Environment steps done so far, over all environments; counts on after a resume."""
    total_timesteps: int
    """Environment steps at which this training ends."""
    metrics: Mapping[str, float]
    """Values under Stable-Baselines3's tags (`rollout/ep_rew_mean`, `time/fps`, `train/loss`, …). A value that does not
    exist yet (no episode has finished) is absent."""
    episodes: Sequence[Episode] = field(repr=False)
    """Episodes that finished in this iteration, ordered by end step, then by environment index."""
    episode_return_mean: float | None
    """Mean return of the last 100 finished episodes (of all, while there are fewer); None before the first."""
    elapsed_seconds: float
    """Seconds since this call of `train` began its first rollout."""
    schedule: Mapping[str, Any] | None = field(default=None, repr=False)
    """Of an asynchronous training: what the iteration learned from, as a line of `schedule.jsonl`."""
    hashes: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Hashes of what the iteration was made of, as in `hashes.jsonl`; empty where they are not recorded."""
    examples: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
    """Of a language model: some prompts, with the answers of each turn, the reward, and whether one was cut off."""


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """What one evaluation during a training measured, told when the next one begins (or at the training's end).

    It depends on the weights, the run seed and `index` alone, and is told after the same iteration whatever the number
    of workers: a training that is stopped on it ends the same way each time.
    """

    index: int
    """Number of the evaluation, from 0; counts on after a resume."""
    timesteps: int
    """Environment steps after which the weights stood so."""
    version: int
    """Updates that the weights had seen."""
    mean_return: float
    """Mean undiscounted return of the episodes."""
    std_return: float
    """Their standard deviation (divided by the number of episodes)."""
    mean_length: float
    """Mean number of steps."""
    returns: tuple[float, ...] = field(repr=False)
    """Return of each episode."""
    lengths: tuple[int, ...] = field(repr=False)
    """Steps of each."""
    best: bool
    """Whether no evaluation before had a mean return as high."""
    best_mean_return: float
    """Highest mean return until now, this one's included."""
    since_best: int
    """Evaluations since the best one: 0 if this is it."""

    @property
    def metrics(self) -> dict[str, float]:
        """The values under Stable-Baselines3's tags, and the steps that they belong to."""
        return {
            "eval/mean_reward": self.mean_return,
            "eval/std_reward": self.std_return,
            "eval/mean_ep_length": self.mean_length,
            "eval/best_mean_reward": self.best_mean_return,
            "eval/timesteps": self.timesteps,
        }


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """The outcome of one call of `train`; `to_json()` is what a run folder's result.json holds."""

    algorithm: str
    """Name of the algorithm, for example "ppo"."""
    env: str
    """Id of the environment."""
    seed: int
    """Run seed: every random number of the run derives from it."""
    workers: int
    """Number of rollout workers."""
    timesteps: int
    """Environment steps of the whole run, resumed parts included."""
    iterations: int
    """Iterations of the whole run, resumed parts included."""
    episode_return_mean: float | None
    """Mean return of the last 100 finished episodes (of all, if fewer); None if no episode finished."""
    solved: bool | None
    """Whether the mean return of the last 100 finished episodes (at least 100) had reached `stop_return`, or else the
    environment's `reward_threshold`, when this call began or at the end of an iteration of it; None if there is
    neither."""
    solved_timesteps: int | None
    """Environment steps at which this call first saw that it was reached; None if it was not."""
    interrupted: bool
    """Whether a callback stopped the training before its end."""
    wall_seconds: float
    """Seconds from the first rollout to the last update of this call."""
    total_seconds: float
    """Seconds from the start of this process to the last update."""
    weights_sha256: str
    """SHA-256 over the parameters as little-endian float32, in the order of their names."""
    chaos: Mapping[str, int] = field(default_factory=dict)
    """With `chaos`, how many `worker_deaths` and `learner_deaths` it led to in this call."""

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON-able values."""
        return asdict(self)


class Training(Protocol):
    """What a callback may rely on in the object it is given (an `Algorithm`)."""

    @property
    def name(self) -> str:
        """Name of the algorithm, for example "ppo"."""

    @property
    def env_id(self) -> str:
        """Id of the environment."""

    @property
    def seed(self) -> int:
        """Run seed."""

    @property
    def workers(self) -> int:
        """Number of rollout workers."""

    @property
    def timesteps(self) -> int:
        """Environment steps done so far."""

    @property
    def iteration(self) -> int:
        """Finished iterations."""

    @property
    def preset(self) -> Mapping[str, Any]:
        """Settings that the preset chose (those which the user gave are not in it); empty without a preset."""

    def settings(self) -> dict[str, Any]:
        """All resolved settings, JSON-able: environment, run settings, hyperparameters, device, threads, versions,
        CPU."""

    def save(self, folder: str | Path) -> Path:
        """Write a checkpoint of the last finished iteration into `folder`/checkpoints; returns the checkpoint's
        folder."""

    def save_best(self, folder: str | Path) -> Path | None:
        """Write the policy that did best in an evaluation into `folder`/checkpoints/best; returns that folder, or None
        if there was no evaluation since this training began or was resumed."""


class Callback:
    """Base class of callbacks: override what you need, the rest does nothing.

    An exception in a callback ends the training and reaches the caller of `train`; the algorithm can be saved then.
    """

    def on_training_start(self, training: Training, total_timesteps: int) -> None:
        """Called once, before the first rollout; `total_timesteps` is the count of steps at which the training ends."""

    def on_iteration_end(self, training: Training, report: IterationReport) -> bool | None:
        """Called after each iteration; returning False ends the training."""

    def on_evaluation_end(self, training: Training, report: EvaluationReport) -> bool | None:
        """Called for each evaluation of `eval_freq`, before `on_iteration_end` of the iteration after which it is told;
        returning False ends the training."""

    def on_training_end(self, training: Training, result: TrainingResult) -> None:
        """Called once after the last iteration; not called when an exception or Ctrl-C ends the training."""

    def on_exception(self, training: Training, error: BaseException) -> None:
        """Called once when an exception or Ctrl-C ends the training, perhaps before it began; `train` raises it then.
        What is open is closed here. All callbacks are told, also after one that raises."""


@contextmanager
def under_way(training: Training, callbacks: Sequence[Callback], lock: threading.Lock) -> Iterator[None]:
    """Of a call of `train`: no other begins meanwhile, and the callbacks are told of what ends it but its end.

    Raises:
        InputError: the `lock` of the training is held, by another thread or by who has called this one.
    """
    with ExitStack() as stack:
        with signals_held():
            if not lock.acquire(blocking=False):
                raise InputError(
                    f"this training by {training.name} is under way: another thread, or what calls a callback, is in "
                    "train(). Wait for its end, or train another one"
                )
            stack.callback(lock.release)
        try:
            yield
        except BaseException as error:  # also Ctrl-C
            with signals_held(), ExitStack() as telling:  # some press it twice
                for callback in reversed(callbacks):
                    telling.callback(callback.on_exception, training, error)
                raise


def callback_list(given: Callback | Iterable[Callback] | None) -> list[Callback]:
    """Return what `train` was given as a list of callbacks: a single one may stand for itself, None for none.

    Raises:
        InputError: something in it is no callback, or has a method that other libraries call, but this one does not.
    """
    if given is None:
        return []
    several = isinstance(given, Iterable) and not isinstance(given, Callback)
    callbacks: list[Any] = list(given) if several else [given]  # type: ignore[arg-type]
    wanted = [name for name in vars(Callback) if name.startswith("on_")]
    for callback in callbacks:
        if isinstance(callback, type) or not all(hasattr(callback, name) for name in wanted):
            what = "a class: make one of it, " if isinstance(callback, type) else f"a {type(callback).__name__}: "
            want = f"{callback.__name__}(…)" if isinstance(callback, type) else "want objects derived from rl.Callback"
            raise InputError(f"callbacks holds {callback!r:.80}, {what}{want}")
        for name in dir(callback):  # which nobody would call
            instead = hook_instead(name)
            if instead is not None:
                raise InputError(f"callbacks holds a {type(callback).__name__} with the method {name}. {instead}")
    return callbacks
