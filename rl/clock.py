"""How far a training is: what schedules of step sizes and of exploration depend on."""

from __future__ import annotations

from typing import NamedTuple


class Clock(NamedTuple):
    """Environment steps done, over all environments and resumed parts, and those at which the training ends."""

    timesteps: int
    total_timesteps: int

    @property
    def remaining(self) -> float:
        """Part of the training that is left: from 1 at the start to 0."""
        return max(0.0, 1 - self.timesteps / self.total_timesteps)

    def after(self, timesteps: int) -> Clock:
        """The clock so many environment steps later."""
        return Clock(self.timesteps + timesteps, self.total_timesteps)

    def passes(self, interval: int, timesteps: int) -> bool:
        """Whether a multiple of `interval` steps is reached within the next `timesteps`."""
        return self.timesteps // interval != (self.timesteps + timesteps) // interval
