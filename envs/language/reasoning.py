"""Tasks of the package reasoning-gym: generators of puzzles that judge answers themselves."""

from __future__ import annotations

import functools
import json
import string
from typing import Any, ClassVar

import gymnasium
from gymnasium.spaces import Text

from ...runtime import InputError, nearest
from ..packages import install_line

PREFIX = "reasoning_gym/"
"""Of ids: what follows is the generator's name."""
_LONGEST = 1 << 14
_SIGNS = "°±²³·×÷àäçèéêëïñöøüαβγδθλμπσφω–—‘’“”…←↑→↓∀∃∈∑−√∞∧∨∩∪≈≠≤≥─│┌┐└┘├┤┬┴┼▒█■□▲▼◆○●★♠♣♥♦✓✗"


class ReasoningGym(gymnasium.Env[str, str]):
    """One puzzle each episode; the reward is the generator's own score of the answer, from 0 to 1.

        shoal train grpo reasoning_gym/chain_sum --env-kwargs '{"max_terms": 2, "max_digits": 1}'

    Args:
        name: of the generator, such as "chain_sum"; `reasoning_gym.factory.DATASETS` has all.
        charset: further characters of questions, beside those of ASCII and frequent signs; others become "?".
        size: how many puzzles are trained on, and as many others evaluated on.
        evaluation: the others.
        config: the generator's own settings.

    Raises:
        InputError: reasoning-gym is not installed, has no such generator (the nearest is named), or the generator
            refuses its settings.
    """

    evaluation_kwargs: ClassVar[dict[str, Any]] = {"evaluation": True}

    def __init__(
        self, name: str, charset: str = "", size: int = 1_000_000, evaluation: bool = False, **config: Any
    ) -> None:
        seed = size if evaluation else 0  # puzzle i comes of seed + i
        self._puzzles = _puzzles(name, json.dumps({**config, "seed": seed, "size": size}))
        self._size = size
        self._known = frozenset(string.printable[:-2] + _SIGNS + charset)
        charset = "".join(sorted(self._known))
        self.observation_space = Text(_LONGEST, min_length=0, charset=charset)
        self.action_space = Text(_LONGEST, min_length=0, charset=charset)
        self._puzzle: dict[str, Any] = {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Return the question."""
        super().reset(seed=seed)
        self._puzzle = self._puzzles[int(self.np_random.integers(self._size))]
        self._question = "".join(c if c in self._known else "?" for c in self._puzzle["question"])[:_LONGEST]
        return self._question, {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Score the answer; the episode ends. Solved is what has the whole score."""
        score = float(self._puzzles.score_answer(action, self._puzzle))
        told = {"right": self._puzzle["answer"], "solved": score >= 1}
        return self._question, score, True, False, told


@functools.lru_cache(maxsize=8)
def _puzzles(name: str, config: str) -> Any:
    """The generator with these settings (JSON), which all copies of an environment share: a puzzle depends on its
    number alone."""
    try:
        import reasoning_gym  # noqa: F401 — which makes the generators known
        from reasoning_gym.factory import DATASETS, create_dataset
    except ImportError:
        raise InputError(f"reasoning-gym is not installed: {install_line('reasoning_gym')}") from None
    if name not in DATASETS:
        raise InputError(f"reasoning-gym has no generator {name!r}. {nearest(name, list(DATASETS))}")
    try:
        return create_dataset(name, **json.loads(config))
    except (TypeError, ValueError, AssertionError) as error:
        raise InputError(f"reasoning_gym/{name} does not take the settings {config}: {error}") from error
