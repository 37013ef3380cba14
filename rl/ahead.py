"""What a driver asks for before it knows that it is wanted: the iteration after the one that is under way.

Its arguments are references to what the one under way will return, and its clock is known; so nothing has to be waited
for, and no bit depends on it. Where it was in vain (a callback ends the training, something raises) it is forgotten,
and who has done it is put back to where the next call begins, as after a loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

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


Asked = TypeVar("Asked")


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


class Ahead(Generic[Asked]):
    """What was asked for ahead: one iteration at most, kept until it is wanted or was in vain."""

    def __init__(self) -> None:
        self._held: tuple[tuple[Any, ...], Asked, Sequence[ObjectRef], Sequence[ObjectRef]] | None = None
        self._in_vain: list[ObjectRef] = []  # held, since a failure that nobody reads is told of

    def hold(
        self, wanted: tuple[Any, ...], asked: Asked, calls: Sequence[ObjectRef], others: Sequence[ObjectRef]
    ) -> None:
        """Keep what was `asked` for: it is `wanted` where the same is; a reference of each of its calls, and the
        `others` of these."""
        self._held = wanted, asked, calls, others

    def take(self, wanted: tuple[Any, ...]) -> Asked | None:
        """What was asked for, if it is this; else that is forgotten."""
        held = self._held
        if held is None or held[0] != wanted:
            self.forget()
            return None
        self._held = None
        return held[1]

    def forget(self) -> None:
        """Nobody waits for it; calls that have not begun are dropped."""
        held, self._held = self._held, None
        if held is not None:
            for ref in held[2]:
                runtime.cancel(ref)
            self._in_vain += [*held[2], *held[3]]

    def give_up(self, seconds: float) -> None:
        """Read what was in vain, as `run.give_up` does."""
        refs, self._in_vain = self._in_vain, []
        give_up(refs, seconds)
