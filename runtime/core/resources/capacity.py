"""What is free on a node, or in a bundle that was reserved there: amounts by name, GPUs one by one. No I/O."""

from __future__ import annotations

from collections.abc import Mapping

from .amounts import UNIT, Demand

#: Units of particular GPUs, by index: a share of one, or whole ones.
Shares = dict[int, int]


class Capacity:
    """Resources to take from and to put back.

    Args:
        total: all of them, in units.
        gpus: which GPUs these are; default: all of a node, 0, 1, 2 …

    Attributes:
        free: what is left; below zero while a task that waited and goes on has overdrawn it.
        gpus: what is left of each GPU.
    """

    def __init__(self, total: Mapping[str, int], gpus: Shares | None = None) -> None:
        self.total: Demand = dict(total)
        self.free: Demand = dict(total)
        self.gpus: Shares = dict.fromkeys(range(total.get("GPU", 0) // UNIT), UNIT) if gpus is None else dict(gpus)

    def copy(self) -> Capacity:
        """Return one to try things on."""
        twin = Capacity(self.total, self.gpus)
        twin.free = dict(self.free)
        return twin

    def take(self, demand: Mapping[str, int]) -> Shares | None:
        """Take a demand; return its GPUs. None, and nothing is taken, if it doesn't fit."""
        free = self.free
        for name, units in demand.items():
            if units > free.get(name, 0):
                return None
        shares = _choose(self.gpus, demand["GPU"]) if "GPU" in demand else {}
        if shares is None:
            return None
        for name, units in demand.items():
            free[name] -= units
        for index, units in shares.items():
            self.gpus[index] -= units
        return shares

    def take_all(self, demands: Mapping[int, Mapping[str, int]]) -> dict[int, Shares] | None:
        """Take several demands; None, and nothing is taken, if they don't fit together."""
        trial = self.copy()
        taken: dict[int, Shares] = {}
        # Shares of GPUs fit best when the largest are placed first.
        for index in sorted(demands, key=lambda index: -demands[index].get("GPU", 0)):
            shares = trial.take(demands[index])
            if shares is None:
                return None
            taken[index] = shares
        self.free, self.gpus = trial.free, trial.gpus
        return taken

    def put_back(self, demand: Mapping[str, int], shares: Shares) -> None:
        """Put back what was taken."""
        for name, units in demand.items():
            self.free[name] = self.free.get(name, 0) + units
        for index, units in shares.items():
            self.gpus[index] = self.gpus.get(index, 0) + units


def _choose(gpus: Shares, units: int) -> Shares | None:
    """Choose GPUs: a share of the fullest one that has room, so that whole ones stay free; or whole ones."""
    if units < UNIT:
        index = min((index for index in gpus if gpus[index] >= units), key=lambda index: gpus[index], default=None)
        return None if index is None else {index: units}
    whole = [index for index in sorted(gpus) if gpus[index] == UNIT][: units // UNIT]
    return dict.fromkeys(whole, UNIT) if len(whole) == units // UNIT else None
