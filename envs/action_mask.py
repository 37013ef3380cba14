"""Masks of actions: what an environment says of the actions that it allows, as a part of the observation.

A Dict observation may have a part ``action_mask``: for each choice of a Discrete, of the choices of a MultiDiscrete
side by side, or for each coin of a MultiBinary that may be 1, whether it is allowed. An environment that tells the mask
in ``info["action_mask"]`` instead gets a wrapper that moves it there, so that it is stored, sent and served like all
else.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import Space
from gymnasium.spaces import Dict, MultiBinary

from ..runtime import InputError
from .errors import EnvContractError
from .spaces import MASK, LeafCodec, SpaceCodec, codec


def mask_of(observation_space: Space) -> SpaceCodec | None:
    """Return the codec of the mask in observations of a space; None if there is none."""
    found = codec(observation_space)
    return getattr(found, "parts", {}).get(MASK) if found.kind == "Dict" else None


def can_be_masked(action_space: Space) -> bool:
    """Return whether actions are such that some of them can be forbidden."""
    actions = codec(action_space)
    return actions.is_discrete or actions.kind == "MultiBinary"


def check_mask(observation_space: Space, action_space: Space) -> None:
    """Refuse a mask that does not fit the actions.

    Raises:
        InputError: actions are not discrete, or the mask has another size.
    """
    mask, actions = mask_of(observation_space), codec(action_space)
    if mask is None:
        return
    if not can_be_masked(action_space):
        raise InputError(
            f"the observations have an {MASK}, but actions are {actions.describe()}: a mask works with Discrete, "
            "MultiDiscrete and MultiBinary actions. Leave it out, or give it another name"
        )
    if mask.kind not in ("MultiBinary", "Box") or mask.dtype.kind not in "iub" or mask.shape != (actions.row_size,):
        raise InputError(
            f"{MASK} is {mask.describe()}, but must be MultiBinary({actions.row_size}), one entry for each action of "
            f"{actions.describe()}"
        )


def allowed_action(action_space: Space, action: Any, observation: Any) -> Any:
    """Return an action as it is, or, where the observation has a mask that forbids it, one that is allowed: each choice
    is counted among those that are. What draws actions without a policy asks this. Of several agents together, so for
    each."""
    if isinstance(action, dict) and isinstance(observation, dict) and "agents" in observation:
        seen = observation["agents"]
        return {name: allowed_action(action_space[name], own, seen[name]) for name, own in action.items()}  # type: ignore[index]
    if not (isinstance(observation, dict) and MASK in observation and can_be_masked(action_space)):
        return action
    actions, mask = codec(action_space), np.asarray(observation[MASK]).astype(np.bool_)
    if not actions.is_discrete:
        return action * mask.reshape(actions.shape)
    assert isinstance(actions, LeafCodec)
    starts, chosen = np.ravel(actions.start), np.array(action, actions.dtype)
    choices = chosen.reshape(-1)
    for index, choice in enumerate(_choices(actions)):
        allowed = np.flatnonzero(mask[choice])
        if len(allowed):  # else the mask is refused where it is checked
            start = starts[index % len(starts)]
            choices[index] = start + allowed[(choices[index] - start) % len(allowed)]
    return chosen if actions.shape else chosen[()]


def allows_nothing(action_space: Space, observation: Any) -> bool:
    """Return whether an observation has a mask that leaves nothing to choose."""
    if not (isinstance(observation, dict) and MASK in observation):
        return False
    mask = np.asarray(observation[MASK])
    return not all(mask[choice].any() for choice in _choices(codec(action_space)))


def _choices(actions: SpaceCodec) -> list[slice]:
    """Where each choice's entries lie in a mask; none of what is no choice."""
    sizes = actions.choices if isinstance(actions, LeafCodec) else ()
    ends = np.cumsum(sizes, dtype=np.int64).tolist()
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


class MaskGuard:
    """Whether some action is allowed, of each choice."""

    def __init__(self, observations: SpaceCodec, actions: SpaceCodec) -> None:
        """Guard rows of observations, for actions."""
        self._choices = [] if mask_of(observations.space) is None else _choices(actions)
        self.is_needed = bool(self._choices)

    def empty(self, observations: np.ndarray) -> int | None:
        """Return the first row in which nothing is allowed, or None."""
        for choice in self._choices:
            allowed = observations[MASK][:, choice].any(1)
            if not allowed.all():
                return int(np.argmin(allowed))
        return None

    def check(self, observations: np.ndarray) -> None:
        """Refuse rows that somebody passes, with a ValueError, if nothing is allowed in one of them."""
        row = self.empty(observations)
        if row is not None:
            raise ValueError(f"got observation[{MASK!r}] of row {row}, which allows no action")


class MaskFromInfo(gymnasium.Wrapper):
    """Moves ``info["action_mask"]`` into the observation, {"observation": …, "action_mask": …}."""

    def __init__(self, env: gymnasium.Env) -> None:
        """Wrap an environment with discrete actions."""
        super().__init__(env)
        size = codec(env.action_space).row_size
        parts: list[tuple[str, Space]] = [("observation", env.observation_space), (MASK, MultiBinary(size))]
        self.observation_space = Dict(parts)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._with_mask(observation, info, "reset()"), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._with_mask(observation, info, "step()"), reward, terminated, truncated, info

    def _with_mask(self, observation: Any, info: dict[str, Any], source: str) -> dict[str, Any]:
        mask = info.get(MASK) if isinstance(info, dict) else None
        if mask is None:
            returned = "an info without" if isinstance(info, dict) else f"info {info!r:.80}, no dict with"
            raise EnvContractError(
                f"{source} returned {returned} {MASK!r}, which the first reset() had: give it with each result"
            )
        return {"observation": observation, MASK: np.asarray(mask).astype(np.int8)}
