"""The base class of algorithms: settings, actors, and the driver's loop.

    rollout workers ──trajectories──▶ learner          the driver passes references between them,
          ▲                              │             and reads only small statistics and metrics
          └───────────weights────────────┘

An algorithm adds its config, its update (run by the learner) and its training step (run by the driver).
"""

from __future__ import annotations

import logging
import time
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import psutil

from .. import runtime
from ..envs import EnvSpec, check, resolve, space_to_json, spec_from_json
from ..runtime import InputError, ObjectRef, get, nearest
from .architecture import Architecture, parameter_layout
from .callbacks import Callback, IterationReport, TrainingResult
from .checkpoint import new_checkpoint, read_policy, read_training, write_policy, write_training
from .lazy import load
from .learner import Learner
from .rollout import RolloutStats, RolloutWorker
from .settings import RunSettings, split_settings
from .training_state import IterationOutcome, TrainingState, extend_window, state_from_arrays, state_to_arrays

if TYPE_CHECKING:
    from .policy import Policy

logger = logging.getLogger("shoal")
Config = TypeVar("Config")
KEPT_CHECKPOINTS = 3


@dataclass(frozen=True)
class Rollouts:
    """References to what all groups collected in one iteration, in group order."""

    trajectories: list[ObjectRef]
    groups: list[ObjectRef]
    stats: list[ObjectRef]


def _read_spaces(spec: EnvSpec) -> tuple[Any, Any]:
    """Observation and action space of the environment, which is checked against gymnasium's contract first."""
    check(spec)
    env = spec.make()
    try:
        return env.observation_space, env.action_space
    finally:
        env.close()


def _to_json(value: Any) -> Any:
    """A hyperparameter as JSON holds it; a function by its name."""
    return {"function": getattr(value, "__qualname__", repr(value))} if callable(value) else value


