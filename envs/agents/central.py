"""What a value function sees that may know of all agents, beside what its own agent sees."""

from __future__ import annotations

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Dict

from ..spaces import MASK, LeafCodec, SpaceCodec, codec, part_of
from .joint_spaces import JointSpace

OWN, CRITIC = "observation", "critic"
"""Parts of such an observation: what the agent sees, which alone its policy may use, and what only the critic sees. A
mask in the former stands beside it, too."""


def central_space(space: JointSpace, agent: str) -> Dict:
    """Return the space of an agent's observations together with what its critic sees: of everybody's observations, or
    of the environment's state where that is told, numbers as a network takes them; and which agent it is."""
    own = space.agent_spaces[agent]
    shared = [space.state_space] if space.state_space is not None else list(space.agent_spaces.values())
    width = sum(codec(part).row_size for part in shared) + len(space.agent_spaces)
    parts: list[tuple[str, Space]] = [(OWN, own)]
    found = codec(own)
    if MASK in getattr(found, "parts", {}):
        parts.append((MASK, found.parts[MASK].space))  # type: ignore[attr-defined]
    return Dict([*parts, (CRITIC, Box(-np.inf, np.inf, (width,), np.float32))])


def is_central(space: Space) -> bool:
    """Return whether observations hold a part that only a critic sees."""
    return CRITIC in getattr(codec(space), "parts", {})


def own_space(space: Space) -> Space:
    """Return what the agent itself sees of observations, which may hold a critic's part."""
    return codec(space).parts[OWN].space if is_central(space) else space  # type: ignore[attr-defined]


def put_own(rows: np.ndarray, own: np.ndarray) -> None:
    """Put what agents see into rows that hold a critic's part, which becomes zeros."""
    rows[OWN] = own
    if MASK in (rows.dtype.names or ()):
        rows[MASK] = own[MASK]
    rows[CRITIC] = 0


def shared_view(space: JointSpace, records: np.ndarray) -> np.ndarray:
    """Return what all critics see of joint observations [size]: [size, width] float32, zeros of who is not there."""
    if space.state_space is not None:
        return as_numbers(codec(space.state_space), records["state"])
    views = []
    for index, (agent, own) in enumerate(space.agent_spaces.items()):
        seen = as_numbers(codec(own), records["agents"][agent])
        views.append(seen if space.turns else seen * records["acts"][:, index, np.newaxis])
    return np.concatenate(views, axis=1, dtype=np.float32)


def as_numbers(found: SpaceCodec, rows: np.ndarray) -> np.ndarray:
    """Return rows [B, …] of a space as a network takes them, [B, row_size] float32: choices as one-hots, bytes of
    images between 0 and 1."""
    parts = [_leaf_as_numbers(leaf, part_of(rows, where)) for where, leaf in found.leaves()]
    return np.concatenate(parts, axis=1, dtype=np.float32)


def _leaf_as_numbers(leaf: LeafCodec, values: np.ndarray) -> np.ndarray:
    if leaf.is_discrete:
        choices = (values.astype(np.int64) - np.asarray(leaf.start)).reshape(len(values), -1)
        return np.concatenate([np.eye(n, dtype=np.float32)[choices[:, i]] for i, n in enumerate(leaf.choices)], axis=1)
    flat = values.reshape(len(values), -1).astype(np.float32)
    return flat / 255 if leaf.is_image else flat
