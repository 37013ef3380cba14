"""Tasks whose best return is known: 1. A model that starts from random weights learns most of them in minutes."""

from __future__ import annotations

import string
import zlib
from abc import abstractmethod
from typing import Any, ClassVar

import gymnasium
from gymnasium.spaces import Text

from ...runtime import InputError, as_int

_EXACT = 0.5
_MOST_DIGITS = 18
"""Of a number that numpy draws as one of 64 bits."""


def _count(name: str, value: Any, most: int, least: int = 1) -> int:
    count = as_int(value)
    if count is None or not least <= count <= most:
        raise InputError(f"{name} is {value!r}, but must be a whole number of at least {least} and at most {most}")
    return count


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{name} is {value!r}, but must be true or false")
    return value


class TextTask(gymnasium.Env[str, str]):
    """A task of one turn: one prompt, one answer, one reward.

    Args:
        length: size of the task; what it is, the task says.
        alphabet: how many letters there are, from a on.
        sparse: whether only a right answer is rewarded, by 1; else half of the reward is the share of characters that
            are right, each at its place, in the longer of what is right and what was said.
    """

    def __init__(self, length: int = 4, alphabet: int = 8, sparse: bool = False) -> None:
        self.length = _count("length", length, 256)
        self.letters = string.ascii_lowercase[: _count("alphabet", alphabet, 26)]
        self.sparse = _flag("sparse", sparse)
        self.observation_space = self.action_space = Text(self.length, charset=self.letters)
        self._prompt = ""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Return the prompt."""
        super().reset(seed=seed)
        self._prompt = self.prompt()
        return self._prompt, {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Judge the answer; the episode ends."""
        right = self.answer(self._prompt)
        return self._prompt, self.reward(right, action), True, False, {"right": right, "solved": action == right}

    def prompt(self) -> str:
        """Return a prompt, drawn from `np_random`: `length` letters, unless the task says otherwise."""
        return "".join(self.letters[i] for i in self.np_random.integers(len(self.letters), size=self.length))

    @abstractmethod
    def answer(self, prompt: str) -> str:
        """Return the right answer."""

    def reward(self, right: str, answer: str) -> float:
        """Return what an answer is worth, from 0 to 1."""
        exact = float(answer == right)
        if self.sparse:
            return exact
        share = sum(one == other for one, other in zip(right, answer, strict=False)) / max(len(right), len(answer))
        return (1 - _EXACT) * share + _EXACT * exact


class Copy(TextTask):
    """Say the `length` letters of the prompt again."""

    def answer(self, prompt: str) -> str:
        """Return the prompt."""
        return prompt


class Reverse(TextTask):
    """Say the `length` letters of the prompt backwards."""

    def answer(self, prompt: str) -> str:
        """Return them."""
        return prompt[::-1]


class Sort(TextTask):
    """Say the `length` letters of the prompt in the order of the alphabet."""

    def answer(self, prompt: str) -> str:
        """Return them."""
        return "".join(sorted(prompt))


class Count(TextTask):
    """Say the letter of the prompt `length` times."""

    def prompt(self) -> str:
        """Return one letter."""
        return self.letters[int(self.np_random.integers(len(self.letters)))]

    def answer(self, prompt: str) -> str:
        """Return them."""
        return prompt * self.length


class Sums(TextTask):
    """Add two numbers of `length` digits at most: "17+5=" wants "22". Only the right answer is rewarded.

    About one in `held_out` of all pairs of numbers, in either order, is kept for `evaluation`: no training sees it. (2
    to 20, as fewer might leave no sum of one digit.) A checksum chooses them, so that each pair of digits is seen in
    other sums: to keep whole residues back, such as those a + b with a + 3 b a multiple of 5, would keep a fifth of all
    pairs of last digits from being learned.
    """

    evaluation_kwargs: ClassVar[dict[str, Any]] = {"evaluation": True}

    def __init__(self, length: int = 1, sparse: bool = True, held_out: int = 5, evaluation: bool = False) -> None:
        super().__init__(_count("length", length, _MOST_DIGITS), 1, sparse)
        self._held_out, self._evaluation = _count("held_out", held_out, 20, least=2), _flag("evaluation", evaluation)
        self.observation_space = Text(2 * length + 2, charset=string.digits + "+=")
        self.action_space = Text(length + 1, charset=string.digits)

    def prompt(self) -> str:
        """Return two numbers."""
        while True:
            first, second = self.numbers()
            pair = f"{min(first, second)}+{max(first, second)}"
            if (zlib.crc32(pair.encode()) % self._held_out == 0) == self._evaluation:
                return f"{first}+{second}="

    def numbers(self) -> tuple[int, int]:
        """Draw the two numbers of a sum, whether or not they are kept for evaluation."""
        first, second = self.np_random.integers(10**self.length, size=2)
        return int(first), int(second)

    def answer(self, prompt: str) -> str:
        """Return their sum."""
        first, second = prompt.removesuffix("=").split("+")
        return str(int(first) + int(second))


class Recall(gymnasium.Env[str, str]):
    """A task of several turns: each shows a letter, and wants that of the turn before (the first one, its own).

    A model that sees its current turn alone earns 1 / turns and what luck adds; the best return is 1.

    Args:
        turns: of an episode.
        alphabet: how many letters there are, from a on.
    """

    def __init__(self, turns: int = 3, alphabet: int = 4) -> None:
        self.turns = _count("turns", turns, 64)
        self.letters = string.ascii_lowercase[: _count("alphabet", alphabet, 26)]
        self.observation_space = self.action_space = Text(1, charset=self.letters)
        self._shown: list[str] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Show the first letter."""
        super().reset(seed=seed)
        self._shown = [self._letter()]
        return self._shown[-1], {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Judge the answer, and show the next letter."""
        wanted = self._shown[max(0, len(self._shown) - 2)]
        over = len(self._shown) == self.turns
        reward = float(action == wanted) / self.turns
        self._shown.append(self._letter())
        return self._shown[-1], reward, over, False, {"right": wanted}

    def _letter(self) -> str:
        return self.letters[int(self.np_random.integers(len(self.letters)))]
