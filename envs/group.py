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
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NoReturn

import gymnasium
import numpy as np

from ..runtime import InputError
from .action_log import ActionLog
from .closing import close_all
from .contract import exit_problem
from .copies import common_spaces, make_copy
from .errors import RecoveryWarning
from .group_checks import GroupChecks, fail_timeout
from .group_progress import GroupProgress
from .group_state import KEPT_FOR_MESSAGES, GroupState
from .group_step import GroupStep
from .interrupts import CallInterrupted
from .recovery import RecoveryChoice, choose_recovery
from .spaces import codec, describe
from .spec import EnvSpec
from .time_limits import End, TimeLimits
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
    _inner: list[gymnasium.Env]  # what is reset and stepped
    _steppers: list[Callable[[Any], Any]]

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
        self._limits = TimeLimits(self._progress)
        self._step_timeout, self._envs = step_timeout, list[gymnasium.Env]()
        self._watch = Watch(self._progress, step_timeout, end_process)
        # Also where nobody calls `close`: when the group is dropped, or the process ends.
        self._closed = weakref.finalize(self, _end, self._envs, self._watch, spec.id)
        try:
            self._make_environments()
            self.observation_space, self.action_space = common_spaces(self._envs, spec, first_index)
        except BaseException:
            self.close()
            raise
        self._codec, actions = codec(self.observation_space), codec(self.action_space)
        self._checks = GroupChecks(self._progress, self._codec, actions, check)
        self._outside, self._has_masks = self._checks.outside, self._checks.has_masks
        self._rows_shape, self._row_numbers, self._unseen = (size, *self._codec.shape), range(size), [None] * size
        self._array_types = [np.ndarray] * size if self._codec.shape else []
        self._unpack_action = actions.unpack if actions.is_nested else None
        # An environment may keep or change its action, but none can change a number.
        self._own_actions = np.array if actions.is_nested or actions.shape else np.asarray
        self._actions_shape, self._actions_dtype = (size, *actions.shape), actions.dtype
        self._log = ActionLog(self._actions_shape, actions.smallest_dtype)
        self._progress.record(self._log, actions.dtype)
        self._none = np.frombuffer(bytes(size), np.bool_)  # of which nobody can change a row
        self._returns, self._last_state = np.zeros(size), 0  # steps at that time
        self._tells_actions = self._log.bytes_of_action <= most_action_bytes
        self._choice, self._keeper = recovery, Keeper(self._envs, self._progress)
        self._bind()

    def __enter__(self) -> "EnvGroup":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all environments, in 5 s at most; a second call does nothing. What fails is logged, not raised."""
        self._inner, self._steppers, self._started = [], [], False
        self._closed()

    # Stepping -------------------------------------------------------------------------------------------------------

    def reset(self) -> np.ndarray:
        """Begin the next episode in every environment, the first one at the first call.

        Returns:
            [size, …] observations, a new array.
        """
        observations = np.empty(self._rows_shape, self._codec.dtype)
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
        actions = self._own_actions(actions, self._actions_dtype)
        if actions.shape != self._actions_shape or not self._started:
            self._refuse_step(actions)
        if self._log.full:
            self._log.make_room(self._kept_actions())
        self._log.append(actions)
        progress = self._progress
        progress.steps += 1
        self._started = False  # until the step is whole
        observations, given, ended = self._step_each(actions)
        try:
            finals, rewards = self._rows_of(observations, "step()"), np.array(given, np.float64)
            self._returns += rewards
            if not math.isfinite(sum(given)):
                self._checks.rewards(rewards)
        except Exception as error:
            self._checks.explain(observations, given, error)
            raise
        if self._outside(finals) is not None:
            self._checks.observations(finals, "step()")
            self._outside = self._checks.outside  # bounds may not count any more
        out = GroupStep(finals, rewards, self._none, self._none, finals, [])
        if progress.steps >= self._limits.next:
            ended = self._limits.cut(ended)
        if ended:
            self._go_on(out, ended)
        if self._has_masks:
            self._checks.masks(out.observations, "step()")
        self.observations, self._started = out.observations, True
        return out

    def _step_each(self, actions: np.ndarray) -> tuple[list[Any], list[Any], list[End]]:
        """Step every environment; return the observation and the reward of each, and whose episodes ended."""
        observations: list[Any] = self._unseen.copy()
        rewards: list[Any] = self._unseen.copy()
        ended: list[End] = []
        result: Any = ...  # none so far
        watch, row = self._watch, 0
        watch.begin("step")
        try:
            for row, step, action in zip(self._row_numbers, self._steppers, actions, strict=True):
                watch.row = row
                result = step(action)
                observations[row], rewards[row], terminated, truncated, _ = result
                if terminated or truncated:
                    ended.append((row, terminated, truncated))
        except CallInterrupted:
            fail_timeout(self._progress, self._step_timeout, row, "step")
        except SystemExit as end:
            self._checks.fail(row, exit_problem(end, "step()"))
        except Exception as error:
            here = error.__traceback__ is not None and error.__traceback__.tb_next is None  # or in a step written in C
            if here and result is not ...:
                self._checks.explain_one(row, result, error)
            error.add_note(self._progress.note(row, "step"))
            raise
        finally:
            watch.row = IDLE
        return observations, rewards, ended

    def _rows_of(self, observations: Sequence[Any], source: str) -> np.ndarray:
        """Return what the environments returned as rows of the codec, a new array, of the right shape and dtype."""
        # Arrays are looked at together; what is nested, a number or of another kind one by one.
        if [*map(type, observations)] == self._array_types:
            try:
                found = np.array(observations)
            except ValueError:  # shapes differ
                pass
            else:
                # Equal is enough: a dtype that was pickled (with a class by value) is another object.
                if found.shape == self._rows_shape and found.dtype == self._codec.dtype:
                    return found
        rows = np.empty(self._rows_shape, self._codec.dtype)
        for row, observation in enumerate(observations):
            if not self._codec.fits(observation):
                self._checks.observation(row, observation, source)
            rows[row] = self._codec.pack(observation)
        return rows

    def _go_on(self, out: GroupStep, ended: Sequence[End]) -> None:
        """Begin the next episode where one has ended."""
        out.terminations, out.truncations = np.zeros(self.size, np.bool_), np.zeros(self.size, np.bool_)
        out.observations = out.final_observations.copy()
        for row, terminated, truncated in ended:
            self._checks.flags(row, terminated, truncated)
            out.terminations[row], out.truncations[row] = terminated, truncated
            return_ = float(self._returns[row])
            out.episodes.append(self._progress.ended(row, return_, with_actions=self._tells_actions))
            out.observations[row] = self._begin_episode(row)
        if self._outside(out.observations) is not None:
            self._checks.observations(out.observations, "reset()")

    def _begin_episode(self, index: int) -> Any:
        if not self._envs:
            raise InputError(f"this group of {self.spec.id!r} is closed")
        seed = self._progress.begin_episode(index)
        self._returns[index] = 0.0
        self._watch.begin("reset", index)
        try:
            result = self._inner[index].reset(seed=seed)
        except CallInterrupted:
            fail_timeout(self._progress, self._step_timeout, index, "reset")
        except SystemExit as end:
            self._checks.fail(index, exit_problem(end, "reset()"))
        except Exception as error:
            error.add_note(self._progress.note(index, "reset"))
            raise
        finally:
            self._watch.row = IDLE
        if not isinstance(result, tuple) or len(result) != 2:
            self._checks.reset_result(index, result)
        if not self._codec.fits(result[0]):
            self._checks.observation(index, result[0], "reset()")
        return self._codec.pack(result[0])

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
        choice, progress = self._choice, self._progress
        recovery = choice.recovery
        # Whoever repeats what came since the last state can play the episodes in progress again, too, if they take no
        # more than twice as long: to pickle the environments takes ten times as long as all the rest of a state.
        since, self._last_state = progress.steps - self._last_state, progress.steps
        if recovery == "snapshot" and choice.replayable and progress.total_length() <= 2 * since * self.size:
            recovery = "replay"
        return progress.state(
            recovery,
            choice.replayable,
            observations=self.observations,
            returns=self._returns,
            actions=self._log.last(self._kept_actions()),
            payload=self._keeper.save(recovery),
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
        self._returns, self._last_state = np.array(state.returns), state.steps
        self._log.replace(state.actions)
        self.observations = np.array(state.observations)
        exact = self._keeper.put_back(state)
        self._bind()
        if not exact:
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

    def _bind(self) -> None:
        """Take what is to be stepped and reset from the environments, of which a pickle makes others."""
        unpack, self._inner = self._unpack_action, self._limits.within(self._envs)
        steps = [env.step for env in self._inner]
        self._steppers = [*steps] if unpack is None else [_unpacking(unpack, step) for step in steps]

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


def _unpacking(unpack: Callable[[Any], Any], step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return what steps an environment with a row of nested actions."""
    return lambda row: step(unpack(row))


def _end(envs: list[gymnasium.Env], watch: Watch, name: str) -> None:
    """Close a group's environments; also called where nothing else of the group exists any more."""
    watch.stop()
    closed, envs[:] = list(envs), []
    close_all(closed, name)
