"""How often what is in a replay buffer is drawn: samples for each insert, within bounds that cannot lock up.

With σ samples for each insert, d = σ · inserted − sampled is kept within ±tolerance: inserting waits where d would get
above, sampling where it would get below. Both wait for ever if an insert of m and a draw of s leave no room for either,
that is unless

    2 · tolerance ≥ σ · m + s

since d would have to be above tolerance − σ · m and below s − tolerance. Such settings are refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...runtime import InputError

SAMPLED = "replay/sampled"
"""Metric of an update: transitions that it drew, which is what the limit counts."""
_ROUNDING = 1e-6
"""Samples by which products may be off: at the least tolerance both could wait for ever for that."""


@dataclass(frozen=True)
class RateLimit:
    """Keeps samples and inserts in proportion. Raises InputError on settings with which both could wait for ever."""

    samples_per_insert: float
    """σ."""
    tolerance: float
    """Samples by which they may be out of proportion."""
    insert: int
    """Inserted at once (m)."""
    sample: int
    """Drawn at once (s)."""

    def __post_init__(self) -> None:
        least = (self.samples_per_insert * self.insert + self.sample) / 2
        if self.tolerance < least:
            raise InputError(
                f"samples_tolerance is {self.tolerance:g}, with which inserting and drawing could wait for each other "
                f"for ever: {self.insert} are inserted at once, {self.sample} drawn at once, and "
                f"({self.samples_per_insert:g} · {self.insert} + {self.sample}) / 2 = {least:g} is the least"
            )

    def may_insert(self, inserted: int, sampled: int) -> bool:
        """Whether m more may be inserted."""
        return self.samples_per_insert * (inserted + self.insert) - sampled <= self.tolerance + _ROUNDING

    def may_sample(self, inserted: int, sampled: int) -> bool:
        """Whether s more may be drawn."""
        return self.samples_per_insert * inserted - (sampled + self.sample) >= -self.tolerance - _ROUNDING
