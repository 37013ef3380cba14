"""Simulation groups: a fixed number of environments, the unit of work, of inference, of seeding and of recovery.

    group.reset() ──▶ observations [size, …]
         ┌───────────────────┘
    actions [size, …] ──▶ group.step ──▶ GroupStep: observations (after autoreset), rewards, terminations,
                                         truncations, final_observations (before autoreset), finished episodes

Environment i of the run always sits in the same row of the same group, and every reset is
``reset(seed=episode_seed(run seed, environment, episode))``: what happens in a group depends on nothing outside of it.
"""

import math
import warnings
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn

import gymnasium
import numpy as np

from ..runtime import InputError
from .action_log import ActionLog
from .closing import close_all
from .contract import reset_problem, reward_problem, step_problem
from .copies import common_spaces, make_copy
from .errors import EnvContractError, EnvTimeoutError, RecoveryWarning
from .group_progress import GroupProgress
from .group_state import GroupState
from .group_step import Episode, GroupStep
from .interrupts import CallInterrupted
from .observation_guard import ObservationGuard
from .recovery import RecoveryChoice, choose_recovery
from .spaces import describe, smallest_dtype
from .spec import EnvSpec
from .watch import IDLE, Watch
from .ways_back import Keeper

# Actions kept for the script that repeats a crash, where recovery doesn't need them.
_KEPT_FOR_MESSAGES = 10_000

# Stands for the result of a call that has not returned.
_PENDING: Any = object()


