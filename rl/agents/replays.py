"""The replay buffers of several policies, which the driver's log counts as one.

A piece of the log holds what each buffer took in between two snapshots. Its end is counted over all buffers together;
it is kept for as long as one of them holds a transition of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..data.batch import Batch
from ..learn.actor import LearnerActor


class JointReplays:
    """Of the learners that learn, by policy; where these have no replay buffers, there is nothing of them."""

    def __init__(self, parts: Mapping[str, LearnerActor]) -> None:
        self._parts = {name: part for name, part in parts.items() if part.replay is not None}
        self._ends: list[dict[str, int]] = []

    def _inserted(self) -> dict[str, int]:
        return {name: part.replay.inserted for name, part in self._parts.items()}

    def _outdated(self) -> int:
        """How many pieces, the oldest ones, no buffer holds a transition of any more."""
        now = self._inserted()
        last = {name: now[name] - part.replay.size for name, part in self._parts.items()}
        return sum(all(end[name] <= last[name] for name in last) for end in self._ends)

    def _size(self) -> int:
        """So many transitions, counted over all buffers, ago is the end of the last piece of which none holds any."""
        outdated = self._outdated()
        return sum(self._inserted().values()) - (sum(self._ends[outdated - 1].values()) if outdated else 0)

    def metrics(self) -> dict[str, float]:
        """What the driver's log goes by."""
        if not self._parts:
            return {}
        return {"replay/inserted": sum(self._inserted().values()), "replay/size": self._size()}

    def take_new(self) -> dict[str, Batch] | None:
        """What the buffers took in since the last call: another piece ends here."""
        if not self._parts:
            return None
        last = self._ends[-1] if self._ends else dict.fromkeys(self._parts, 0)
        now = self._inserted()
        self._ends = [*self._ends[max(0, self._outdated() - 1) :], now]
        return {name: part.replay.newest(now[name] - last[name]) for name, part in self._parts.items()}

    def since(self, inserted: int) -> dict[str, Batch] | None:
        """What they took in after a piece's end, which is counted over all."""
        if not self._parts:
            return None
        begin = next((end for end in self._ends if sum(end.values()) == inserted), dict.fromkeys(self._parts, 0))
        return {name: part.replay.newest(part.replay.inserted - begin[name]) for name, part in self._parts.items()}

    def state(self) -> dict[str, Any] | None:
        """All but the transitions."""
        if not self._parts:
            return None
        policies = {name: part.replay.state() for name, part in self._parts.items()}
        return {"policies": policies, "ends": list(self._ends)} | {
            "inserted": sum(self._inserted().values()),
            "size": self._size(),
        }

    def state_of(self, state: Mapping[str, Any], name: str) -> Any:
        """Of one policy's buffer, in the state of the whole learner; None without."""
        return None if state["replay"] is None else state["replay"]["policies"].get(name)

    def load(self, state: Mapping[str, Any] | None) -> None:
        """Know the pieces again, once the buffers are there; `state` is the whole learner's, None at the very
        beginning."""
        self._ends = [] if state is None or state["replay"] is None else list(state["replay"]["ends"])
        now = self._inserted()
        if any(now.values()) and now not in self._ends[-1:]:  # a checkpoint's last piece ends where it was written
            self._ends.append(now)
