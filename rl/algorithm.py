"""The base class of algorithms: settings, and what a user calls. The driver's loop is in `training`.

What kinds of training there are, this does not know: each has a base class of its own (`online` is one), which says
what a training runs on (`make_run`) and what its iteration is in the driver (`training_step`).
"""

from __future__ import annotations

import logging
import threading
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Never, TypeVar, cast

import numpy as np

from .. import runtime
from ..envs import (
    EnvSpec,
    Inspection,
    JointSpace,
    check_same_spaces,
    check_vectorization,
    inspect_environment,
    resolve,
    spec_to_json,
)
from ..runtime import InputError, TeachesNames, get, refuse_unknown
from .agents import choose_models
from .callbacks import Callback, EvaluationReport, TrainingResult, callback_list, stops_of_evaluations, under_way
from .chosen_settings import check_kind, choose_settings, split_settings
from .clock import Clock
from .declaration import Declaration
from .elsewhere import TRAIN, TRAINING, attributes, check_by_name
from .engine import preload, start_runtime
from .initial_weights import check_initial
from .lazy import load
from .model_choice import choose_memory
from .models.architecture import read_architecture
from .run import Run
from .runs.checkpoint import policy_files, write_best, write_checkpoint
from .runs.files import Content
from .runs.league_files import write_league
from .runs.saved_training import SavedTraining, read_saved_training, saved_files, split_changes
from .settings import Bounds, RunSettings, hyperparameters_to_json
from .signature import Signature
from .trainable import Trainable
from .training import TrainingLoop
from .training_state import IterationOutcome, TrainingState, Weights, has_reached, with_hashes

if TYPE_CHECKING:
    from .models.policy import Policy

logger = logging.getLogger("shoal")
Config = TypeVar("Config")


