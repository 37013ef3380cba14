"""Settings of trainings with several agents; where there is but one, they stay at their defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ..runtime import InputError, as_int, as_number


@dataclass(frozen=True, kw_only=True)
class AgentSettings:
    """Which policies act for which agents, and which of them learn. Raises InputError on values that cannot work."""

    policies: str | Mapping[str, str] | Callable[[str], str] = field(default="shared", metadata={"metavar": "WHICH"})
    """Of several agents, whose actions come from which policy: shared (one policy for all), separate (each its own), a
    JSON object from agents, or patterns such as adversary_*, to names of policies, or package.module:function, which
    gives the name for an agent's. A policy's agents have the same spaces."""
    frozen_policies: str = field(default="", metadata={"metavar": "NAMES"})
    """Policies that act, but do not learn, separated by commas. Default: all learn."""
    initial_policies: Mapping[str, str] = field(
        default_factory=dict, metadata={"example": '{"opponent": "runs/earlier"}'}
    )
    """Runs, checkpoints or saved policies whose weights policies begin with, by the policy's name; of one that holds
    several, the one of that name, or FOLDER:NAME. Default: new weights."""

    league_freq: int | None = None
    """Environment steps between two snapshots of the weights, which join the initial ones in the league of opponents
    that a policy shared by all agents plays against (self-play). Default: no league."""
    league_size: int = 20
    """Newest snapshots that opponents are drawn from, all alike."""
    league_latest: float = 0.5
    """Share of the rollouts that are played by the latest weights alone, and learned from as every agent."""

    def read_agents(self) -> None:
        """Check the values, and put them in their common form."""
        given = self.frozen_policies
        names = given.split(",") if isinstance(given, str) else list(given) if isinstance(given, Iterable) else [given]
        names = [name.strip() if isinstance(name, str) else name for name in names]
        if not all(isinstance(name, str) for name in names):
            raise InputError(f"frozen_policies is {given!r}, but must be names of policies, separated by commas")
        object.__setattr__(self, "frozen_policies", ",".join(name for name in names if name))
        freq, size, latest = as_int(self.league_freq), as_int(self.league_size), as_number(self.league_latest)
        if self.league_freq is not None and (freq is None or freq < 1):
            raise InputError(f"league_freq is {self.league_freq!r}, but must be a whole number of at least 1 or none")
        if size is None or size < 1:
            raise InputError(f"league_size is {self.league_size!r}, but must be a whole number of at least 1")
        if latest is None or not 0 <= latest <= 1:
            raise InputError(
                f"league_latest is {self.league_latest!r}, but must be a number of at least 0 and at most 1"
            )
        for name, value in (("league_freq", freq), ("league_size", size), ("league_latest", latest)):
            object.__setattr__(self, name, value)
        if not isinstance(self.initial_policies, Mapping):
            raise InputError(
                f"initial_policies is {self.initial_policies!r}, but must be a dict from policies to folders, such as "
                "{'opponent': 'runs/earlier'}"
            )
        object.__setattr__(self, "initial_policies", {name: str(path) for name, path in self.initial_policies.items()})

    @property
    def frozen(self) -> tuple[str, ...]:
        """`frozen_policies` one by one."""
        return tuple(name for name in self.frozen_policies.split(",") if name)

    @property
    def says_of_agents(self) -> list[str]:
        """The settings that only make sense with several agents and are not at their defaults."""
        found = {
            "policies": self.policies != "shared",
            "frozen_policies": bool(self.frozen),
            "initial_policies": bool(self.initial_policies),
            "league_freq": self.league_freq is not None,
        }
        return [name for name, said in found.items() if said]
