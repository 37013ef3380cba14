"""BipedalWalker begins each episode in a new Box2D world, as gymnasium's LunarLander does.

Gymnasium's keeps one world for all its episodes, whose contacts remember earlier ones: after some 60 steps the same
seed and actions lead elsewhere, so no lost episode could be repeated.
"""

from typing import Any

import gymnasium

_ENTRY = "gymnasium.envs.box2d.bipedal_walker"


class FreshWorld(gymnasium.Wrapper):
    """Gives the environment a new world before each reset."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in a new world."""
        inner: Any = self.unwrapped
        inner._destroy()  # it goes with the old world; what is reset next would look for it in the new one
        inner.world = type(inner.world)()
        return self.env.reset(seed=seed, options=options)


def with_fresh_worlds(env: gymnasium.Env) -> gymnasium.Env:
    """Return the environment, wrapped if it is a BipedalWalker of gymnasium's."""
    return FreshWorld(env) if type(env.unwrapped).__module__ == _ENTRY else env
