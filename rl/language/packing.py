"""Texts as rows of tokens: what each is, and several packed into a row.

    a text                  BEGIN text ANSWER text END                          learned: all of the text, and END
    prompts and answers     BEGIN prompt ANSWER answer END prompt ANSWER …      learned: answers, and their ENDs

So what is learned has the form of what is sampled later: a plain text is cut, at a place drawn once, into a prompt and
the answer that goes on with it. Which texts lie in which row, and in which order rows come, are functions of seed and
epoch. This module doesn't import torch.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any

import numpy as np

from ...envs import stream
from .tokens import ANSWER, BEGIN, END, PAD, Tokens

_OPEN = 16
"""Rows that are being filled at a time."""


@dataclass(frozen=True)
class Text:
    """What lies in a row as a whole."""

    ids: np.ndarray
    """[L] int32, BEGIN first."""
    learned: np.ndarray
    """[L] bool: the tokens that are learned."""
    nbytes: float
    """Bytes of UTF-8 that these stand for."""
    document: int
    """Number of the document that it is from."""


def plain_texts(document: str, number: int, tokens: Tokens, context: int, seed: int) -> list[Text]:
    """A document, cut into texts of at most `context` tokens; the last one has an END."""
    ids, found, size = tokens.encode(document), [], context - 3
    for start in range(0, len(ids), size):
        part = ids[start : start + size]
        split = int(stream(seed, "prompt of a text", number, start).integers(len(part) + 1))
        end = [END] if start + size >= len(ids) else []
        row = np.array([BEGIN, *part[:split], ANSWER, *part[split:], *end], np.int32)
        nbytes = len(document.encode()) * len(part) / len(ids)
        found.append(Text(row, (row != BEGIN) & (row != ANSWER), nbytes, number))
    return found


def conversation(turns: Iterable[tuple[str, str]], number: int, tokens: Tokens) -> Text:
    """Prompts and their answers, turn by turn."""
    ids, learned, nbytes = [BEGIN], [False], 0
    for prompt, answer in turns:
        asked, said = [*tokens.encode(prompt), ANSWER], [*tokens.encode(answer), END]
        ids += asked + said
        learned += [False] * len(asked) + [True] * len(said)
        nbytes += len(answer.encode())
    return Text(np.array(ids, np.int32), np.array(learned), nbytes, number)


def fill_rows(order: Iterable[int], lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Rows of at most `capacity` tokens, each the numbers of the texts in it: every text of `order` goes into the
    fullest of the rows begun that has room for it."""
    rows: list[list[int]] = []
    begun: list[tuple[int, int]] = []
    for number in order:
        length = lengths[number]
        fitting = [(room, row) for room, row in begun if room >= length]
        if fitting:
            room, row = min(fitting)
            begun.remove((room, row))
        else:
            room, row = capacity, len(rows)
            rows.append([])
        rows[row].append(number)
        if room > length:
            begun = [*begun, (room - length, row)][-_OPEN:]
    return rows


class Texts(Sequence[Text]):
    """Texts whose tokens lie in a file that is mapped into memory: what is not looked at takes none. The file has no
    name, so it is gone with the process, however that ends. It lies where `TMPDIR` says."""

    def __init__(self, texts: Iterable[Text]) -> None:
        lengths: list[int] = []
        learned: list[int] = []
        nbytes: list[float] = []
        documents: list[int] = []
        with tempfile.TemporaryFile() as ids_file, tempfile.TemporaryFile() as learned_file:
            for text in texts:
                ids_file.write(text.ids.astype(np.int32).tobytes())
                learned_file.write(text.learned.tobytes())
                lengths.append(len(text.ids))
                learned.append(int(np.count_nonzero(text.learned)))
                nbytes.append(text.nbytes)
                documents.append(text.document)
            self._ids, self._learned = _mapped(ids_file, np.int32), _mapped(learned_file, np.bool_)
        self.lengths, self.counts = np.array(lengths, np.int64), np.array(learned, np.int64)
        """[N] int64 of each text: tokens, and those that are learned."""
        self.documents = np.array(documents, np.int64)
        """[N] int64: number of the document that each is from."""
        self._nbytes, self._ends = np.array(nbytes), self.lengths.cumsum()

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        end, document = int(self._ends[index]), int(self.documents[index])
        own = slice(end - int(self.lengths[index]), end)
        return Text(self._ids[own], self._learned[own], float(self._nbytes[index]), document)


