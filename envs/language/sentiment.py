"""Say something good, or something bad, as a lexicon of sentiments judges it."""

from __future__ import annotations

import string
from typing import Any, ClassVar

import gymnasium
from gymnasium.spaces import Text

from ...runtime import InputError
from ..packages import install_line

_LONGEST = 1024


class Sentiment(gymnasium.Env[str, str]):
    """The prompt is a feeling, "good" or "bad", and the beginning of a sentence; the answer goes on.

    The reward is the compound score of VADER (Hutto and Gilbert, 2014; package vaderSentiment, extra `reasoning`) for
    the answer alone, from −1 to 1, its sign turned where something bad is wanted. It grows with the sum s of the words'
    valences as s / √(s² + 15), so it comes close to 1 and never reaches it: a model that is rewarded by nothing else
    learns to repeat the strongest word, as this score allows it.

    Args:
        length: characters that the judge reads, from the answer's first on.
        subjects: beginnings of sentences.

    Raises:
        InputError: a length that cannot be, or vaderSentiment is not installed.
    """

    subjects: ClassVar[tuple[str, ...]] = ("the film was", "the food is", "my day was", "this book is")

    def __init__(self, length: int = 32, subjects: tuple[str, ...] | None = None) -> None:
        if not 1 <= length <= _LONGEST:
            raise InputError(f"length is {length!r}, but must be a whole number of at least 1 and at most {_LONGEST}")
        self._length, self._subjects = length, tuple(subjects or self.subjects)
        known = "".join(sorted(set(string.ascii_lowercase + " .,!:'-").union(*self._subjects)))
        self.observation_space = Text(max(map(len, self._subjects)) + len("good: "), charset=known)
        self.action_space = Text(_LONGEST, min_length=0, charset=known)
        self._judge, self._sign = _analyzer(), 1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Return what to say."""
        super().reset(seed=seed)
        self._sign = 1 if self.np_random.integers(2) else -1
        subject = self._subjects[int(self.np_random.integers(len(self._subjects)))]
        self._prompt = f"{'good' if self._sign > 0 else 'bad'}: {subject}"
        return self._prompt, {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Judge the answer; the episode ends. Solved is what has a score of at least 0.5."""
        score = self._sign * float(self._judge.polarity_scores(action[: self._length])["compound"])
        return self._prompt, score, True, False, {"solved": score >= 0.5}


def _analyzer() -> Any:
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError:
        raise InputError(f"the lexicon of sentiments is not installed: {install_line('vaderSentiment')}") from None
    return SentimentIntensityAnalyzer()