class Algorithm(ABC, Generic[Config]):
    """A training of one policy on one kind of environment.

    Args:
        env: id of a registered or gymnasium environment, or a class or factory.
        workers, n_envs, group_size, seed, device, threads, vectorization, policy_kwargs: see `RunSettings`; None takes
        the preset's value or the default.
        engine: starts the runtime with this engine, if it isn't running; None leaves the choice to the runtime.
        preset: "auto" applies the settings tuned for this environment, if there are any; "none" does not; or the id
        whose settings to take.
        env_kwargs: arguments of the environment.
        **hyperparameters: fields of `config_class`; they win over the preset.

    Raises InputError on an unknown name (with the nearest ones) and on values that cannot work, before anything is
    started.
    """

    name: ClassVar[str]
    config_class: ClassVar[type]
    update: ClassVar[Any]
    """What the learner does with the trajectories: an `Update`, as a staticmethod of a module-level function."""
    presets_path: ClassVar[Path | None] = None

    def __init__(
        self,
        env: Any,
        *,
        workers: int = 1,
        n_envs: int | None = None,
        seed: int = 0,
        engine: str | None = None,
        device: str = "auto",
        preset: str = "auto",
        policy_kwargs: Mapping[str, Any] | None = None,
        env_kwargs: Mapping[str, Any] | None = None,
        group_size: int | None = None,
        threads: int = 1,
        vectorization: str = "sync",
        **hyperparameters: Any,
    ) -> None:
        run = {
            "workers": workers, "n_envs": n_envs, "seed": seed, "device": device, "policy_kwargs": policy_kwargs,
            "group_size": group_size, "threads": threads, "vectorization": vectorization,
        }  # fmt: skip
        given = {name: value for name, value in run.items() if value is not None} | hyperparameters
        split_settings(given, (RunSettings, self.config_class), f"{type(self).__name__}")
        self.spec: EnvSpec = resolve(env, env_kwargs)
        chosen = {} if preset == "none" else self._find_preset(preset)
        self.preset: dict[str, Any] = {name: value for name, value in chosen.items() if name not in given}
        parts = split_settings(self.preset | given, (RunSettings, self.config_class), f"the preset of {self.name}")
        self.run = RunSettings(**parts[0])
        self.config: Config = self.config_class(**parts[1])
        self.check()
        self._architecture = Architecture.from_policy_kwargs(self.run.policy_kwargs)
        self.observation_space, self.action_space = _read_spaces(self.spec)
        self._layout = parameter_layout(self.observation_space, self.action_space, self._architecture)
        self.rollout_workers: list[Any] = []
        self.learner: Any = None
        self._state: TrainingState | None = None
        self._saved_state: tuple[dict[str, Any], dict[str, Any], Any] | None = None
        self._policy: Policy | None = None
        self._device: str | None = None
        if not runtime.is_initialized():
            runtime.init(engine=engine)
        elif engine is not None and engine != runtime.engine_name():
            raise InputError(
                f"engine is {engine!r}, but the runtime runs on {runtime.engine_name()!r} already. "
                "Call runtime.shutdown() first"
            )
        runtime.preload("torch", "gymnasium")

    # ---- what an algorithm defines

    def check(self) -> None:
        """Check settings against each other; raise InputError. Called before anything is started."""

    @abstractmethod
    def training_step(self, state: TrainingState, remaining_progress: float) -> IterationOutcome:
        """One iteration from `state`, with `remaining_progress` (1 → 0) of the training left at its start."""

    # ---- what it may use

    @staticmethod
    def require(condition: bool, name: str, value: Any, allowed: str) -> None:
        """Raise InputError naming the setting, its value and what is allowed, unless `condition`."""
        if not condition:
            raise InputError(f"{name} is {value!r}, but must be {allowed}")

    def collect(self, state: TrainingState) -> Rollouts:
        """Start a rollout of every simulation group under the weights of `state`; group g is simulated by worker g %
        workers."""
        collected = [
            self.rollout_workers[group % len(self.rollout_workers)].collect.remote(
                group, [state.groups[group]], state.weights, state.iteration
            )
            for group in range(self.run.groups)
        ]
        trajectories, groups, stats = (list(refs) for refs in zip(*collected, strict=True))
        return Rollouts(trajectories, groups, stats)

    def learn(self, state: TrainingState, rollouts: Rollouts, remaining_progress: float) -> IterationOutcome:
        """Let the learner update on the rollouts, in group order; waits for its metrics, and raises what a rollout or
        the update raised."""
        weights, optimizer, metrics = self.learner.update.remote(
            rollouts.trajectories, [state.weights, state.optimizer], state.iteration, remaining_progress
        )
        stats: list[RolloutStats] = get(
            rollouts.stats
        )  # first: an exception in an environment is the cause of all others
        episodes = sorted(
            (episode for group in stats for episode in group.episodes),
            key=lambda episode: (episode.end_step, episode.environment),
        )
        rows = self.run.n_envs * self.config.n_steps  # type: ignore[attr-defined]
        following = TrainingState(
            iteration=state.iteration + 1,
            timesteps=state.timesteps + rows,
            weights=weights,
            optimizer=optimizer,
            groups=tuple(rollouts.groups),
            recent=extend_window(state.recent, episodes),
        )
        times = {
            "time/environment_seconds": sum(group.environment_seconds for group in stats),
            "time/inference_seconds": sum(group.inference_seconds for group in stats),
            "time/restore_seconds": sum(group.restore_seconds for group in stats),
        }
        return IterationOutcome(state=following, episodes=episodes, metrics=get(metrics) | times)

    # ---- what a user calls

    def train(
        self, total_timesteps: int, *, stop_return: float | None = None, callbacks: Sequence[Callback] = ()
    ) -> TrainingResult:
        """Train for `total_timesteps` more environment steps (rounded up to whole iterations); a second call continues.

        Schedules run over all steps, those of earlier calls and of the resumed run included. Ends early once the mean
        return of the last 100 episodes is at least `stop_return`, or when a callback returns False. An exception, or
        Ctrl-C, leaves the algorithm as of the last finished iteration.
        """
        self._check_train(total_timesteps, stop_return)
        state = self._start()
        first, target = state.timesteps, state.timesteps + total_timesteps
        threshold = self.spec.reward_threshold if stop_return is None else stop_return
        solved_timesteps, interrupted = None, False
        for callback in callbacks:
            callback.on_training_start(self, target)
        began = time.perf_counter()
        while state.timesteps < target and not interrupted:
            outcome = self.training_step(state, 1 - state.timesteps / target)
            self._state = state = outcome.state
            if solved_timesteps is None and state.has_reached(threshold):
                solved_timesteps = state.timesteps
            elapsed = time.perf_counter() - began
            report = self._report(outcome, target, elapsed, fps=(state.timesteps - first) / elapsed)
            answers = [callback.on_iteration_end(self, report) for callback in callbacks]
            interrupted = any(answer is False for answer in answers)
            if state.has_reached(stop_return):
                break
        result = self._result(state, threshold, solved_timesteps, interrupted, time.perf_counter() - began)
        for callback in callbacks:
            callback.on_training_end(self, result)
        return result

    @property
    def env_id(self) -> str:
        """Id of the environment."""
        return self.spec.id

    @property
    def seed(self) -> int:
        """Run seed."""
        return self.run.seed

    @property
    def workers(self) -> int:
        """Number of rollout workers asked for."""
        return self.run.workers

    @property
    def timesteps(self) -> int:
        """Environment steps done so far."""
        return self._progress()[0]

    @property
    def iteration(self) -> int:
        """Finished iterations."""
        return self._progress()[1]

    @property
    def policy(self) -> Policy:
        """The policy with the weights of the last finished iteration. Imports torch in this process."""
        state = self._start()
        if self._policy is None:
            self._policy = load("Policy")(
                self.observation_space, self.action_space, policy_kwargs=self.run.policy_kwargs, seed=self.run.seed
            )
            self._policy.env = self.spec.to_json()
        if self._policy.version != state.iteration or state.iteration == 0:
            self._policy.set_weights(get(state.weights), version=state.iteration)
        return self._policy

    def save(self, folder: str | Path) -> Path:
        """Write a checkpoint of the last finished iteration into `folder`/checkpoints, of which the newest 3 are kept;
        returns its folder."""
        state = self._start()
        document, arrays = state_to_arrays(state)
        document |= self.settings()
        metadata = {
            "observation_space": space_to_json(self.observation_space),
            "action_space": space_to_json(self.action_space),
            "policy_kwargs": dict(self.run.policy_kwargs),
            "env": self.spec.to_json(),
            "version": state.iteration,
        }
        with new_checkpoint(folder, state.timesteps, keep=KEPT_CHECKPOINTS) as path:
            write_policy(path, metadata, self._layout, get(state.weights))
            write_training(path, document, arrays)
        return Path(folder) / "checkpoints" / f"{state.timesteps:012d}"

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        env: Any = None,
        workers: int | None = None,
        engine: str | None = None,
        device: str | None = None,
        **hyperparameters: Any,
    ) -> Any:
        """Continue from a run folder's newest checkpoint, or from one checkpoint folder: bit-identically, if nothing is
        changed.

        `env` is needed if the environment cannot be made from its description (a class of your program); `workers`,
        `engine`, `device` and hyperparameters replace the saved ones. Raises InputError if there is no checkpoint, or
        it is damaged or another algorithm's.
        """
        document, arrays = read_training(folder)
        if document["algorithm"] != cls.name:
            raise InputError(
                f"the checkpoint at {str(folder)!r} is of algorithm {document['algorithm']!r}, not {cls.name!r}"
            )
        config = document["hyperparameters"] | hyperparameters
        functions = [name for name, value in config.items() if isinstance(value, dict) and "function" in value]
        if functions:
            raise InputError(
                f"{functions[0]} was a function, which a checkpoint does not hold: pass {functions[0]}=… to load"
            )
        run = document["run"] | {k: v for k, v in {"workers": workers, "device": device}.items() if v is not None}
        spec = (
            spec_from_json(document["environment"]) if env is None else resolve(env, document["environment"]["kwargs"])
        )
        loaded = cls(spec, engine=engine, preset="none", **run, **config)
        loaded.preset = document["preset"]
        loaded._saved_state = document, arrays, read_policy(folder).weights
        return loaded

    def settings(self) -> dict[str, Any]:
        """All resolved settings, JSON-able: `algorithm`, `env`, `environment`, `engine`, `device`, `run`,
        `hyperparameters`, and what the `preset` chose of them. Starts the actors, since only the learner knows its
        device."""
        self._start()
        if self._device is None:
            self._device = get(self.learner.device.remote())
        return {
            "algorithm": self.name,
            "env": self.spec.id,
            "engine": runtime.engine_name(),
            "device": self._device,
            "environment": self.spec.to_json(),
            "run": asdict(self.run) | {"policy_kwargs": dict(self.run.policy_kwargs)},
            "hyperparameters": {name: _to_json(value) for name, value in asdict(self.config).items()},  # type: ignore[call-overload]
            "preset": dict(self.preset),
        }

    def close(self) -> None:
        """End this training's actors. The runtime goes on."""
        actors = [*self.rollout_workers, *([self.learner] if self.learner else [])]
        self.rollout_workers, self.learner, self._state = [], None, None
        if runtime.is_initialized():
            for actor in actors:
                runtime.kill(actor)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- inside

    def _find_preset(self, preset: str) -> dict[str, Any]:
        """The settings that the table of presets holds for this environment, or for the id `preset`."""
        table: dict[str, dict[str, Any]] = {}
        if self.presets_path is not None:
            table = tomllib.loads(self.presets_path.read_text(encoding="utf-8"))
        if preset == "auto":
            return table.get(self.spec.id, {})
        self.require(
            preset in table, "preset", preset, f"'auto', 'none' or one of the table's. {nearest(preset, table)}"
        )
        return table[preset]

    def _progress(self) -> tuple[int, int]:
        """Environment steps and iterations done, without starting anything."""
        if self._state is not None:
            return self._state.timesteps, self._state.iteration
        document = self._saved_state[0] if self._saved_state is not None else {}
        return document.get("timesteps", 0), document.get("iteration", 0)

    def _start(self) -> TrainingState:
        """Start the actors if they are not running, and return the state to go on from."""
        if self._state is not None:
            return self._state
        run = self.run
        if run.workers > run.groups:
            idle = run.workers - run.groups
            logger.warning("%d of %d workers stay idle: there are %d simulation groups", idle, run.workers, run.groups)
        recoverable = {"max_restarts": -1, "max_task_retries": -1}
        gpus = 1 if run.device != "cpu" and runtime.cluster_resources().get("GPU", 0) >= 1 else 0
        learner_class = runtime.remote(Learner).options(num_gpus=gpus, **recoverable)
        self.learner = learner_class.remote(
            type(self).update, self.config, run, self.observation_space, self.action_space
        )
        worker_class = runtime.remote(RolloutWorker).options(**recoverable)
        n_steps = self.config.n_steps  # type: ignore[attr-defined]
        self.rollout_workers = [
            worker_class.remote(self.spec, run, n_steps) for _ in range(min(run.workers, run.groups))
        ]
        if self._saved_state is not None:
            self._state = state_from_arrays(*self._saved_state)
        else:
            weights, optimizer = self.learner.initial_state.remote()
            groups = (None,) * run.groups
            self._state = TrainingState(
                iteration=0, timesteps=0, weights=weights, optimizer=optimizer, groups=groups, recent=()
            )
        return self._state

    def _check_train(self, total_timesteps: int, stop_return: float | None) -> None:
        whole = isinstance(total_timesteps, int) and not isinstance(total_timesteps, bool)
        self.require(whole and total_timesteps >= 1, "total_timesteps", total_timesteps, "a whole number of at least 1")
        number = isinstance(stop_return, int | float) and not isinstance(stop_return, bool)
        self.require(stop_return is None or number, "stop_return", stop_return, "a number")

    def _report(self, outcome: IterationOutcome, target: int, elapsed: float, fps: float) -> IterationReport:
        state = outcome.state
        optional = {"rollout/ep_rew_mean": state.episode_return_mean, "rollout/ep_len_mean": state.episode_length_mean}
        metrics = {name: value for name, value in optional.items() if value is not None}
        metrics |= {
            "time/fps": fps,
            "time/iterations": state.iteration,
            "time/time_elapsed": elapsed,
            "time/total_timesteps": state.timesteps,
        }
        return IterationReport(
            iteration=state.iteration,
            timesteps=state.timesteps,
            total_timesteps=target,
            metrics=metrics | outcome.metrics,
            episodes=outcome.episodes,
            episode_return_mean=state.episode_return_mean,
            elapsed_seconds=elapsed,
        )

    def _result(
        self,
        state: TrainingState,
        threshold: float | None,
        solved_timesteps: int | None,
        interrupted: bool,
        wall_seconds: float,
    ) -> TrainingResult:
        return TrainingResult(
            algorithm=self.name,
            env=self.spec.id,
            seed=self.run.seed,
            workers=self.run.workers,
            timesteps=state.timesteps,
            iterations=state.iteration,
            episode_return_mean=state.episode_return_mean,
            solved=None if threshold is None else solved_timesteps is not None,
            solved_timesteps=solved_timesteps,
            interrupted=interrupted,
            wall_seconds=wall_seconds,
            total_seconds=time.time() - psutil.Process().create_time(),
            weights_sha256=self._layout.sha256(get(state.weights)),
        )