class Algorithm(TeachesNames, Trainable, Declaration, Generic[Config]):
    """A training of one policy on one kind of environment.

    Args:
        env: id of a registered or gymnasium environment, or a class or factory.
        workers, n_envs, group_size, seed, device, threads, check, step_timeout, normalize, vectorization,
        policy_kwargs, eval_freq, eval_episodes: see `RunSettings`; None takes the preset's value or the default.
        engine: starts the runtime with this engine, if it isn't running; None leaves the choice to the runtime.
        preset: "auto" applies the settings tuned for this environment, if there are any; "none" or None does not; or
        the id whose settings to take.
        env_kwargs: arguments of the environment.
        **hyperparameters: fields of `config_class`, and what else `RunSettings` has; they win over the preset. What
        each means is told by `shoal train NAME --help`.

    Raises InputError on an unknown name (with the nearest ones) and on values that cannot work, before anything is
    started.
    """

    names_elsewhere = attributes(TRAINING)
    __signature__ = Signature()

    def __init__(
        self,
        env: Any,
        *others: Any,
        workers: int = 1,
        n_envs: int | None = None,
        seed: int = 0,
        engine: str | None = None,
        device: str = "auto",
        preset: str | None = "auto",
        policy_kwargs: Mapping[str, Any] | None = None,
        env_kwargs: Mapping[str, Any] | None = None,
        group_size: int | None = None,
        threads: int = 1,
        check: str = "error",
        step_timeout: float | None = None,
        normalize: str | Iterable[str] | None = None,
        eval_freq: int | None = None,
        eval_episodes: int | None = None,
        vectorization: str = "sync",
        **hyperparameters: Any,
    ) -> None:
        check_by_name(type(self).__name__, env, others)
        run = {
            "workers": workers, "n_envs": n_envs, "seed": seed, "device": device, "policy_kwargs": policy_kwargs,
            "group_size": group_size, "threads": threads, "check": check, "step_timeout": step_timeout,
            "normalize": normalize, "eval_freq": eval_freq, "eval_episodes": eval_episodes,
            "vectorization": vectorization,
        }  # fmt: skip
        given = {name: value for name, value in run.items() if value is not None} | hyperparameters
        split_settings(given, (RunSettings, self.config_class), f"{type(self).__name__}")
        self.spec: EnvSpec = resolve(env, env_kwargs)
        chosen = choose_settings(type(self), given, preset, self.spec.id)
        self.preset, self.derived = chosen.preset, chosen.derived
        self.run, self.config = chosen.run, cast("Config", chosen.config)
        self.check()
        network = self.model_options(self.config) | dict(self.run.policy_kwargs)
        choose_memory(type(self), network)
        read_architecture(self.models[0], network)  # before the environment is made
        check_kind(type(self), self.run, self.require)
        found = self._inspect()
        self.spec = found.spec
        self.model_spec, self.run = choose_models(type(self), self.config, found, network, self.run)
        self.check_spaces()
        check_initial(self.model_spec, self.run)
        self._actors: Run | None = None
        self._making, self._train_lock = threading.RLock(), threading.Lock()
        self._state: TrainingState | None = None
        self._saved: SavedTraining | None = None
        self._policy: Policy | None = None
        start_runtime(engine)
        self.check_runtime()
        preload(type(self), "torch", "gymnasium")

    def _inspect(self) -> Inspection:
        """Check the environment, and the version of it that is stepped together."""
        run = self.run
        if self.critic_sees(self.config) == "state":
            self.spec = replace(self.spec, tells_state=True)
        found = inspect_environment(self.spec, run_seed=run.seed, mode=run.check, step_timeout=run.step_timeout)
        if isinstance(found.observation_space, JointSpace) and not self.trains_agents:
            raise InputError(
                f"environment {self.spec.id!r} has several agents, but {self.name} learns from what one of them did: "
                "choose an algorithm that plays in the environment, such as ppo"
            )
        if run.vectorization == "sync":
            return found
        return check_vectorization(run.vectorization, found, run.seed, run.check)

    # ---- what an algorithm defines

    def check(self) -> None:
        """Check settings against each other; raise InputError. Called before anything is started."""

    def check_spaces(self) -> None:
        """Check settings against the spaces in `model_spec`; raise InputError. Called before anything is started."""

    def check_runtime(self) -> None:
        """Check settings against the runtime, which runs by now; raise InputError."""
        self.run.check_engine(runtime.engine_name())

    @abstractmethod
    def make_run(self) -> Run:
        """What this kind of training runs on, made with `run_options`."""

    @abstractmethod
    def training_step(self, run: Any, state: TrainingState, clock: Clock) -> IterationOutcome:
        """One iteration from `state`, which `clock` tells the time of; `run` is what `make_run` made."""

    @classmethod
    def saved_environment(cls, saved: SavedTraining, env: Any) -> Any:
        """The environment to go on in; `env` in its place where one is given. InputError if it cannot be found."""
        return saved.spec(env)

    # ---- what it may use

    def run_options(self) -> dict[str, Any]:
        """Arguments of a `Run`."""
        return {
            "algorithm": type(self),
            "config": self.config,
            "spec": self.spec,
            "model_spec": self.model_spec,
            "settings": self.run,
        }

    @property
    def actors(self) -> Run:
        """What the training runs on."""
        with self._making:  # a simulator's thread may ask for the address while the training starts
            self._actors = self._actors or self.make_run()
            return self._actors

    # ---- what a user calls

    def train(
        self,
        total_timesteps: int,
        *,
        stop_return: float | None = None,
        callbacks: Callback | Iterable[Callback] | None = None,
        **unknown: Never,
    ) -> TrainingResult:
        """Train for `total_timesteps` more environment steps (rounded up to whole iterations); a second call continues.

        Schedules run over all steps, those of earlier calls and of the resumed run included. Ends early once the mean
        return of the last 100 episodes is at least `stop_return` (at once, if it is already), or when a callback
        returns False. An exception, or Ctrl-C, leaves the algorithm as of the last finished iteration.
        """
        known = ("total_timesteps", "stop_return", "callbacks")
        refuse_unknown("train has no argument", unknown, known, attributes(TRAIN))
        total_timesteps = Bounds(whole=True, at_least=1).read("total_timesteps", total_timesteps)
        stop_return = Bounds(optional=True).read("stop_return", stop_return)
        watching = [*callback_list(callbacks), *stops_of_evaluations(self.run)]
        loop = TrainingLoop(
            self,
            self._iterate,
            self._finish_evaluations,
            self._go_on_from,
            callbacks=watching,
            stop_return=stop_return,
            reward_threshold=self.reward_threshold,
        )
        with under_way(self, watching, self._train_lock):
            loop.run(self._start(), total_timesteps)
            return loop.result(self.actors.description[1])

    @property
    def env_id(self) -> str:
        """Id of the environment."""
        return self.spec.id

    @property
    def reward_threshold(self) -> float | None:
        """Mean return of a training's episodes from which on its task counts as solved; None if there is none."""
        return self.spec.reward_threshold

    @property
    def state(self) -> TrainingState:
        """Where it stands; starts the actors at first use."""
        return self._start()

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
        """A policy with the weights of the last finished iteration; what is done to it does not reach the training,
        which begins with other weights by `initial`. Imports torch in this process."""
        state = self._start()
        if self._policy is None:
            spec = self.model_spec
            self._policy = load("policy_of")(spec, seed=self.run.seed)
            self._policy.env = self._environment()
        if self._policy.version != state.weights.version or state.weights.version == 0:
            self._policy.set_weights(get(state.weights.ref), version=state.weights.version)
        return self._policy

    def save(self, folder: str | Path, *, save_replay: bool | None = None) -> Path:
        """Write a checkpoint of the last finished iteration into `folder`/checkpoints; return its folder.

        The newest 3 are kept. With `save_replay` (default: the setting of that name) it holds the replay buffer, so
        that a training that goes on from it is bit for bit as if it had not stopped; InputError if there is none."""
        state = self._start()
        own, transitions = self.actors.snapshot(state)
        with_replay = getattr(self.config, "save_replay", False) if save_replay is None else save_replay
        if with_replay and own["replay"] is None:
            raise InputError(f"save_replay is True, but {self.name} has no replay buffer. Leave it out")
        kept = saved_files(state, own, transitions if with_replay else None, self.model_spec, self.settings())
        files: dict[str, Content] = {**self._files_of(state.weights), **kept}
        write_league(folder, state.league, self._policy_files)
        return write_checkpoint(folder, state.timesteps, files)

    def save_best(self, folder: str | Path) -> Path | None:
        """Write the policy that did best in an evaluation into `folder`/checkpoints/best, in place of an older one;
        return that folder, or None if there was no evaluation since this training began or was resumed."""
        best = self._start().evaluations.best_weights
        return None if best is None else write_best(folder, self._files_of(best))

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        env: Any = None,
        engine: str | None = None,
        **changes: Any,
    ) -> Any:
        """Continue from a run folder's newest checkpoint, or from one checkpoint folder.

        If nothing is changed that is as if the training had not stopped, bit for bit; but a replay buffer that was not
        saved with it (`save_replay`) fills again.

        `env` is needed if the environment cannot be made from its description (a class of your program; a module that
        lies in the run's folder is never imported). `changes` replace the saved ones: hyperparameters, and of the run
        settings those in `settings.FREE`, which have no influence on the result. Raises InputError if there is no
        checkpoint, or it is damaged or another algorithm's, SpaceMismatchError if the environment has other spaces than
        the policy.
        """
        free, changed = split_changes(changes, cls.config_class, f"{cls.__name__}.load")
        saved = read_saved_training(folder, cls.name)
        config = saved.hyperparameters(changed)
        past = {"initial_policies": {}, "initial": ""}  # what it began with
        settings = saved.document["run"] | past | free | config
        loaded = cls(cls.saved_environment(saved, env), engine=engine, preset="none", **settings)
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
            "device": self.actors.description[2],
            "environment": spec_to_json(self.spec),
            "run": asdict(self.run) | {"policy_kwargs": dict(self.run.policy_kwargs)},
            "hyperparameters": hyperparameters_to_json(self.config),
            "preset": dict(self.preset),
        }

    def close(self) -> None:
        """End this training's actors. The runtime goes on."""
        actors, self._actors = self._actors, None
        if actors is not None:
            actors.close()

    # ---- inside

    def _start(self) -> TrainingState:
        """The state to go on from; starts the actors at first use."""
        if self._state is None:
            self._state = self.actors.initial_state() if self._saved is None else self._saved.state()
        return self._state

    def _environment(self) -> dict[str, Any] | None:
        """What a policy says of its environment; None without one."""
        return spec_to_json(self.spec)

    def _files_of(self, weights: Weights) -> dict[str, bytes]:
        return self._policy_files(get(weights.ref), weights.version)

    def _policy_files(self, weights: np.ndarray, version: int) -> dict[str, bytes]:
        entries = {**self.model_spec.to_json(), "env": self._environment(), "version": version}
        return policy_files(entries, self.actors.description[1], weights)

    def _iterate(self, state: TrainingState, clock: Clock) -> IterationOutcome:
        """One iteration; until `_go_on_from` is called, the algorithm stays as of the one before."""
        outcome = self.training_step(self.actors, state, clock)
        if self.run.records_hashes:
            outcome = with_hashes(outcome, self.actors.description[1])
        log, report = self.actors.evaluations.after_iteration(state, outcome.state)
        return replace(outcome, state=replace(outcome.state, evaluations=log), evaluation=report)

    def _finish_evaluations(self, state: TrainingState) -> tuple[TrainingState, EvaluationReport | None]:
        log, report = self.actors.evaluations.finish(state.evaluations)
        return replace(state, evaluations=log), report

    def _go_on_from(self, state: TrainingState) -> None:
        self._state = state