class EnvGroup:
    """A fixed number of environments of one kind, stepped together, with same-step autoreset.

    Attributes:
        spec: what they are made from.
        size: how many there are.
        first_index: logical index in the run of the first.
        run_seed: seed of the run.
        observation_space: of one environment.
        action_space: of one environment.
        observations: [size, …] current observations: the array that the last `reset` or `step` returned. Do not
            change it.

    Raises:
        InputError: a setting or a space that is not supported.
        Exception: whatever the environment's own code raises, here, in `reset` and in `step`, with a note that names
            environment, index, episode, seed and step, and holds a script that repeats it.
    """

    observations: np.ndarray

    def __init__(
        self,
        spec: EnvSpec,
        *,
        size: int,
        first_index: int,
        run_seed: int,
        recovery: RecoveryChoice | None = None,
        check: str = "error",
        step_timeout: float | None = None,
        end_process: Callable[[str], None] | None = None,
    ) -> None:
        """Make the environments.

        Args:
            spec: what they are made from.
            size: how many.
            first_index: logical index in the run of the first.
            run_seed: seed of the run.
            recovery: how they can be put back, as `choose_recovery` says; None: the first `state()` finds it out.
            check: whether an observation outside of the bounds of its Box is an error, or said once ("warn").
            step_timeout: seconds after which a call into an environment is interrupted; None: no limit.
            end_process: ends this process, with a report, if a call cannot be interrupted; None: it is only said.
        """
        if size < 1:
            raise InputError(f"a simulation group has at least 1 environment, not {size}")
        self.spec, self.size, self.first_index, self.run_seed = spec, size, first_index, run_seed
        self._progress, self._started = GroupProgress(spec, size, first_index, run_seed), False
        self._step_timeout = step_timeout
        self._envs: list[gymnasium.Env] = []
        self._watch = Watch(self._progress, step_timeout, end_process)
        # Also where nobody calls `close`: when the group is dropped, or the process ends.
        self._closed = weakref.finalize(self, _end, self._envs, self._watch, spec.id)
        try:
            self._make_environments()
            self.observation_space, self.action_space = common_spaces(self._envs, spec, first_index)
        except BaseException:
            self.close()
            raise
        self._steppers = [env.step for env in self._envs]
        self._guard = ObservationGuard(self.observation_space, size, check)
        self._row_shape, self._dtype = self.observation_space.shape or (), self._guard.dtype
        self._actions_shape = (size, *(self.action_space.shape or ()))
        self._actions_dtype = np.dtype(self.action_space.dtype)
        self._log = ActionLog(self._actions_shape, smallest_dtype(self.action_space))
        self._progress.record(self._log, self._actions_dtype)
        self._returns = np.zeros(size, np.float64)
        self._rewards = np.zeros(size, np.float64)
        self._choice = recovery
        self._keeper = Keeper(self._envs, self._progress)

    def __enter__(self) -> "EnvGroup":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all environments, in 5 s at most; a second call does nothing. What fails is logged, not raised."""
        self._steppers, self._started = [], False
        self._closed()

    # Stepping -------------------------------------------------------------------------------------------------------

    def reset(self) -> np.ndarray:
        """Begin the next episode in every environment, the first one at the first call.

        Returns:
            [size, …] observations, a new array.
        """
        observations = np.empty((self.size, *self._row_shape), self._dtype)
        for index in range(self.size):
            observations[index] = self._begin_episode(index)
        self._check_observations(observations, "reset()")
        self.observations, self._started = observations, True
        return observations

    def step(self, actions: np.ndarray) -> GroupStep:
        """Take one step in every environment; where an episode ends, begin the next one.

        Args:
            actions: [size, …] environment actions, as `to_env_actions` returns them.

        Returns:
            New arrays, which no later step touches.

        Raises:
            InputError: actions of a wrong shape, or the group has not been reset.
            EnvContractError: the environment returned something that does not fit.
        """
        actions = np.array(actions, self._actions_dtype)
        if actions.shape != self._actions_shape or not self._started:
            self._refuse_step(actions)
        if self._log.full:
            self._log.make_room(self._kept_actions())
        self._log.append(actions)
        self._progress.steps += 1
        out = GroupStep.empty(self.size, self._row_shape, self._dtype)
        finals, rewards = out.final_observations, self._rewards
        ended = self._step_each(actions, finals)
        if self._guard.outside(finals) is not None:
            self._check_observations(finals, "step()")
        if not math.isfinite(rewards.dot(rewards)):
            self._check_rewards(rewards)
        self._returns += rewards
        out.rewards[...] = rewards
        out.observations[...] = finals
        out.terminations[...] = False
        out.truncations[...] = False
        out.episodes = []
        if ended:
            out.episodes = [self._end_episode(*end, out) for end in ended]
            self._check_observations(out.observations, "reset()")
        self.observations = out.observations
        return out

    def _step_each(self, actions: np.ndarray, finals: np.ndarray) -> list[tuple[int, bool, bool]]:
        """Step every environment; return where an episode ended: row, terminated, truncated."""
        rewards, steppers, row_shape, dtype = self._rewards, self._steppers, self._row_shape, self._dtype
        watch, scalars = self._watch, self._guard.scalars
        watch.begin("step")
        ended: list[tuple[int, bool, bool]] = []
        index, result = 0, _PENDING
        try:
            # The rows are this step's own, so an environment may keep or change its action.
            for index, action in enumerate(actions):
                result, watch.row = _PENDING, index
                result = steppers[index](action)
                observation, reward, terminated, truncated, _ = result
                if (
                    observation.shape != row_shape or observation.dtype is not dtype
                    if row_shape
                    else type(observation) not in scalars
                ):
                    self._check_observation(index, observation, "step()")
                finals[index] = observation
                rewards[index] = reward
                if terminated or truncated:
                    ended.append((index, bool(terminated), bool(truncated)))
        except CallInterrupted:
            self._fail_timeout(index, "step")
        except Exception as error:
            self._explain_failure(index, result, error)
            raise
        finally:
            watch.row = IDLE
        return ended

    def _end_episode(self, index: int, terminated: bool, truncated: bool, out: GroupStep) -> Episode:
        out.terminations[index], out.truncations[index] = terminated, truncated
        progress = self._progress
        episode = Episode(
            environment=self.first_index + index,
            index=progress.episodes[index],
            return_=float(self._returns[index]),
            length=progress.length(index),
            seed=progress.seeds[index],
            end_step=progress.steps,
        )
        out.observations[index] = self._begin_episode(index)
        return episode

    def _begin_episode(self, index: int) -> Any:
        if not self._envs:
            raise InputError(f"this group of {self.spec.id!r} is closed")
        seed = self._progress.begin_episode(index)
        self._returns[index] = 0.0
        self._watch.begin("reset", index)
        try:
            result = self._envs[index].reset(seed=seed)
        except CallInterrupted:
            self._fail_timeout(index, "reset")
        except Exception as error:
            self._started = False
            error.add_note(self._progress.note(index, "reset"))
            raise
        finally:
            self._watch.row = IDLE
        if not isinstance(result, tuple) or len(result) != 2 or np.shape(result[0]) != self._row_shape:
            self._fail_contract(index, reset_problem(result, self.observation_space))
        if getattr(result[0], "dtype", None) is not self._dtype:
            self._check_observation(index, result[0], "reset()")
        return result[0]

    # State ----------------------------------------------------------------------------------------------------------

    def state(self) -> GroupState:
        """Return what another group of the same spec, seed, indices and size needs to go on from here, bit for bit.

        The first call tries out how the environments can be put back, on copies of its own. The state shares nothing
        with the group.

        Warns:
            RecoveryWarning: there is no exact way back.
        """
        if not self._started:
            raise InputError(f"this group of {self.spec.id!r} has no state before reset()")
        if self._choice is None:
            self._choice = choose_recovery(self.spec, self.run_seed, self.first_index)
        choice = self._choice
        progress = self._progress
        return GroupState(
            environment_id=self.spec.id,
            run_seed=self.run_seed,
            first_index=self.first_index,
            size=self.size,
            steps=progress.steps,
            recovery=choice.recovery,
            replayable=choice.replayable,
            observations=self.observations.copy(),
            episodes=np.array(progress.episodes, np.int64),
            seeds=np.array(progress.seeds, np.int64),
            lengths=np.array([progress.length(row) for row in range(self.size)], np.int64),
            returns=self._returns.copy(),
            actions=self._log.last(self._kept_actions()).copy(),
            payload=self._keeper.save(choice.recovery),
        )

    def restore(self, state: GroupState) -> None:
        """Go on from a state, of this group or of one like it in another process; what was going on here is dropped.

        Raises:
            InputError: the state of another group.
            ReplayMismatchError: a replayed episode led elsewhere.

        Warns:
            RecoveryWarning: there is no exact way back, and new episodes begin.
        """
        if not self._envs:
            raise InputError(f"this group of {self.spec.id!r} is closed")
        state.check_fits(self.spec.id, self.run_seed, self.first_index, self.size)
        self._started = False
        self._progress.put_back(state.steps, state.episodes, state.seeds, state.lengths)
        self._returns = np.array(state.returns)
        self._log.replace(state.actions)
        self.observations = np.array(state.observations)
        if self._keeper.put_back(state):
            self._steppers = [env.step for env in self._envs]
        else:
            self._warn_of_lost_episodes()
            self.reset()
        self._started = True

    def _warn_of_lost_episodes(self) -> None:
        warnings.warn(
            f"environment {self.spec.id!r}, indices {self.first_index}…{self.first_index + self.size - 1}: new "
            "episodes begin, since those in progress could not be put back exactly; results may differ",
            RecoveryWarning,
            stacklevel=3,
        )

    def _kept_actions(self) -> int:
        longest = self._progress.steps - min(self._progress.begins)
        needed = self._choice is None or self._choice.needs_actions
        return longest if needed else min(longest, _KEPT_FOR_MESSAGES)

    # Failures -------------------------------------------------------------------------------------------------------

    def _make_environments(self) -> None:
        for index in range(self.size):
            self._watch.begin("__init__", index)
            try:
                self._envs.append(make_copy(self.spec, self.run_seed, self.first_index + index))
            except CallInterrupted:
                self._fail_timeout(index, "__init__")
            finally:
                self._watch.row = IDLE

    def _refuse_step(self, actions: np.ndarray) -> NoReturn:
        if not self._started:
            raise InputError(f"this group of {self.spec.id!r} is closed or not yet reset: call reset() before step()")
        raise InputError(
            f"actions of shape {actions.shape} given to a group of {self.size} × {self.spec.id!r}; wanted "
            f"{self._actions_shape}: one row per environment of action space {describe(self.action_space)}"
        )

    def _explain_failure(self, index: int, result: Any, error: Exception) -> None:
        """Note where the environment's own error happened; raise another if its result is what doesn't fit."""
        self._started = False
        if result is _PENDING:
            error.add_note(self._progress.note(index, "step"))
        elif not isinstance(error, EnvContractError):
            problem = step_problem(result, self.observation_space)
            if problem is not None:
                self._fail_contract(index, problem)

    def _check_observations(self, observations: np.ndarray, source: str) -> None:
        """Refuse observations that would spoil all weights, or that the policy would misread."""
        row = self._guard.outside(observations)
        while row is not None:
            self._check_observation(row, observations[row], source)
            row = self._guard.outside(observations)

    def _check_observation(self, index: int, observation: Any, source: str) -> None:
        refusal = self._guard.refusal(observation, f"{self._progress.name(index)}: {source}")
        if refusal is not None:
            self._fail_contract(index, f"{source} returned {refusal}")

    def _check_rewards(self, rewards: np.ndarray) -> None:
        """Refuse rewards that would spoil all weights (numpy also takes None for NaN)."""
        for index, reward in enumerate(rewards.tolist()):
            if not math.isfinite(reward):
                self._fail_contract(index, reward_problem(reward))

    def _fail_contract(self, index: int, problem: str | None) -> NoReturn:
        self._started = False
        name, when = self._progress.name(index), self._progress.when(index)
        raise EnvContractError(f"{name}: {problem or 'the observation does not fit its space'} ({when})") from None

    def _fail_timeout(self, index: int, doing: str) -> NoReturn:
        self._started = False
        error = EnvTimeoutError(
            f"{self._progress.name(index)}: {doing} had not returned after {self._step_timeout:g} s"
        )
        error.add_note(self._progress.note(index, doing))
        raise error from None


def _end(envs: list[gymnasium.Env], watch: Watch, name: str) -> None:
    """Close a group's environments; also called where nothing else of the group exists any more."""
    watch.stop()
    closed, envs[:] = list(envs), []
    close_all(closed, name)
