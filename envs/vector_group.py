"""Simulation groups whose environments are stepped by one call: what `EnvGroup` does, over a `VectorSource`."""

import math
import warnings
from types import TracebackType
from typing import Any

import numpy as np

from ..runtime import InputError
from .action_log import ActionLog
from .contract import exit_problem
from .errors import EnvContractError, RecoveryWarning, ReplayMismatchError
from .group_checks import GroupChecks
from .group_progress import GroupProgress
from .group_state import KEPT_FOR_MESSAGES, GroupState
from .group_step import GroupStep
from .recovery import RecoveryChoice
from .reproducer import note_on_group
from .seeding import derive_seed
from .spaces import codec
from .spec import EnvSpec
from .vector_sources import Stepped, make_source


class VectorGroup:
    """A fixed number of environments that a library steps together; arguments and attributes as of `EnvGroup`.

    Where a row is reset by the step after its end (`resets_on_next_step`), `GroupStep.resets` says so for that row: it
    is no transition, and its reward, 0, counts for nothing.

    Raises:
        InputError: there is no such version of the environment, or its spaces are not supported.
    """

    observations: np.ndarray

    def __init__(
        self,
        kind: str,
        spec: EnvSpec,
        *,
        size: int,
        first_index: int,
        run_seed: int,
        recovery: RecoveryChoice,
        check: str = "error",
    ) -> None:
        """Make the environments; `kind` is one of `vector_sources.KINDS` but sync."""
        self.kind, self.spec, self.size, self.first_index, self.run_seed = kind, spec, size, first_index, run_seed
        self._choice, self._started, self._closed = recovery, False, False
        self._source = make_source(kind, spec, size)
        self._progress = GroupProgress(spec, size, first_index, run_seed, seeded=self._source.seeded)
        self.observation_space, self.action_space = self._source.observation_space, self._source.action_space
        self.resets_on_next_step = self._source.resets_on_next_step
        try:
            self._codec, actions = codec(self.observation_space, "observation"), codec(self.action_space, "action")
            if self._codec.is_nested or actions.is_nested:
                raise InputError(
                    f"{spec.id!r} has spaces with parts, which vectorization {kind!r} does not take: choose 'sync'"
                )
            self._codec.check_supported("observation")
            actions.check_supported("action")
        except BaseException:
            self.close()
            raise
        self._checks = GroupChecks(self._progress, self._codec, actions, check)
        self._outside = self._checks.outside
        self._actions_shape, self._actions_dtype = (size, *actions.shape), actions.dtype
        self._log = ActionLog(self._actions_shape, actions.smallest_dtype)
        self._rows_shape = (size, *self._codec.shape)
        self._returns = np.zeros(size, np.float64)
        self._nowhere = np.frombuffer(bytes(size), np.bool_)  # which nobody can change
        self._over, self._over_rows = self._nowhere, list[int]()  # what the next step resets
        self._reset_at: float = -math.inf  # how many steps there were; -infinity where not all since are known

    def __enter__(self) -> "VectorGroup":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all environments; a second call does nothing."""
        self._started = False
        if not self._closed:
            self._closed = True
            self._source.close()

    # Stepping -------------------------------------------------------------------------------------------------------

    def reset(self) -> np.ndarray:
        """Begin the next episode in every environment; returns observations [size, …], a new array."""
        seeds = self._progress.begin_episodes(range(self.size))
        # The steps so far name it: a group that begins anew after a loss does not play the same again.
        seed = derive_seed(self.run_seed, "vector environments", self.first_index, self._progress.steps)
        self._returns[:] = 0.0
        self._over, self._over_rows = self._nowhere, []
        self._log.replace(self._log.last(0))
        self._reset_at = 0 if self._progress.steps == 0 else -math.inf  # a later reset has another seed
        self.observations = self._fitting(self._source.begin(seed, seeds), "reset()")
        self._started = True
        return self.observations

    def step(self, actions: np.ndarray) -> GroupStep:
        """Take one step in every environment; as `EnvGroup.step`. What the library does with `actions` it may do with
        the array that is given."""
        actions = np.asarray(actions, self._actions_dtype)
        if actions.shape != self._actions_shape or not self._started:
            raise InputError(
                f"actions of shape {actions.shape} given to a group of {self.size} × {self.spec.id!r}, wanted "
                f"{self._actions_shape}; or the group is closed or not yet reset"
            )
        if self._log.full:
            self._log.make_room(max(self._kept_actions(), self._noted))
        self._log.append(actions)
        self._progress.steps += 1
        self._started = False  # until the step is whole
        try:
            stepped = self._source.step(actions)
        except SystemExit as end:
            problem = EnvContractError(f"{self.spec.id!r} ({self.kind}): {exit_problem(end, 'step()')}")
            problem.add_note(self._note())
            raise problem from None
        except Exception as error:
            error.add_note(self._note())
            raise
        out = self._translate(stepped)
        self.observations, self._started = out.observations, True
        return out

    def _translate(self, stepped: Stepped) -> GroupStep:
        observations, rewards, terminations, truncations, after = stepped
        finals, rewards = self._fitting(observations, "step()"), np.array(rewards, np.float64)
        if not math.isfinite(rewards.dot(rewards)):
            self._checks.rewards(rewards)
        out = GroupStep(finals, rewards, self._nowhere, self._nowhere, finals, [])
        ended = np.logical_or(terminations, truncations)
        has_ended = b"\1" in ended.tobytes()  # takes a fifth of the time of `any` on arrays as small as these
        if has_ended:
            out.terminations, out.truncations = np.array(terminations, np.bool_), np.array(truncations, np.bool_)
        if self._over_rows:
            self._begin_after(out, ended, has_ended)
        self._returns += rewards
        if has_ended:
            self._end_episodes(ended, after, out)
        return out

    def _end_episodes(self, ended: np.ndarray, after: np.ndarray | None, out: GroupStep) -> None:
        rows = ended.nonzero()[0]
        each = rows.tolist()
        out.episodes = self._progress.all_ended(each, self._returns.take(rows).tolist())
        self._returns[rows] = 0.0
        if self.resets_on_next_step:
            self._over, self._over_rows = ended, each
            return
        seeds = self._progress.begin_episodes(each)
        out.observations = out.final_observations.copy()
        out.observations[rows] = self._source.reset(rows, seeds) if after is None else after[rows]
        self._fitting(out.observations, "reset()")

    def _begin_after(self, out: GroupStep, ended: np.ndarray, has_ended: bool) -> None:
        """Begin episodes in rows that this step has only reset."""
        rows, over = self._over_rows, self._over
        # Seldom more than three, of which numpy would take longer.
        if any(map(out.rewards.item, rows)) or (has_ended and b"\1" in (ended & over).tobytes()):
            row = next(row for row in rows if ended[row] or out.rewards[row] != 0)
            raise EnvContractError(
                f"{self._progress.name(row)}: the step after the end returned a reward or another end, though the "
                "environment says that it resets on the next step"
            )
        self._progress.begin_episodes(rows)
        out.resets = over
        # Nothing goes on from the last observation into the next episode.
        out.truncations = out.truncations | over if has_ended else over
        self._over, self._over_rows = self._nowhere, []

    def _fitting(self, observations: Any, source: str) -> np.ndarray:
        """Observations as rows of the codec, checked; a new array."""
        # Some give a transposed one, and all else takes longer.
        rows = np.array(observations, self._codec.dtype, order="C")
        if rows.shape != self._rows_shape:
            raise EnvContractError(
                f"{self.spec.id!r} ({self.kind}): {source} returned observations of shape {rows.shape}, wanted "
                f"{self._rows_shape}"
            )
        if self._outside(rows) is not None:
            self._checks.observations(rows, source)
            self._outside = self._checks.outside  # bounds may not count any more
        return rows

    # State ----------------------------------------------------------------------------------------------------------

    def state(self) -> GroupState:
        """As `EnvGroup.state`."""
        if not self._started:
            raise InputError(f"this group of {self.spec.id!r} has no state before reset()")
        choice = self._choice
        own = choice.recovery == "own_state"
        return self._progress.state(
            choice.recovery,
            choice.replayable,
            observations=self.observations,
            returns=self._returns,
            actions=self._log.last(self._kept_actions()),
            payload=[(self._source.save(), self._over.copy())] if own else None,
        )

    def restore(self, state: GroupState) -> bool:
        """As `EnvGroup.restore`."""
        state.check_fits(self.spec.id, self.run_seed, self.first_index, self.size)
        self._started = False
        self._progress.put_back(state.steps, state.episodes, state.seeds, state.lengths)
        self._reset_at = -math.inf
        self._returns = np.array(state.returns)
        self._log.replace(state.actions)
        self.observations = np.array(state.observations)
        if state.recovery == "own_state":
            saved, over = state.payload[0]
            self._source.load(saved)
            self._over, self._over_rows = np.array(over), over.nonzero()[0].tolist()
        elif state.recovery == "replay":
            self._replay(state)
        else:
            last = self.first_index + self.size - 1
            warnings.warn(
                f"environment {self.spec.id!r} ({self.kind}), indices {self.first_index}…{last}: new episodes begin, "
                "since those in progress could not be put back; results may differ",
                RecoveryWarning,
                stacklevel=2,
            )
            self.reset()
            return False
        self._started = True
        return True

    def _replay(self, state: GroupState) -> None:
        """Repeat the episodes in progress, each begun so late that all arrive together."""
        seeds, lengths = state.seeds.tolist(), state.lengths
        longest = int(lengths.max())
        found = np.array(self._source.begin(0, seeds))
        for tick in range(longest + 1):
            begin = np.flatnonzero(lengths == longest - tick)
            if len(begin) and tick:
                found[begin] = self._source.reset(begin, [seeds[row] for row in begin])
            if tick < longest:
                found = np.array(self._source.step(state.actions[tick].astype(self._actions_dtype))[0])
        if found.astype(self._codec.dtype).tobytes() != state.observations.tobytes():
            raise ReplayMismatchError(
                f"environment {self.spec.id!r} ({self.kind}) could not be put back: its episodes in progress were "
                "replayed from their seeds and actions, and led to other observations"
            )

    @property
    def _noted(self) -> int:
        """Actions that are kept for a script."""
        since = self._progress.steps - self._reset_at
        return int(since) if since <= KEPT_FOR_MESSAGES else 0

    def _note(self) -> str:
        known = self._progress.steps - self._reset_at <= KEPT_FOR_MESSAGES
        actions = self._log.last(self._noted) if known else None
        return note_on_group(
            self.spec,
            self.kind,
            size=self.size,
            first_index=self.first_index,
            run_seed=self.run_seed,
            actions=None if actions is None else actions.astype(self._actions_dtype),
        )

    def _kept_actions(self) -> int:
        return self._progress.steps - min(self._progress.begins) if self._choice.recovery == "replay" else 0
