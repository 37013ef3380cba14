"""Reward functions: what an answer is worth, judged here or by an actor of its own, in bounded time.

    Prompts.step ──▶ function                                          in this process
               └───▶ RewardActor ──prompts, answers──▶ Judge           in a process of its own

All rows of a turn say first what they are going to answer (`anticipate`), so that an actor judges them together.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

from ...runtime import (
    ActorHandle,
    GetTimeoutError,
    InputError,
    ShoalError,
    TaskError,
    as_int,
    as_number,
    get,
    kill,
    remote,
)

Reward = Callable[[str, str], float]
"""Of a prompt and an answer."""
Pair = tuple[str, str]
"""The same."""
_START_SECONDS = 120.0
"""That a reward's process has to start, and a reward to load what it needs."""

logger = logging.getLogger("shoal")


class RewardError(ShoalError):
    """A reward function raised, did not return in time, or ended its process; says for which answer."""


class Judge:
    """Actor class: the process in which a reward function runs."""

    def __init__(self, function: Callable[..., Any], batched: bool) -> None:
        self._function, self._batched = function, batched

    def ready(self) -> None:
        """Let the function load what it needs, if it has a `load`."""
        load = getattr(self._function, "load", None)
        if load is not None:
            load()

    def judge(self, prompts: list[str], answers: list[str]) -> list[float]:
        """What the answers are worth."""
        if self._batched:
            found = [float(value) for value in self._function(prompts, answers)]
            if len(found) != len(prompts):
                raise ValueError(f"it returned {len(found)} rewards for {len(prompts)} answers")
            return found
        return [float(self._function(*pair)) for pair in zip(prompts, answers, strict=True)]


class RewardActor:
    """A reward function in a process of its own, one for each process that asks; itself a reward function.

        envs.register("proofs", envs.Prompts, prompts=[…], reward=[(1.0, RewardActor(prove, seconds=5)), (0.1, short)])

    A call that has not returned after `seconds`, or whose process dies, ends that process, and is tried again in a new
    one. On the serial engine actors are no processes: there the time limit is that of the environment
    (`step_timeout`).

    Args:
        function: of a prompt and an answer; of a list of each, which returns as many rewards, if `batched` (default:
            what its attribute `batched` says, else False). A method `load`, if it has one, is called once in the
            process, which has two minutes for it.
        seconds: for an answer, or for a batch.
        retries: how often an answer is judged again whose process hung or died.
        retry_errors: whether one whose judgement raised is, too.

    Raises InputError for arguments that cannot work. A call raises RewardError, which names prompt and answer.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        seconds: float = 30.0,
        retries: int = 1,
        retry_errors: bool = False,
        batched: bool | None = None,
    ) -> None:
        if not callable(function):
            raise InputError(f"a reward is {function!r:.80}, but must be a function of prompt and answer")
        limit, tries = as_number(seconds), as_int(retries)
        if limit is None or limit <= 0:
            raise InputError(f"seconds is {seconds!r}, but must be a number above 0: how long an answer is judged")
        if tries is None or tries < 0:
            raise InputError(f"retries is {retries!r}, but must be a whole number of at least 0")
        self.function, self.seconds, self.retries, self.retry_errors = function, limit, tries, retry_errors
        self.batched = bool(getattr(function, "batched", False) if batched is None else batched)
        self._begin()

    def _begin(self) -> None:
        self._actor: ActorHandle | None = None
        self._expected: list[Pair] = []
        self._judged: dict[Pair, float | RewardError] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    def __deepcopy__(self, memo: dict[int, Any]) -> RewardActor:
        return self  # copies of an environment share the process

    @property
    def __name__(self) -> str:
        return reward_name(self.function)

    def anticipate(self, prompt: str, answer: str) -> None:
        """Say that this answer will be asked about, so that it is judged together with others."""
        self._expected.append((prompt, answer))

    def __call__(self, prompt: str, answer: str) -> float:
        """What the answer is worth."""
        pair = prompt, answer
        if pair not in self._judged:
            pairs = list(dict.fromkeys([*self._expected, pair]))
            self._expected, self._judged = [], {}
            self._judge(pairs)
        found = self._judged[pair] if pair in self._judged else self(prompt, answer)
        if isinstance(found, RewardError):
            raise found
        return found

    def close(self) -> None:
        """End the process; the next call begins another."""
        actor, self._actor = self._actor, None
        if actor is not None:
            with contextlib.suppress(ShoalError):  # of a runtime that was shut down
                kill(actor)

    def _judge(self, pairs: list[Pair]) -> None:
        """Note what pairs are worth, in order, up to the first whose judgement fails for good: of that, the error."""
        size, tries = len(pairs) if self.batched else 1, 0
        while pairs:
            found, failure = self._attempt([pairs[i : i + size] for i in range(0, len(pairs), size)])
            self._judged.update(zip(pairs, found, strict=False))
            pairs = pairs[len(found) :]
            if failure is None:
                return
            told, raised = failure
            tries = 1 if found else tries + 1
            last = tries > (self.retries if self.retry_errors or not raised else 0)
            if last and size > 1:  # whose fault it was shows when each is judged alone
                logger.warning("reward %s %s in a batch of %d; now one by one", self.__name__, told, len(pairs))
                size, tries = 1, 0
            elif last:
                times = f", {tries} times" if tries > 1 else ""
                asked = f"the answer {pairs[0][1]!r:.200} to {pairs[0][0]!r:.200}"
                error = RewardError(f"reward {self.__name__} {told}{times}, when it judged {asked}")
                error.__cause__ = raised
                self._judged[pairs[0]] = error
                return
            else:
                logger.warning("reward %s %s; tried again in a new process", self.__name__, told)

    def _attempt(self, parts: list[list[Pair]]) -> tuple[list[float], tuple[str, Exception | None] | None]:
        """What the first parts are worth, and if one failed, what it did and what it raised."""
        found: list[float] = []
        calls: list[Any] = []
        try:
            actor = self._started()
            calls = [actor.judge.remote(*map(list, zip(*part, strict=True))) for part in parts]
            while calls:
                found += get(calls[0], timeout=self.seconds)
                del calls[0]
        except Exception as error:  # the user's own may be any
            self.close()
            for call in calls:  # they fail, too, and nobody shall be told of that
                with contextlib.suppress(Exception):
                    get(call, timeout=1)
            return found, self._failure(error)
        return found, None

    def _failure(self, error: Exception) -> tuple[str, Exception | None]:
        if isinstance(error, TaskError) or isinstance(error.__cause__, TaskError):
            return f"raised {error!r:.300}", error
        if isinstance(error, GetTimeoutError):
            return f"had not returned after {self.seconds:g} s", None
        return f"ended its process ({error})", None

    def _started(self) -> ActorHandle:
        if self._actor is None:
            self._actor = remote(Judge).options(num_cpus=0).remote(self.function, self.batched)
            get(self._actor.ready.remote(), timeout=_START_SECONDS)
        return self._actor


def reward_name(function: Callable[..., Any]) -> str:
    """What a reward is called in metrics."""
    return str(getattr(function, "__name__", type(function).__name__))