def _mapped(file: IO[bytes], dtype: Any) -> np.ndarray:
    """The content of a file that is not empty; it stays when the file is closed."""
    file.flush()
    return np.memmap(file, dtype, "r") if file.tell() else np.zeros(0, dtype)


@dataclass(frozen=True)
class Corpus:
    """Texts to learn from, in rows of `context` tokens."""

    all_texts: Texts
    numbers: np.ndarray
    """[N] int64: which of these texts belong to it."""
    context: int
    seed: int

    @staticmethod
    def of(texts: Iterable[Text], context: int, seed: int) -> Corpus:
        """All of these."""
        found = Texts(texts)
        return Corpus(found, np.arange(len(found)), context, seed)

    @property
    def texts(self) -> Iterator[Text]:
        """One by one."""
        return (self.all_texts[number] for number in self.numbers.tolist())

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def sha256(self) -> str:
        """Of all tokens, and of which are learned."""
        digest = hashlib.sha256()
        for text in self.texts:
            digest.update(text.ids.astype("<i4").tobytes() + text.learned.tobytes())
        return digest.hexdigest()

    @property
    def tokens(self) -> int:
        """Learned ones."""
        return int(self.all_texts.counts[self.numbers].sum())

    def divide(self, share: float) -> tuple[Corpus, Corpus]:
        """Those to learn from, and `share` of the documents, one at least, to hold out; none where the share is 0."""
        own = self.all_texts.documents[self.numbers]
        documents = np.unique(own)
        count = 0 if not share else min(max(1, round(share * len(documents))), len(documents) - 1)
        order = stream(self.seed, "held out").permutation(len(documents))
        kept = np.isin(own, documents[order[count:]])
        return self._only(kept), self._only(~kept)

    def _only(self, wanted: np.ndarray) -> Corpus:
        return Corpus(self.all_texts, self.numbers[wanted], self.context, self.seed)

    def epoch(self, number: int) -> list[list[int]]:
        """The rows of an epoch, in its order."""
        order = stream(self.seed, "texts", number).permutation(len(self)).tolist()
        rows = fill_rows(order, self.all_texts.lengths[self.numbers].tolist(), self.context)
        return [rows[i] for i in stream(self.seed, "rows", number).permutation(len(rows)).tolist()]

    def laid_out(self, rows: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
        """Rows as columns: `tokens` [R, context] int32, filled up with PAD; `mask` [R, context] bool, those that are
        learned; `nbytes` [R] float64, that they stand for."""
        found = {
            "tokens": np.full((len(rows), self.context), PAD, np.int32),
            "mask": np.zeros((len(rows), self.context), np.bool_),
            "nbytes": np.zeros(len(rows)),
        }
        for index, row in enumerate(rows):
            at = 0
            for text in (self.all_texts[self.numbers[number]] for number in row):
                end = at + len(text.ids)
                found["tokens"][index, at:end], found["mask"][index, at:end] = text.ids, text.learned
                found["nbytes"][index] += text.nbytes
                at = end
        return found


class RowOrder:
    """Which rows come when, over all epochs; `of` gives those of a place, epoch by epoch, as often as it is asked."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._epoch, self._first = 0, 0
        self._rows = corpus.epoch(0)

    def of(self, start: int, count: int) -> list[list[int]]:
        """Rows `start` to `start + count`, counted from the first of the first epoch."""
        if start < self._first:
            self._epoch, self._first, self._rows = 0, 0, self._corpus.epoch(0)
        found: list[list[int]] = []
        while len(found) < count:
            at = start + len(found) - self._first
            found += self._rows[at : at + count - len(found)]
            if len(found) < count:
                self._first += len(self._rows)
                self._epoch += 1
                self._rows = self._corpus.epoch(self._epoch)
        return found

    @property
    def epochs(self) -> float:
        """Epochs that were begun before the rows last asked for ended."""
        return float(self._epoch)
