"""What one learner of a group has for the others, until they have taken it."""

from __future__ import annotations

import threading
from typing import Any

Key = tuple[int, int, int]
"""Attempt, of all updates that the driver has asked for; exchange within it; round of the exchange."""
_KEPT = 2
"""Exchanges whose values are kept: who is in the next one has taken all of the one before the last."""


class Mailbox:
    """Values by keys that only grow. Threads take what is there, and wait for what is still to come."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._values: dict[Key, Any] = {}
        self._ended = -1

    def post(self, key: Key, value: Any) -> None:
        """Let others have a value; those of earlier exchanges but the last are dropped."""
        with self._changed:
            recent = sorted({(*kept[:2], 0) for kept in (*self._values, key)})[-_KEPT:]
            self._values = {kept: value for kept, value in self._values.items() if kept >= recent[0]} | {key: value}
            self._changed.notify_all()

    def end(self, attempt: int) -> None:
        """Post nothing more for this attempt, nor for those before it."""
        with self._changed:
            self._ended = max(self._ended, attempt)
            self._changed.notify_all()

    def take(self, key: Key) -> Any:
        """The value of a key, once it is there; None if it never will be, or is not kept any more."""
        with self._changed:
            self._changed.wait_for(
                lambda: key in self._values or key[0] <= self._ended or key < max(self._values, default=key)
            )
            return self._values.get(key)
