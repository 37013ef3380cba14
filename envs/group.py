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
from .copies import common_spaces, make_copy
from .errors import RecoveryWarning
from .group_checks import PENDING, GroupChecks, fail_timeout
from .group_progress import GroupProgress
from .group_state import KEPT_FOR_MESSAGES, GroupState
from .group_step import Episode, GroupStep
from .interrupts import CallInterrupted
from .recovery import RecoveryChoice, choose_recovery
from .spaces import codec, describe
from .spec import EnvSpec
from .watch import IDLE, Watch
from .ways_back import Keeper


class EnvGroup:
    """A fixed number of environments of one kind, stepped together, with same-step autoreset.

    Attributes:
        spec: what they are made from.
        size: how many there are.
        first_index: logical index in the run of the first.
        run_seed: seed of the run.
        observation_space: of one environment.
        action_space: of one environment.
        observations: [size, …] current observations, as rows of the space's codec: the array that the last `reset` or
            `step` returned. Do not change it.

    Raises:
        InputError: a setting or a space that is not supported.
        Exception: whatever the environment's own code raises, here, in `reset` and in `step`, with a note that names
            environment, index, episode, seed and step, and holds a script that repeats it.
    """

    observations: np.ndarray
    resets_on_next_step = False

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
        next_episode: Callable[[int], tuple[int, int]] | None = None,
        most_action_bytes: int = 0,
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
            next_episode: which episode a row begins next, as (logical index of the environment, of its episode); None:
                the next one of the row's own environment. Such a group is not put back to an earlier state.
            most_action_bytes: finished episodes are told with their actions, if a step's take no more than this.
        """
        if size < 1:
            raise InputError(f"a simulation group has at least 1 environment, not {size}")
        self.spec, self.size, self.first_index, self.run_seed = spec, size, first_index, run_seed
        self._progress, self._started = GroupProgress(spec, size, first_index, run_seed, next_episode), False
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
        self._codec, actions = codec(self.observation_space), codec(self.action_space)
        self._checks = GroupChecks(self._progress, self._codec, actions, check)
        self._outside, self._has_masks = self._checks.outside, self._checks.has_masks
        self._row_shape, self._dtype = self._codec.shape, self._codec.dtype
        # Asked of each observation, where comparing shape and dtype does not do.
        self._pack = self._codec.pack if self._codec.is_nested else None
        self._unpack_action = actions.unpack if actions.is_nested else None
        self._actions_shape, self._actions_dtype = (size, *actions.shape), actions.dtype
        self._log = ActionLog(self._actions_shape, actions.smallest_dtype)
        self._progress.record(self._log, self._actions_dtype)
        self._none = np.broadcast_to(np.False_, size)  # of which nobody can change a row
        self._returns, self._rewards = np.zeros(size, np.float64), np.zeros(size, np.float64)
        self._tells_actions = self._log.bytes_of_action <= most_action_bytes
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
        self._started = False
        for index in range(self.size):
            observations[index] = self._begin_episode(index)
        self._checks.observations(observations, "reset()")
        self._checks.masks(observations, "reset()")
        self.observations, self._started = observations, True
        return observations

    def step(self, actions: np.ndarray) -> GroupStep:
        """Take one step in every environment; where an episode ends, begin the next one.

        Args:
            actions: [size, …] environment actions, as `to_env_actions` returns them.

        Returns:
            Arrays that no later step touches, and nobody else may: where nothing ended, two of them are one.

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
        self._started = False  # until the step is whole
        finals, rewards = np.empty((self.size, *self._row_shape), self._dtype), self._rewards
        ended = self._step_each(actions, finals)
        if self._outside(finals) is not None:
            self._checks.observations(finals, "step()")
            self._outside = self._checks.outside  # bounds may not count any more
        if not math.isfinite(rewards.dot(rewards)):
            self._checks.rewards(rewards)
        self._returns += rewards
        out = GroupStep(finals, rewards.astype(np.float32), self._none, self._none, finals)
        if ended:
            out.observations, out.terminations, out.truncations = finals.copy(), self._none.copy(), self._none.copy()
            out.episodes = [self._end_episode(*end, out) for end in ended]
            self._checks.observations(out.observations, "reset()")
        if self._has_masks:
            self._checks.masks(out.observations, "step()")
        self.observations, self._started = out.observations, True
        return out

    def _step_each(self, actions: np.ndarray, finals: np.ndarray) -> list[tuple[int, bool, bool]]:
        """Step every environment; return where an episode ended: row, terminated, truncated."""
        rewards, steppers, row_shape, dtype = self._rewards, self._steppers, self._row_shape, self._dtype
        watch, fits, pack, unpack = self._watch, self._codec.fits, self._pack, self._unpack_action
        watch.begin("step")
        ended: list[tuple[int, bool, bool]] = []
        index, result = 0, PENDING
        try:
            # The rows are this step's own, so an environment may keep or change its action.
            for index, action in enumerate(actions):
                result, watch.row = PENDING, index
                result = steppers[index](action if unpack is None else unpack(action))
                observation, reward, terminated, truncated, _ = result
                # Equal, not the same: a dtype that was pickled (with a class by value, or an array) is another object.
                if (
                    (observation.shape != row_shape or observation.dtype != dtype)
                    if row_shape
                    else not fits(observation)
                ):
                    self._checks.observation(index, observation, "step()")
                finals[index] = observation if pack is None else pack(observation)
                rewards[index] = reward
                if terminated or truncated:
                    ended.append((index, bool(terminated), bool(truncated)))
        except CallInterrupted:
            fail_timeout(self._progress, self._step_timeout, index, "step")
        except Exception as error:
            self._checks.explain(index, result, error)
            raise
        finally:
            watch.row = IDLE
        return ended

    def _end_episode(self, index: int, terminated: bool, truncated: bool, out: GroupStep) -> Episode:
        out.terminations[index], out.truncations[index] = terminated, truncated
        episode = self._progress.ended(index, float(self._returns[index]), with_actions=self._tells_actions)
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
            fail_timeout(self._progress, self._step_timeout, index, "reset")
        except Exception as error:
            error.add_note(self._progress.note(index, "reset"))
            raise
        finally:
            self._watch.row = IDLE
        if not isinstance(result, tuple) or len(result) != 2:
            self._checks.reset_result(index, result)
        if not self._codec.fits(result[0]):
            self._checks.observation(index, result[0], "reset()")
        return result[0] if self._pack is None else self._pack(result[0])

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
        return self._progress.state(
            choice.recovery,
            choice.replayable,
            observations=self.observations,
            returns=self._returns,
            actions=self._log.last(self._kept_actions()),
            payload=self._keeper.save(choice.recovery),
        )

    def restore(self, state: GroupState) -> bool:
        """Go on from a state, of this group or of one like it in another process; what was going on here is dropped.

        Returns:
            Whether the episodes in progress go on; False if new ones begin.

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
        exact = self._keeper.put_back(state)
        if exact:
            self._steppers = [env.step for env in self._envs]
        else:
            self._warn_of_lost_episodes()
            self.reset()
        self._started = True
        return exact

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
        return longest if needed else min(longest, KEPT_FOR_MESSAGES)

    # Failures -------------------------------------------------------------------------------------------------------

    def _make_environments(self) -> None:
        for index in range(self.size):
            self._watch.begin("__init__", index)
            try:
                self._envs.append(make_copy(self.spec, self.run_seed, self.first_index + index))
            except CallInterrupted:
                fail_timeout(self._progress, self._step_timeout, index, "__init__")
            finally:
                self._watch.row = IDLE

    def _refuse_step(self, actions: np.ndarray) -> NoReturn:
        if not self._started:
            raise InputError(f"this group of {self.spec.id!r} is closed or not yet reset: call reset() before step()")
        raise InputError(
            f"actions of shape {actions.shape} given to a group of {self.size} × {self.spec.id!r}; wanted "
            f"{self._actions_shape}: one row per environment of action space {describe(self.action_space)}"
        )


def _end(envs: list[gymnasium.Env], watch: Watch, name: str) -> None:
    """Close a group's environments; also called where nothing else of the group exists any more."""
    watch.stop()
    closed, envs[:] = list(envs), []
    close_all(closed, name)
