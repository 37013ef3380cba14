"""What the policies of several agents are made from: a model for each policy, and which agents it acts for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from gymnasium import Space
from gymnasium.spaces import Dict

from ...envs import JointSpace, Seats, derive_seed, own_space, space_from_json, space_to_json
from ...runtime import InputError
from .layout import ParameterLayout
from .spec import ModelSpec

KIND = "joint"
"""Entry "model" of policy.json."""
_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class JointSpec:
    """Can be pickled, and written as JSON beside the weights, which are those of all policies in a row.

    Raises InputError for a policy's name that cannot be one.
    """

    kind: ClassVar[str] = KIND
    policies: Mapping[str, ModelSpec]
    """By name; in their order their weights lie."""
    mapping: Mapping[str, str]
    """Name of the policy that acts for each agent; in the order of the agents."""
    frozen: tuple[str, ...] = ()
    """Policies that do not learn."""
    turns: bool = False
    """Whether agents act one after the other."""
    state_space: Space | None = None
    """Of the environment's state, where critics see it."""

    def __post_init__(self) -> None:
        for name in self.policies:
            if not _NAME.fullmatch(name):
                raise InputError(f"a policy is called {name!r}: its name is made of letters, digits, _ and -")

    @cached_property
    def observation_space(self) -> JointSpace:
        """Of the joint environment, without its state, which acting needs not."""
        return self._joint_space(None)

    def _joint_space(self, state: Space | None) -> JointSpace:
        seen = {agent: own_space(self.policies[name].observation_space) for agent, name in self.mapping.items()}
        return JointSpace(seen, turns=self.turns, state=state)

    @cached_property
    def action_space(self) -> Dict:
        """Of the joint environment."""
        return Dict([(agent, self.policies[name].action_space) for agent, name in self.mapping.items()])

    @cached_property
    def agents(self) -> Mapping[str, tuple[str, ...]]:
        """The agents of each policy."""
        return {
            name: tuple(agent for agent, policy in self.mapping.items() if policy == name) for name in self.policies
        }

    def seats(self, size: int, *, critic: bool) -> dict[str, Seats]:
        """Where each policy's agents sit in `size` environments; `critic`: whether critics see what they may."""
        space = self._joint_space(self.state_space) if critic else self.observation_space
        return {
            name: Seats(space, agents, size, seen=self.policies[name].observation_space, critic=critic)
            for name, agents in self.agents.items()
        }

    @property
    def has_memory(self) -> bool:
        """Whether a policy remembers earlier steps."""
        return any(spec.has_memory for spec in self.policies.values())

    def check_own_modules(self, folder: Path | None = None) -> None:
        """As of `ModelSpec`, of all policies."""
        for spec in self.policies.values():
            spec.check_own_modules(folder)

    def to_json(self) -> dict[str, Any]:
        """Entries of policy.json."""
        return {
            "model": KIND,
            "mapping": [list(item) for item in self.mapping.items()],
            "frozen": list(self.frozen),
            "turns": self.turns,
            "state_space": None if self.state_space is None else space_to_json(self.state_space),
            "policies": {name: spec.to_json() for name, spec in self.policies.items()},
            "observation_space": space_to_json(self.observation_space),
            "action_space": space_to_json(self.action_space),
        }

    @staticmethod
    def from_json(entries: Mapping[str, Any]) -> JointSpec:
        """The spec that `to_json` described. Raises KeyError if an entry is missing, InputError if one is wrong."""
        policies = {name: ModelSpec.from_json(described) for name, described in entries["policies"].items()}
        mapping = {str(agent): str(name) for agent, name in entries["mapping"]}
        unknown = sorted(set(mapping.values()) - set(policies))
        if unknown:
            raise InputError(f"the mapping of agents names policies that are not there: {', '.join(unknown)}")
        state = entries["state_space"]
        return JointSpec(
            policies,
            mapping,
            tuple(entries["frozen"]),
            bool(entries["turns"]),
            None if state is None else space_from_json(state),
        )


AnySpec = ModelSpec | JointSpec
"""Of one agent's policy, or of several agents' policies."""


def learning_specs(spec: AnySpec) -> list[ModelSpec]:
    """Of each policy that learns."""
    if not isinstance(spec, JointSpec):
        return [spec]
    return [own for name, own in spec.policies.items() if name not in spec.frozen]


def policy_seed(seed: int, name: str) -> int:
    """The seed of a policy of a run with `seed`."""
    return derive_seed(seed, f"policy {name}")


def spec_from_json(entries: Mapping[str, Any]) -> AnySpec:
    """The spec that policy.json describes; raises as `ModelSpec.from_json` does."""
    return JointSpec.from_json(entries) if entries["model"] == KIND else ModelSpec.from_json(entries)


def joint_layout(layouts: Mapping[str, ParameterLayout]) -> ParameterLayout:
    """The layout of several policies' weights in a row; each parameter's name begins with its policy's."""
    shapes = {
        f"{name}.{parameter}": shape for name, layout in layouts.items() for parameter, shape in layout.shapes.items()
    }
    return ParameterLayout(shapes)
