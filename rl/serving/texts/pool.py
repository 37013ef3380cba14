"""Who answers: a queue of answers that are wanted, and a thread for each replica that lets it take step after step.

A call is a step: it brings what begins and what nobody waits for any more, and takes home a token of each answer. So a
replica has no more answers than places, the others wait here, where any replica may take them; and what is dropped is
not computed any more after the step that is on its way.

An answer is a function of weights and of what is asked, so one whose replica is lost begins anew on another, with what
was told already left out; if that does not come again to the token, its listener is told an error, as when the weights
are others by now.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ....runtime import ActorHandle, ObjectRef, ShoalError, exceptions, is_initialized, remote
from ...language.asked import Asked, Said
from ..queueing import MOST_ATTEMPTS, ServerBusyError, ServerClosedError
from ..replicas import HEARTBEAT_SECONDS, Replicas
from .replica import TextReplica
from .turns import Turns


class AnswerChangedError(ShoalError):
    """An answer that was told in part could not be taken up where its replica was lost."""


@dataclass(frozen=True)
class Weights:
    """What tells weights from others."""

    version: int
    sha256: str

    @property
    def fingerprint(self) -> str:
        """Both, short enough for a person."""
        return f"v{self.version}-{self.sha256[:12]}"


class Answer:
    """One answer on its way. `tell(said)` is called from threads of the pool with what comes, and with the exception
    that ends it instead; not any more once it was dropped."""

    def __init__(self, asked: Asked, tell: Callable[[Said | Exception], None]) -> None:
        self.asked, self.dropped, self.attempts = asked, False, 0
        self.weights: Weights | None = None
        """Those that say it; None: it waits."""
        self._tell = tell
        self._said: list[Said] = []
        self._heard = 0

    def begin(self, weights: Weights) -> bool:
        """Expect it from its first token on, said with these weights; False, and told, if it cannot be taken up."""
        if self._said and self.weights != weights:
            return self.fail("its weights are replaced by now")
        self.weights, self._heard = weights, 0
        return True

    def hear(self, said: Said) -> None:
        """Take in what a replica says, which may be known already."""
        known = self._said[self._heard : self._heard + 1]
        if known and known[0].token != said.token:
            self.fail("another one says something else")
        self._heard += 1
        if not known and not self.dropped:
            self._said.append(said)
            self._tell(said)

    def fail(self, reason: str | Exception) -> bool:
        """End with an error, as if it were dropped; returns False."""
        if isinstance(reason, str):
            reason = AnswerChangedError(f"a replica was lost in the middle of this answer, and {reason}. Ask again")
        if not self.dropped:
            self._tell(reason)
        self.dropped = True
        return False


@dataclass(frozen=True)
class _Step:
    """One that is on its way to a replica."""

    call: ObjectRef
    begun: dict[int, Answer] | None
    """Answers that begin with it; None: it only asks whether the replica is there."""


def _hand_out(heard: list[tuple[Answer, Said]]) -> None:
    """Tell what was said, once."""
    while heard:
        answer, said = heard.pop(0)
        answer.hear(said)


class TextPool:
    """Replica actors that say what is asked, until it is closed."""

    def __init__(
        self,
        files: Mapping[str, bytes],
        weights: Weights,
        *,
        replicas: int,
        places: int,
        most_waiting: int,
        answer_timeout: float | None,
        threads: int,
    ) -> None:
        """Start the replicas and wait until all are ready; raises whatever loading the model raises.

        Args:
            files: a saved policy, name to content.
            weights: those that it holds.
            replicas: number of actors.
            places: answers that each samples side by side.
            most_waiting: answers that wait for a place; beyond, ServerBusyError.
            answer_timeout: seconds that a replica may take for a step; None: no limit.
            threads: of torch in each.
        """
        self._files, self._settings = files, {"places": places, "threads": threads}
        self._places, self._most_waiting = places, most_waiting
        self._changed = threading.Condition()
        self._waiting: Turns[Answer] = Turns()
        self._closed: str | None = None
        self._keys = itertools.count()
        self._counts = {"requests": 0, "steps": 0, "tokens": 0}
        self._replicas = Replicas(self._start, replicas, answer_timeout)
        self.weights = weights
        self._loaded: list[Weights | None] = [weights] * replicas
        self._lives: list[str] = [described["life"] for described in self._replicas.described]
        self._running = [0] * replicas
        self._threads = [
            threading.Thread(target=self._work, args=(index,), name=f"shoal-serve-{index}", daemon=True)
            for index in range(replicas)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, answers: Sequence[Answer]) -> None:
        """Let these be answered, all or none; ServerBusyError if there are too many that wait, ServerClosedError."""
        with self._changed:
            if self._closed is not None:
                raise ServerClosedError(self._closed)
            free = sum(self._places - running for running in self._running)
            if len(self._waiting) + len(answers) > self._most_waiting + max(0, free):
                raise ServerBusyError(
                    f"the served model is busy: {len(self._waiting)} answers wait for a place, the most that may is "
                    f"{self._most_waiting}. Ask again later, or serve with more replicas"
                )
            self._waiting.add(answers)
            self._counts["requests"] += 1
            self._changed.notify_all()

    def drop(self, answers: Sequence[Answer]) -> None:
        """Say no more of these; harmless for those that have ended."""
        with self._changed:
            for answer in answers:
                answer.dropped = True
            self._waiting.keep(lambda answer: not answer.dropped)

    def update(self, files: Mapping[str, bytes], weights: Weights) -> None:
        """Let answers that begin from the next step on be said with other weights."""
        with self._changed:
            self._files, self.weights = files, weights
            self._changed.notify_all()

    def health(self) -> dict[str, Any]:
        """Return status, version, numbers of replicas, counts and the last failure, as `ServedTexts.health` says."""
        with self._changed:
            counts = {**self._counts, "waiting": len(self._waiting), "running": sum(self._running)}
            updating = any(loaded != self.weights for loaded in self._loaded)
            return {**self._replicas.health(), "version": self.weights.version, "updating": updating, **counts}

    def close(self) -> None:
        """End the replicas; what is not answered yet fails with ServerClosedError. Harmless a second time."""
        self._end("the served model is closed")
        for thread in self._threads:
            thread.join()
        self._replicas.close()

    def _start(self, index: int) -> ActorHandle:
        return remote(max_restarts=-1)(TextReplica).remote(self._files, **self._settings)

    def _end(self, reason: str) -> None:
        with self._changed:
            self._closed = self._closed or reason
            waiting = self._waiting.take_all()
            self._changed.notify_all()
        for answer in waiting:
            answer.fail(ServerClosedError(self._closed))

    # A replica's thread -----------------------------------------------------------------------------------------

    def _work(self, index: int) -> None:
        """Let a replica take step after step while something is asked, until the pool is closed. What a step said is
        handed out when the next one is on its way: the replica waits for nobody's ear."""
        own: dict[int, Answer] = {}
        heard: list[tuple[Answer, Said]] = []
        while self._wait(index, own):
            if not own and not is_initialized():
                continue  # a call would start a runtime anew
            try:
                step = self._begin_step(index, own, self._load(index))
                _hand_out(heard)
                heard = self._end_step(index, own, step)
                if not own or self._loaded[index] != self.weights:
                    _hand_out(heard)  # no step follows at once
            except Exception as error:  # whatever it is, it belongs to those who asked; this thread must live on
                _hand_out(heard)
                if not self._lost(index, own, error):
                    break
        _hand_out(heard)
        for answer in own.values():
            answer.fail(ServerClosedError(self._closed or "the served model has no replica left"))

    def _wait(self, index: int, own: Mapping[int, Answer]) -> bool:
        """Wait until there is something to do, or a heartbeat is due; False once the pool is closed."""
        with self._changed:
            if not own and not self._waiting and self._loaded[index] == self.weights and self._closed is None:
                self._changed.wait(HEARTBEAT_SECONDS)
            return self._closed is None

    def _load(self, index: int) -> Weights:
        """Give the replica the weights that are wanted, unless it has them; return them."""
        with self._changed:
            files, weights, known = self._files, self.weights, self._loaded[index]
        if known != weights:
            described = self._replicas.ask(self._replicas.actors[index].load.remote(files))
            with self._changed:
                self._loaded[index], self._lives[index] = weights, described["life"]
        return weights

    def _begin_step(self, index: int, own: dict[int, Answer], weights: Weights) -> _Step:
        """Send the replica a step, with what begins and what is dropped."""
        actor = self._replicas.actors[index]
        dropped = [key for key, answer in own.items() if answer.dropped]
        for key in dropped:
            del own[key]
        begun = {next(self._keys): answer for answer in self._take(index, len(own)) if answer.begin(weights)}
        own.update(begun)
        if not own and not dropped:
            return _Step(actor.describe.remote(), None)
        begin = [(key, answer.asked) for key, answer in begun.items()]
        return _Step(actor.advance.remote(self._lives[index], begin, dropped), begun)

    def _end_step(self, index: int, own: dict[int, Answer], step: _Step) -> list[tuple[Answer, Said]]:
        """Wait for a step, and return what it says to whom; who has ended is not among its own any more."""
        said = self._replicas.ask(step.call)
        if step.begun is None:
            return []
        if said is None:
            for answer in step.begun.values():
                answer.attempts -= 1  # not they have ended it: it was gone before they came
            raise exceptions.WorkerCrashedError("it was restarted between two steps")
        heard = [(own[key], each) for key, each in said if key in own]
        for key, each in said:
            if each.finish is not None:
                own.pop(key, None)
        with self._changed:
            self._running[index] = len(own)
            self._counts["steps"] += 1
            self._counts["tokens"] += len(said)
        return heard

    def _take(self, index: int, busy: int) -> list[Answer]:
        """Take what waits, as much as there are places, and no more than a replica's share of all."""
        with self._changed:
            others = sum(self._running) - self._running[index]
            share = -(-(len(self._waiting) + busy + others) // max(1, self._replicas.alive))
            taken = [self._waiting.take() for _ in range(min(len(self._waiting), min(self._places, share) - busy))]
            self._running[index] = busy + len(taken)
            return taken

    def _lost(self, index: int, own: dict[int, Answer], error: Exception) -> bool:
        """Give the answers of a replica that is lost to others, and have it replaced; return whether there is one."""
        for answer in own.values():
            answer.attempts += 1
        again = [answer for answer in own.values() if answer.attempts < MOST_ATTEMPTS]
        with self._changed:
            self._waiting.add_first(again)
            self._running[index] = 0
            self._changed.notify_all()
        for answer in own.values():
            if answer.attempts >= MOST_ATTEMPTS:
                answer.fail(error)
        own.clear()
        reason = self._replicas.replace(index, error, lambda: self._closed is None)
        with self._changed:
            self._loaded[index] = None  # an actor that was restarted has the weights with which it was made
        if reason is not None and not self._replicas.alive:
            self._end(reason)
        return reason is None
