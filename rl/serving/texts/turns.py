"""What waits to be answered, and whose turn it is.

Requests take turns, an answer each: who asks for a hundred answers has others wait for one of them, not for all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Turns(Generic[Answer]):
    """A queue of answers that requests want; each request's own keep their order."""

    def __init__(self) -> None:
        self._requests: deque[deque[Answer]] = deque()

    def __len__(self) -> int:
        """How many answers wait."""
        return sum(map(len, self._requests))

    def add(self, answers: Iterable[Answer]) -> None:
        """Let the answers of a request wait, behind those of others."""
        self._requests.append(deque(answers))

    def add_first(self, answers: Iterable[Answer]) -> None:
        """Let these be taken next, in their order: they had their turn."""
        self._requests.extendleft(deque([answer]) for answer in reversed(list(answers)))

    def take(self) -> Answer:
        """Take the next answer; IndexError if there is none."""
        request = self._requests.popleft()
        answer = request.popleft()
        if request:
            self._requests.append(request)
        return answer

    def keep(self, wanted: Callable[[Answer], bool]) -> None:
        """Forget all that are not wanted any more."""
        kept = (deque(filter(wanted, request)) for request in self._requests)
        self._requests = deque(request for request in kept if request)

    def take_all(self) -> list[Answer]:
        """Take what there is."""
        return [self.take() for _ in range(len(self))]
