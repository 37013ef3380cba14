"""How texts become tokens and back; free of torch.

The first four tokens are no text: an episode is

    BEGIN prompt ANSWER answer END observation ANSWER answer END …

so the ids of each turn continue those before, and nothing that was sampled is ever encoded again.
"""

from __future__ import annotations

import functools
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...envs import TextCodec, install_line
from ...runtime import InputError

PAD, BEGIN, ANSWER, END = range(4)
SPECIAL = 4
"""Tokens that are no text."""


class Tokens(ABC):
    """Encodes and decodes texts."""

    size: int
    """Tokens that there are, the special ones included."""
    alike_anywhere = False
    """Whether the tokens of whole characters are the same text, whatever comes before them."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special ones; InputError if it has characters for which there are none."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special ones are left out, and what is no text becomes "�"."""

    def bytes_of(self, token: int) -> bytes | None:
        """The bytes of UTF-8 that one token stands for; None if it is not known to be a whole number of characters."""
        text = self.decode([token])
        return None if "�" in text else text.encode()


class ByteTokens(Tokens):
    """The bytes of UTF-8."""

    size, alike_anywhere = SPECIAL + 256, True

    def encode(self, text: str) -> list[int]:
        """One for each byte."""
        return [SPECIAL + byte for byte in _encoded(text)]

    def decode(self, ids: Sequence[int]) -> str:
        """The bytes together."""
        return bytes([i - SPECIAL for i in ids if i >= SPECIAL]).decode(errors="replace")

    def bytes_of(self, token: int) -> bytes | None:
        """One, also where it is a part of a character only."""
        return bytes(i - SPECIAL for i in [token] if i >= SPECIAL)


class CharacterTokens(Tokens):
    """The characters of an alphabet."""

    alike_anywhere = True

    def __init__(self, characters: str) -> None:
        self._characters = sorted(set(characters))
        self._ids = {character: SPECIAL + i for i, character in enumerate(self._characters)}
        self.size = SPECIAL + len(self._characters)

    def encode(self, text: str) -> list[int]:
        """One for each character."""
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            raise InputError(
                f"the text {text!r:.80} holds the character {error}, which is none of the model's tokens: it has "
                f"{''.join(self._characters)!r:.80}"
            ) from None

    def decode(self, ids: Sequence[int]) -> str:
        """The characters together."""
        return "".join(self._characters[i - SPECIAL] for i in ids if i >= SPECIAL)


class BytePairTokens(Tokens):
    """A tokenizer of the library `tokenizers`, as `train_tokenizer` makes one; its own special tokens are not used."""

    def __init__(self, document: str) -> None:
        try:
            self._made = _library().Tokenizer.from_str(document)
        except Exception as error:  # the library raises Exception itself
            raise InputError(f"the tokenizer cannot be read: {error}. Make it with train_tokenizer") from None
        self.size = SPECIAL + int(self._made.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """As the tokenizer does."""
        _encoded(text)
        return [SPECIAL + int(i) for i in self._made.encode(text, add_special_tokens=False).ids]

    def decode(self, ids: Sequence[int]) -> str:
        """As the tokenizer does."""
        return str(self._made.decode([i - SPECIAL for i in ids if i >= SPECIAL]))


def _encoded(text: str) -> bytes:
    """A text in UTF-8; InputError for what it cannot hold: half of a surrogate pair, as Python has for bytes of a
    command line that are no text."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        wrong = text[error.start]
        raise InputError(f"the text {text!r:.80} holds {wrong!r}, which is no character: give text in UTF-8") from None


def train_tokenizer(texts: Iterable[str], size: int, path: str | Path) -> None:
    """Learn a byte-level BPE of `size` tokens from texts, and write it to `path`, for `policy_kwargs["tokenizer"]`.

    Raises InputError if `size` is less than the 256 bytes, or `tokenizers` is not installed (extra `lm`).
    """
    if size < 256:
        raise InputError(f"size is {size!r}, but must be at least 256: each byte is a token")
    library = _library()
    made = library.Tokenizer(library.models.BPE())
    made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = library.decoders.ByteLevel()
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    learning = library.trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(texts, learning)
    made.save(str(path))


def read_tokenizer(given: str) -> str:
    """What `policy_kwargs["tokenizer"]` says, with the file's content in the place of its path: a run keeps it, so that
    it does not depend on the file. InputError if there is none."""
    if given in ("bytes", "characters") or given.lstrip().startswith("{"):
        return given
    try:
        document = Path(given).read_text(encoding="utf-8")
        json.loads(document)
    except (OSError, ValueError) as error:
        raise InputError(
            f"policy_kwargs['tokenizer'] is {given!r}, but must be 'bytes', 'characters', or the path of a file that "
            f"train_tokenizer wrote: {error}"
        ) from None
    return document


def with_characters(tokenizer: str, characters: str) -> str:
    """The same tokenizer, whatever spaces it will stand between: "characters" with those that there are."""
    return json.dumps({"characters": characters}) if tokenizer == "characters" else tokenizer


@functools.lru_cache(maxsize=8)
def make_tokens(tokenizer: str, characters: str) -> Tokens:
    """The tokens that `read_tokenizer` gave; `characters` are those of both spaces."""
    if tokenizer == "bytes":
        return ByteTokens()
    if tokenizer.startswith('{"characters"'):
        return CharacterTokens(json.loads(tokenizer)["characters"])
    return CharacterTokens(characters) if tokenizer == "characters" else BytePairTokens(tokenizer)


def tokens_between(tokenizer: str, *spaces: Any) -> Tokens:
    """The tokens of a model that stands between spaces of texts."""
    return make_tokens(tokenizer, characters_of(*spaces))


def characters_of(*spaces: Any) -> str:
    """Those that texts of these spaces have."""
    return "".join(sorted(set().union(*(TextCodec(space).characters for space in spaces))))


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise InputError(f"a byte-pair tokenizer needs the library tokenizers: {install_line('tokenizers')}") from None
    return tokenizers
