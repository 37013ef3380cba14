"""The base class of algorithms: settings, actors, and the driver's loop.

    rollout workers ────rollouts────▶ learner          the driver passes references between them,
          ▲                              │             and reads only small statistics and metrics
          └───────────weights────────────┘

What an algorithm adds is said in `declaration`; its `training_step` runs in the driver.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import psutil

from .. import runtime
from ..envs import EnvSpec, check_same_spaces, inspect_environment, resolve, spec_to_json
from ..runtime import InputError, get
from .actors import Run
from .callbacks import Callback, IterationReport, TrainingResult, callback_list
from .checkpoint import policy_files, training_files, write_checkpoint
from .clock import Clock
from .declaration import Declaration
from .lazy import load
from .model_choice import choose_model
from .models.architecture import read_architecture
from .saved_training import SavedTraining, read_saved_training
from .settings import Bounds, RunSettings, derived_defaults, find_preset, split_settings
from .training_state import IterationOutcome, TrainingState, has_reached, state_to_arrays

if TYPE_CHECKING:
    from .models.policy import Policy

logger = logging.getLogger("shoal")
Config = TypeVar("Config")
KEPT_CHECKPOINTS = 3


def _to_json(value: Any) -> Any:
    """A hyperparameter as JSON holds it; a function by its name."""
    return {"function": getattr(value, "__qualname__", repr(value))} if callable(value) else value


class Algorithm(Declaration, Generic[Config]):
    """A training of one policy on one kind of environment.

    Args:
        env: id of a registered or gymnasium environment, or a class or factory.
        workers, n_envs, group_size, seed, device, threads, check, step_timeout, policy_kwargs: see `RunSettings`; None
        takes the preset's value or the default.
        engine: starts the runtime with this engine, if it isn't running; None leaves the choice to the runtime.
        preset: "auto" applies the settings tuned for this environment, if there are any; "none" does not; or the id
        whose settings to take.
        env_kwargs: arguments of the environment.
        **hyperparameters: fields of `config_class`; they win over the preset.

    Raises InputError on an unknown name (with the nearest ones) and on values that cannot work, before anything is
    started.
    """

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
        check: str = "error",
        step_timeout: float | None = None,
        **hyperparameters: Any,
    ) -> None:
        run = {
            "workers": workers, "n_envs": n_envs, "seed": seed, "device": device, "policy_kwargs": policy_kwargs,
            "group_size": group_size, "threads": threads, "check": check, "step_timeout": step_timeout,
        }  # fmt: skip
        given = {name: value for name, value in run.items() if value is not None} | hyperparameters
        split_settings(given, (RunSettings, self.config_class), f"{type(self).__name__}")
        self.spec: EnvSpec = resolve(env, env_kwargs)
        chosen = {} if preset == "none" else find_preset(self.presets_path, preset, self.spec.id)
        self.preset: dict[str, Any] = {name: value for name, value in chosen.items() if name not in given}
        parts = split_settings(self.preset | given, (RunSettings, self.config_class), f"the preset of {self.name}")
        self.run = RunSettings(**parts[0])
        self.derived: dict[str, Any] = derived_defaults(self.config_class, parts[1], self.run)
        self.config: Config = self.config_class(**self.derived | parts[1])
        self.check()
        network = self.model_options(self.config) | dict(self.run.policy_kwargs)
        read_architecture(self.models[0], network)  # before the environment is made
        found = inspect_environment(
            self.spec, run_seed=self.run.seed, mode=self.run.check, step_timeout=self.run.step_timeout
        )
        self.spec = found.spec
        spaces = found.observation_space, found.action_space
        self.model_spec = choose_model(type(self), self.spec.id, *spaces, network)
        self.check_spaces()
        self._actors: Run | None = None
        self._state: TrainingState | None = None
        self._saved: SavedTraining | None = None
        self._policy: Policy | None = None
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

    def check_spaces(self) -> None:
        """Check settings against the spaces in `model_spec`; raise InputError. Called before anything is started."""

    def training_step(self, run: Run, state: TrainingState, clock: Clock) -> IterationOutcome:
        """One iteration from `state`, which `clock` tells the time of: all groups act under the same weights, then the
        learner updates them."""
        return run.learn(state, run.workers.collect(state, clock), clock)

    # ---- what it may use

    def require(self, condition: bool, name: str, value: Any, allowed: str) -> None:
        """Raise InputError naming the setting, its value and what is allowed, unless `condition`."""
        if not condition:
            source = f". It comes from the preset: choose {name}, or preset='none'" if name in self.preset else ""
            raise InputError(f"{name} is {value!r}, but must be {allowed}{source}")

    @property
    def actors(self) -> Run:
        """Rollout workers and learner."""
        if self._actors is None:
            self._actors = Run(
                algorithm=type(self),
                config=self.config,
                spec=self.spec,
                model_spec=self.model_spec,
                settings=self.run,
            )
        return self._actors

    # ---- what a user calls

    def train(
        self,
        total_timesteps: int,
        *,
        stop_return: float | None = None,
        callbacks: Callback | Iterable[Callback] | None = None,
    ) -> TrainingResult:
        """Train for `total_timesteps` more environment steps (rounded up to whole iterations); a second call continues.

        Schedules run over all steps, those of earlier calls and of the resumed run included. Ends early once the mean
        return of the last 100 episodes is at least `stop_return` (at once, if it is already), or when a callback
        returns False. An exception, or Ctrl-C, leaves the algorithm as of the last finished iteration.
        """
        total_timesteps = Bounds(whole=True, at_least=1).read("total_timesteps", total_timesteps)
        stop_return = Bounds(optional=True).read("stop_return", stop_return)
        watching = callback_list(callbacks)
        state = self._start()
        first, target = state.timesteps, state.timesteps + total_timesteps
        threshold = self.spec.reward_threshold if stop_return is None else stop_return
        solved_timesteps = first if has_reached(state.recent, threshold) else None
        interrupted = False
        for callback in watching:
            callback.on_training_start(self, target)
        began = time.perf_counter()
        while state.timesteps < target and not interrupted and not has_reached(state.recent, stop_return):
            outcome = self.training_step(self.actors, state, Clock(state.timesteps, target))
            self._state = state = outcome.state
            if solved_timesteps is None and has_reached(state.recent, threshold):
                solved_timesteps = state.timesteps
            elapsed = time.perf_counter() - began
            report = self._report(outcome, target, elapsed, fps=(state.timesteps - first) / elapsed)
            answers = [callback.on_iteration_end(self, report) for callback in watching]
            interrupted = any(answer is False for answer in answers) and state.timesteps < target
        result = self._result(state, threshold, solved_timesteps, interrupted, time.perf_counter() - began)
        for callback in watching:
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
        standing = self._state or self._saved
        return 0 if standing is None else standing.timesteps

    @property
    def iteration(self) -> int:
        """Finished iterations."""
        standing = self._state or self._saved
        return 0 if standing is None else standing.iteration

    def has_reached(self, stop_return: float | None) -> bool:
        """Whether the mean return of the last 100 episodes is at least `stop_return` already: `train` ends at once."""
        standing = self._state or self._saved
        return standing is not None and has_reached(standing.recent, stop_return)

    @property
    def policy(self) -> Policy:
        """The policy with the weights of the last finished iteration. Imports torch in this process."""
        state = self._start()
        if self._policy is None:
            spec = self.model_spec
            self._policy = load("Policy")(
                spec.observation_space,
                spec.action_space,
                policy_kwargs=spec.policy_kwargs,
                seed=self.run.seed,
                model=spec.kind,
            )
            self._policy.env = spec_to_json(self.spec)
        if self._policy.version != state.weights.version or state.weights.version == 0:
            self._policy.set_weights(get(state.weights.ref), version=state.weights.version)
        return self._policy

    def save(self, folder: str | Path) -> Path:
        """Write a checkpoint of the last finished iteration into `folder`/checkpoints; return its folder.

        The newest 3 are kept."""
        state = self._start()
        learner = self.actors.learner
        document, arrays = state_to_arrays(state, learner.snapshot(state))
        document |= self.settings()
        entries = {**self.model_spec.to_json(), "env": spec_to_json(self.spec), "version": state.weights.version}
        policy = policy_files(entries, learner.description[1], get(state.weights.ref))
        files = policy | training_files(document, arrays)
        return write_checkpoint(folder, state.timesteps, files, keep=KEPT_CHECKPOINTS)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        env: Any = None,
        workers: int | None = None,
        engine: str | None = None,
        device: str | None = None,
        check: str | None = None,
        step_timeout: float | None = None,
        **hyperparameters: Any,
    ) -> Any:
        """Continue from a run folder's newest checkpoint, or from one checkpoint folder.

        If nothing is changed that is as if the training had not stopped, bit for bit; but a replay buffer is not in a
        checkpoint, and fills again.

        `env` is needed if the environment cannot be made from its description (a class of your program; a module that
        lies in the run's folder is never imported); `workers`, `engine`, `device`, `check`, `step_timeout` and
        hyperparameters replace the saved ones. Raises InputError if there is no checkpoint, or it is damaged or another
        algorithm's, SpaceMismatchError if the environment has other spaces than the policy.
        """
        split_settings(hyperparameters, [cls.config_class], f"{cls.__name__}.load")
        saved = read_saved_training(folder, cls.name)
        changes = {"workers": workers, "device": device, "check": check, "step_timeout": step_timeout}
        given = {name: value for name, value in changes.items() if value is not None}
        config = saved.hyperparameters(hyperparameters)
        loaded = cls(saved.spec(env), engine=engine, preset="none", **(saved.document["run"] | given), **config)
        check_same_spaces(saved.policy.spec, loaded.model_spec, loaded.spec.id)
        loaded.preset = saved.document["preset"]
        loaded._saved = saved
        return loaded

    def settings(self) -> dict[str, Any]:
        """All resolved settings, JSON-able: `algorithm`, `env`, `environment`, `engine`, `device`, `run`,
        `hyperparameters`, and what the `preset` chose of them. Starts the actors, since only the learner knows its
        device."""
        self._start()
        return {
            "algorithm": self.name,
            "env": self.spec.id,
            "engine": runtime.engine_name(),
            "device": self.actors.learner.description[2],
            "environment": spec_to_json(self.spec),
            "run": asdict(self.run) | {"policy_kwargs": dict(self.run.policy_kwargs)},
            "hyperparameters": {name: _to_json(value) for name, value in asdict(self.config).items()},  # type: ignore[call-overload]
            "preset": dict(self.preset),
        }

    def close(self) -> None:
        """End this training's actors. The runtime goes on."""
        actors, self._actors = self._actors, None
        if actors is not None:
            actors.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- inside

    def _start(self) -> TrainingState:
        """The state to go on from; starts the actors at first use."""
        if self._state is None:
            self._state = self.actors.initial_state() if self._saved is None else self._saved.state()
        return self._state

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
            weights_sha256=self.actors.learner.description[1].sha256(get(state.weights.ref)),
        )
