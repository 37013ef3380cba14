"""A task made of prompts and a function that judges answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
from gymnasium.spaces import Text

from ...runtime import InputError

Reward = Callable[[str, str], float]
_LONGEST = 1024
_ANY = "".join(map(chr, (*range(9, 11), *range(32, 127))))


class Prompts(gymnasium.Env[str, str]):
    """One of `prompts` each episode; `reward(prompt, answer)` is what its answer is worth.

        envs.register("haiku", envs.Prompts, prompts=["spring", "autumn"], reward=judge)

    Args:
        prompts: texts to choose from.
        reward: a function, or pairs of a weight and a function, whose weighted sum counts; each one's own value is in
            `info["rewards"]`, by its name.
        charset: further characters that prompts and answers may have, beside those of ASCII and those of the prompts.
    """

    def __init__(
        self, prompts: Sequence[str], reward: Reward | Sequence[tuple[float, Reward]], charset: str = ""
    ) -> None:
        if isinstance(prompts, str) or not prompts or not all(isinstance(prompt, str) for prompt in prompts):
            raise InputError(f"prompts is {prompts!r:.80}, but must be a list of texts, at least one")
        self._prompts = tuple(prompts)
        self._rewards = [(1.0, reward)] if callable(reward) else [(float(weight), each) for weight, each in reward]
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
        found = [(weight, each, float(each(self._prompt, action))) for weight, each in self._rewards]
        named = {getattr(each, "__name__", type(each).__name__): value for _, each, value in found}
        return self._prompt, sum(weight * value for weight, _, value in found), True, False, {"rewards": named}
