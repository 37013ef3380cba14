"""Deaths on purpose: processes of a training that end by SIGKILL, to see that it changes nothing.

    --chaos kill_worker=0.05,kill_learner=0.02,seed=1

The driver draws who dies, from the seed of the chaos, the iteration and the index of the process, and where in the
call: at which step of a rollout, before or after an update. A call brings its `Death` along, and the process that runs
it dies of it, once: it leaves a note before, so whoever repeats the call lives. The draws have streams of their own:
what the training draws stays as it is.
"""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..envs import stream
from ..runtime import InputError, as_int, as_number, lookup, nearest, publish

NONE = "none"
_KINDS = ("worker", "learner")
_KNOWN = (*(f"kill_{kind}" for kind in _KINDS), "seed")


@dataclass(frozen=True)
class Death:
    """That a process is to die within a call."""

    point: int
    """Where in the call: counts steps of rollouts, or is 0 before and 1 after an update, 2 before the next one."""
    note: str
    """Published once it has come about."""

    def within(self, part: int, points: int) -> Death | None:
        """The same, as counted in one of the parts of the call, of so many points each; None if it is in another."""
        return Death(self.point % points, self.note) if self.point // points == part else None

    def at(self, point: int) -> None:
        """End this process by SIGKILL if it is there, and has not died of this before."""
        if point == self.point and lookup(self.note) is None:
            publish(self.note, True)
            os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def dying(death: Death | None) -> Iterator[None]:
    """Around an update: the process dies before it or after it, if at all."""
    if death is not None:
        death.at(0)
    yield
    if death is not None:
        death.at(1)


@dataclass(frozen=True)
class Chaos:
    """How often whom."""

    kill_worker: float = 0.0
    """Probability that a rollout worker dies in an iteration."""
    kill_learner: float = 0.0
    """Likewise of a learner."""
    seed: int = 0

    @staticmethod
    def read(text: str) -> Chaos:
        """What a setting says, such as "kill_worker=0.05,seed=1", or "none". Raises InputError on anything else."""
        if not isinstance(text, str):
            raise InputError(f"chaos is {text!r}, but must be a text such as 'kill_worker=0.05,seed=1', or 'none'")
        found: dict[str, float] = {}
        for part in text.split(",") if text != NONE else ():
            name, _, value = (word.strip() for word in part.partition("="))
            if name not in _KNOWN:
                raise InputError(f"chaos is {text!r}, but has no {name!r}. {nearest(name, _KNOWN)}")
            if name in found:
                raise InputError(f"chaos is {text!r}, which says {name} twice: leave one of them out")
            found[name] = _number(text, name, value)
        return Chaos(**found)  # type: ignore[arg-type]

    def __str__(self) -> str:
        """The setting."""
        rates = {f"kill_{kind}": self.rate(kind) for kind in _KINDS if self.rate(kind)}
        return ",".join(f"{name}={value:g}" for name, value in {**rates, "seed": self.seed}.items()) if rates else NONE

    def rate(self, kind: str) -> float:
        """The probability of a "worker" or "learner"."""
        rate: float = getattr(self, f"kill_{kind}")
        return rate

    def point(self, kind: str, iteration: int, index: int, points: int) -> int | None:
        """Where one dies in an iteration, of so many points; None: it lives."""
        if not (rate := self.rate(kind)):
            return None
        drawn = stream(self.seed, f"chaos {kind}", iteration, index)
        dies = drawn.random() < rate
        return int(drawn.integers(points)) if dies else None


def check_chaos(text: str, engine: str | None) -> None:
    """Raise InputError if there is chaos on an engine where all is one process."""
    if text != NONE and engine == "serial":
        raise InputError(
            f"chaos is {text!r}, but on engine 'serial' all is one process, and killing it would end the program: "
            "choose engine 'native'"
        )


def _number(text: str, name: str, value: str) -> float:
    try:
        number = as_int(int(value)) if name == "seed" else as_number(float(value))
    except ValueError:
        number = None
    if number is None or number < 0 or (name != "seed" and not number <= 1):
        wanted = "a whole number of at least 0" if name == "seed" else "a probability from 0 to 1"
        raise InputError(f"chaos is {text!r}, but {name} must be {wanted}, not {value!r}")
    return number


@dataclass
class Deaths:
    """The deaths of one training, as its driver plans and counts them."""

    chaos: Chaos = Chaos()
    _name: str = field(default_factory=lambda: f"chaos/{uuid.uuid4().hex}")  # no number of the training comes from it
    _planned: dict[str, list[Death]] = field(default_factory=lambda: {kind: [] for kind in _KINDS})

    def of_worker(self, iteration: int, worker: int, *, call: int, calls: int, steps: int) -> Death | None:
        """That of a rollout worker in one of the `calls` that it has in an iteration, of so many steps each."""
        point = self.chaos.point("worker", iteration, worker, calls * steps)
        if point is None or point // steps != call:
            return None
        return self._plan("worker", point % steps, iteration, worker)

    def of_learner(
        self, iteration: int, learner: int = 0, *, call: int = 0, calls: int = 1, updates: int = 1
    ) -> dict[str, Death]:
        """The argument `death` of one of the `calls` that a learner has in an iteration, of so many updates each, if it
        is to die in it."""
        point = self.chaos.point("learner", iteration, learner, 2 * updates * calls)
        if point is None or point // (2 * updates) != call:
            return {}
        return {"death": self._plan("learner", point % (2 * updates), iteration, learner)}

    def _plan(self, kind: str, point: int, *place: int) -> Death:
        death = Death(point, "/".join([self._name, kind, *map(str, place)]))
        if death not in self._planned[kind]:
            self._planned[kind].append(death)
        return death

    def metrics(self) -> dict[str, float]:
        """How many have died since the last call, by kind; empty without chaos."""
        counts: dict[str, float] = {}
        for kind, planned in self._planned.items():
            if self.chaos.rate(kind):
                left = [death for death in planned if lookup(death.note) is None]
                counts[f"chaos/{kind}_deaths"] = len(planned) - len(left)
                self._planned[kind] = left
        return counts
