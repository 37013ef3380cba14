"""What a driver asks for before it knows that it is wanted: the iteration after the one that is under way.

Its arguments are references to what the one under way will return, and its clock is known; so nothing has to be waited
for, and no bit depends on it. Where it was in vain (a callback ends the training, something raises) it is forgotten,
and who has done it is put back to where the next call begins, as after a loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import runtime
from ..envs import RecoveryChoice
from ..runtime import ObjectRef
from .chaos import NONE
from .run import give_up
from .settings import RunSettings
from .training_state import TrainingState

_SHORT_SECONDS = 0.2
"""Of an iteration, up to which the next is asked for ahead: to longer ones a millisecond is nothing, and one that was
asked for in vain keeps actors from their end for as long."""


def looks_ahead(run: RunSettings, recovery: RecoveryChoice | None, seconds: float) -> bool:
    """Whether to ask for the next iteration ahead, where one takes so many seconds.

    Deaths on purpose are counted where they are planned, an opponent is chosen by what came before, an engine that
    makes calls at once gains nothing, and what cannot be put back exactly (`recovery`; None: what is outside) must not
    be led where nobody follows.
    """
    is_known = run.chaos == NONE and run.league_freq is None
    is_exact = recovery is not None and recovery.recovery != "restart"
    return seconds <= _SHORT_SECONDS and is_known and is_exact and runtime.engine_name() == "native"


def place_of(state: TrainingState) -> tuple[Any, ...]:
    """What an iteration begins with."""
    return state.iteration, state.timesteps, state.weights, state.groups


class InVain:
    """References to what nobody waits for: they are held, since a failure that nobody reads is told of."""

    def __init__(self) -> None:
        self._refs: list[ObjectRef] = []

    def add(self, refs: Sequence[ObjectRef], others: Sequence[ObjectRef] = ()) -> None:
        """Forget these, of one call each, and the `others` of these calls; those that have not begun are dropped."""
        for ref in refs:
            runtime.cancel(ref)
        self._refs += [*refs, *others]

    def give_up(self, seconds: float) -> None:
        """Read them, as `run.give_up` does."""
        refs, self._refs = self._refs, []
        give_up(refs, seconds)
