"""From tokens, as they come, to text that can be shown: never half of a character, never a part of a stop text."""

from __future__ import annotations

from collections.abc import Sequence

from .tokens import Tokens

_BROKEN = "�"


class TextStream:
    """The text of one answer, in pieces; together they are the answer, up to the first stop text."""

    def __init__(self, tokens: Tokens, stop: Sequence[str] = ()) -> None:
        self._tokens, self._stop = tokens, tuple(stop)
        self._ids: list[int] = []
        # Where the last piece began and ended: some tokenizers write a token otherwise at the beginning of a text.
        self._before, self._read = 0, 0
        self._held = ""

    def add(self, token: int) -> tuple[str, bool]:
        """Take a token in; return what can be told now, and whether a stop text has ended the answer."""
        self._ids.append(token)
        known, text = self._decoded()
        if text.endswith(_BROKEN):  # it may be the beginning of a character
            return "", False
        self._before, self._read = self._read, len(self._ids)
        return self._told(text[len(known) :])

    def end(self) -> str:
        """What was held back, if no stop text has ended the answer."""
        known, text = self._decoded()
        piece, _ = self._told(text[len(known) :])
        rest, self._held = self._held, ""
        return piece + rest

    def _decoded(self) -> tuple[str, str]:
        """The text that was read since `_before`, and that with what is new."""
        decode = self._tokens.decode
        if self._tokens.alike_anywhere:
            return "", decode(self._ids[self._read :])
        return decode(self._ids[self._before : self._read]), decode(self._ids[self._before :])

    def _told(self, piece: str) -> tuple[str, bool]:
        if not self._stop:
            return piece, False
        text = self._held + piece
        found = [place for place in map(text.find, self._stop) if place >= 0]
        if found:
            self._held = ""
            return text[: min(found)], True
        kept = max((_begun(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept], False


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of a text are the beginning of a stop text."""
    most = min(len(text), len(stop) - 1)
    return next((length for length in range(most, 0, -1) if text.endswith(stop[:length])), 0)
