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
from types import TracebackType
from typing import Any, NoReturn

import gymnasium
import numpy as np

from ..runtime import InputError
from .action_log import ActionLog
from .contract import reset_problem, reward_problem, step_problem
from .errors import EnvContractError, RecoveryWarning
from .group_state import GroupState
from .group_step import Episode, GroupStep
from .recovery import (
    ADVICE,
    RecoveryChoice,
    choose_recovery,
    load_snapshot,
    replay,
    restore_own_state,
    save_own_state,
    snapshot,
)
from .reproducer import Moment, add_note
from .seeding import episode_seed
from .spaces import Role, check_supported, describe, smallest_dtype
from .spec import EnvSpec
from .vectorization import check_vectorization

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
        self, spec: EnvSpec, *, size: int, first_index: int, run_seed: int, vectorization: str = "sync"
    ) -> None:
        check_vectorization(vectorization)
        if size < 1:
            raise InputError(f"a simulation group has at least 1 environment, not {size}")
        self.spec, self.size, self.first_index, self.run_seed = spec, size, first_index, run_seed
        self._envs: list[gymnasium.Env] = []
        for index in range(size):
            self._envs.append(self._make(index))
        self._steppers = [env.step for env in self._envs]
        self.observation_space, self.action_space = self._common_spaces()
        self._row_shape, self._dtype = self.observation_space.shape or (), np.dtype(self.observation_space.dtype)
        self._actions_shape = (size, *(self.action_space.shape or ()))
        self._actions_dtype = np.dtype(self.action_space.dtype)
        self._log = ActionLog(self._actions_shape, smallest_dtype(self.action_space))
        self._steps = 0
        self._started = False
        self._episodes = [-1] * size
        self._seeds = [0] * size
        self._begins = [0] * size
        self._returns = np.zeros(size, np.float64)
        self._rewards = np.zeros(size, np.float64)
        self._choice: RecoveryChoice | None = None

    def __enter__(self) -> "EnvGroup":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all environments; a second call does nothing."""
        envs, self._envs, self._steppers = self._envs, [], []
        self._started = False
        for env in envs:
            env.close()

    # Stepping -------------------------------------------------------------------------------------------------------

    def reset(self) -> np.ndarray:
        """Begin the next episode in every environment, the first one at the first call.

        Returns:
            [size, …] observations, a new array.
        """
        observations = np.empty((self.size, *self._row_shape), self._dtype)
        for index in range(self.size):
            observations[index] = self._begin_episode(index)
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
        self._steps += 1
        out = self._new_step()
        finals, rewards, steppers, row_shape = out.final_observations, self._rewards, self._steppers, self._row_shape
        ended: list[tuple[int, bool, bool]] = []
        index, result = 0, _PENDING
        try:
            # The rows are this step's own, so an environment may keep or change its action.
            for index, action in enumerate(actions):
                result = _PENDING
                result = steppers[index](action)
                observation, reward, terminated, truncated, _ = result
                if row_shape and observation.shape != row_shape:
                    self._fail_contract(index, step_problem(result, self.observation_space))
                finals[index] = observation
                rewards[index] = reward
                if terminated or truncated:
                    ended.append((index, bool(terminated), bool(truncated)))
        except Exception as error:
            self._explain_failure(index, result, error)
            raise
        if not math.isfinite(rewards.dot(rewards)):
            self._check_rewards(rewards)
        self._returns += rewards
        out.rewards[...] = rewards
        out.observations[...] = finals
        out.terminations[...] = False
        out.truncations[...] = False
        out.episodes = [self._end_episode(*end, out) for end in ended] if ended else []
        self.observations = out.observations
        return out

    def _new_step(self) -> GroupStep:
        shape, size = (self.size, *self._row_shape), self.size
        return GroupStep(
            observations=np.empty(shape, self._dtype),
            rewards=np.empty(size, np.float32),
            terminations=np.empty(size, np.bool_),
            truncations=np.empty(size, np.bool_),
            final_observations=np.empty(shape, self._dtype),
        )

    def _end_episode(self, index: int, terminated: bool, truncated: bool, out: GroupStep) -> Episode:
        out.terminations[index], out.truncations[index] = terminated, truncated
        episode = Episode(
            environment=self.first_index + index,
            index=self._episodes[index],
            return_=float(self._returns[index]),
            length=self._steps - self._begins[index],
            seed=self._seeds[index],
            end_step=self._steps,
        )
        out.observations[index] = self._begin_episode(index)
        return episode

    def _begin_episode(self, index: int) -> Any:
        self._episodes[index] += 1
        self._seeds[index] = seed = episode_seed(self.run_seed, self.first_index + index, self._episodes[index])
        self._begins[index] = self._steps
        self._returns[index] = 0.0
        if not self._envs:
            raise InputError(f"this group of {self.spec.id!r} is closed")
        try:
            result = self._envs[index].reset(seed=seed)
        except Exception as error:
            self._started = False
            add_note(error, self.spec, self._moment(index), "reset")
            raise
        if not isinstance(result, tuple) or len(result) != 2 or np.shape(result[0]) != self._row_shape:
            self._fail_contract(index, reset_problem(result, self.observation_space))
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
            self._choice = self._choose_recovery()
        choice = self._choice
        lengths = [self._steps - begin for begin in self._begins]
        payload: Any = None
        if choice.recovery == "own_state":
            payload = [save_own_state(env) for env in self._envs]
        elif choice.recovery == "snapshot":
            payload = snapshot(self._envs, choice.by_value)
        return GroupState(
            environment_id=self.spec.id,
            run_seed=self.run_seed,
            first_index=self.first_index,
            size=self.size,
            steps=self._steps,
            recovery=choice.recovery,
            replayable=choice.replayable,
            observations=self.observations.copy(),
            episodes=np.array(self._episodes, np.int64),
            seeds=np.array(self._seeds, np.int64),
            lengths=np.array(lengths, np.int64),
            returns=self._returns.copy(),
            actions=self._log.last(self._kept_actions()).copy(),
            payload=payload,
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
        self._steps, self._started = state.steps, False
        self._episodes, self._seeds = state.episodes.tolist(), state.seeds.tolist()
        self._begins = [state.steps - length for length in state.lengths.tolist()]
        self._returns = np.array(state.returns)
        self._log.replace(state.actions)
        self.observations = np.array(state.observations)
        if state.recovery == "own_state":
            for env, own, seed, length in zip(self._envs, state.payload, self._seeds, state.lengths, strict=True):
                restore_own_state(env, own, seed, int(length))
        elif state.recovery == "snapshot":
            before, self._envs = self._envs, load_snapshot(state.payload, self._envs)
            self._steppers = [env.step for env in self._envs]
            for env in before:
                env.close()
        elif state.recovery == "replay":
            for index, env in enumerate(self._envs):
                replay(env, self.spec.id, self._moment(index), self.observations[index], float(self._returns[index]))
        else:
            self._warn_of_lost_episodes()
            self.reset()
        self._started = True

    def _choose_recovery(self) -> RecoveryChoice:
        try:
            choice = choose_recovery(self.spec, self.run_seed, self.first_index)
        except Exception as error:
            error.add_note(f"while finding out how environment {self.spec.id!r} can be put back where it was")
            raise
        if choice.recovery == "restart":
            warnings.warn(
                f"environment {self.spec.id!r} cannot be put back where it was: {'; '.join(choice.problems)}. If a "
                "worker is lost, or the run is resumed, its episodes in progress are dropped and results may differ. "
                f"{ADVICE}",
                RecoveryWarning,
                stacklevel=3,
            )
        return choice

    def _warn_of_lost_episodes(self) -> None:
        warnings.warn(
            f"environment {self.spec.id!r}, indices {self.first_index}…{self.first_index + self.size - 1}: new "
            "episodes begin, since those in progress could not be put back exactly; results may differ",
            RecoveryWarning,
            stacklevel=3,
        )

    def _kept_actions(self) -> int:
        longest = self._steps - min(self._begins)
        needed = self._choice is None or self._choice.needs_actions
        return longest if needed else min(longest, _KEPT_FOR_MESSAGES)

    # Failures -------------------------------------------------------------------------------------------------------

    def _make(self, index: int) -> gymnasium.Env:
        try:
            return self.spec.make()
        except InputError:
            raise
        except Exception as error:
            add_note(error, self.spec, Moment(self.first_index + index), "__init__")
            raise

    def _common_spaces(self) -> tuple[gymnasium.Space, gymnasium.Space]:
        roles: tuple[Role, Role] = ("observation", "action")
        for role in roles:
            spaces: list[Any] = [getattr(env, f"{role}_space", None) for env in self._envs]
            for index, space in enumerate(spaces):
                check_supported(space, role)
                if space != spaces[0]:
                    raise EnvContractError(
                        f"environment {self.spec.id!r}: copies differ: {role}_space of index {self.first_index} is "
                        f"{describe(spaces[0])}, of index {self.first_index + index} {describe(space)}"
                    )
        return self._envs[0].observation_space, self._envs[0].action_space

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
            add_note(error, self.spec, self._moment(index), "step", self._steps - self._begins[index])
        elif not isinstance(error, EnvContractError):
            problem = step_problem(result, self.observation_space)
            if problem is not None:
                self._fail_contract(index, problem)

    def _check_rewards(self, rewards: np.ndarray) -> None:
        """Refuse rewards that would spoil all weights (numpy also takes None for NaN)."""
        for index, reward in enumerate(rewards.tolist()):
            if not math.isfinite(reward):
                length = self._steps - self._begins[index]
                self._fail_contract(
                    index, f"{reward_problem(reward)} (step {length} of episode {self._episodes[index]})"
                )

    def _fail_contract(self, index: int, problem: str | None) -> NoReturn:
        self._started = False
        where = f"environment {self.spec.id!r}, index {self.first_index + index}"
        raise EnvContractError(f"{where}: {problem or 'the observation does not fit its space'}") from None

    def _moment(self, index: int) -> Moment:
        length = self._steps - self._begins[index]
        kept = self._log.last(length)
        actions = kept[:, index].astype(self._actions_dtype) if length else None
        environment = self.first_index + index
        return Moment(environment, self._episodes[index], self._seeds[index], actions, complete=len(kept) == length)
