"""A task made of prompts and a function that judges answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
from gymnasium.spaces import Text

from ...runtime import InputError, as_number
from .rewards import Reward, reward_name

_LONGEST = 1024
_ANY = "".join(map(chr, (*range(9, 11), *range(32, 127))))


class Prompts(gymnasium.Env[str, str]):
    """One of `prompts` each episode; `reward(prompt, answer)` is what its answer is worth.

        envs.register("haiku", envs.Prompts, prompts=["spring", "autumn"], reward=judge)

    Args:
        prompts: texts to choose from.
        reward: a function, or pairs of a weight and a function, whose weighted sum counts; each one's own value is in
            `info["rewards"]`, by its name, and its mean in a training's metrics. A function may be a `RewardActor`.
        charset: further characters that prompts and answers may have, beside those of ASCII and those of the prompts.
    """

    def __init__(
        self, prompts: Sequence[str], reward: Reward | Sequence[tuple[float, Reward]], charset: str = ""
    ) -> None:
        if isinstance(prompts, str) or not prompts or not all(isinstance(prompt, str) for prompt in prompts):
            raise InputError(f"prompts is {prompts!r:.80}, but must be a list of texts, at least one")
        self._prompts = tuple(prompts)
        self._rewards = _named([(1.0, reward)] if callable(reward) else reward)
        known = "".join(sorted(set(_ANY + charset).union(*self._prompts)))
        self.observation_space = Text(max(1, *map(len, self._prompts)), min_length=0, charset=known)
        self.action_space = Text(_LONGEST, min_length=0, charset=known)
        self._prompt = ""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Return a prompt."""
        super().reset(seed=seed)
        self._prompt = self._prompts[int(self.np_random.integers(len(self._prompts)))]
        return self._prompt, {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Judge the answer; the episode ends."""
        found = {name: float(reward(self._prompt, action)) for name, _, reward in self._rewards}
        total = sum(weight * found[name] for name, weight, _ in self._rewards)
        return self._prompt, total, True, False, {"rewards": found}

    def anticipate(self, action: str) -> None:
        """Say which answer comes next, to those rewards that judge several together."""
        for _, _, reward in self._rewards:
            if hasattr(reward, "anticipate"):
                reward.anticipate(self._prompt, action)

    def close(self) -> None:
        """End the processes of rewards."""
        for _, _, reward in self._rewards:
            if hasattr(reward, "close"):
                reward.close()


def _named(given: Sequence[tuple[float, Reward]]) -> list[tuple[str, float, Reward]]:
    """Name, weight and function of each reward; InputError for what is none."""
    found: dict[str, tuple[float, Reward]] = {}
    for each in given:
        pair = isinstance(each, tuple | list) and len(each) == 2
        weight = as_number(each[0]) if pair else None
        if weight is None or not callable(each[1]):
            raise InputError(f"reward holds {each!r:.80}, but must be a function, or pairs of a weight and a function")
        name = reward_name(each[1])
        found[name if name not in found else f"{name}_{len(found) + 1}"] = weight, each[1]
    return [(name, *each) for name, each in found.items()]
