"""Samples in tar files as WebDataset lays them out: files that follow each other with one name up to the first dot of
their last part are one sample, and what comes after that dot is the name of its column.

    train/0001.jpg  train/0001.cls  train/0002.jpg …   →   {"__key__": "train/0001", "jpg": …, "cls": …}, …
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Self

KEY = "__key__"


class BrokenTarError(ValueError):
    """A tar file is not as it was written: the message says from which byte on."""


@dataclass
class TarSample:
    """The files of one sample, not decoded."""

    key: str
    offset: int
    """Where its first header stands, in bytes of the tar (of the uncompressed one)."""
    files: dict[str, bytes] = field(default_factory=dict)


class _Header(tarfile.TarInfo):
    """A header that says so if it is damaged. tarfile takes any damaged one but the first for the end, without a word,
    and so the rest of the samples would be missing."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        if len(buf) == tarfile.BLOCKSIZE and not any(buf):
            return super().frombuf(buf, encoding, errors)  # which raises that it is the end
        try:
            return super().frombuf(buf, encoding, errors)
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise _BrokenHeaderError(len(buf), str(error)) from None


class _BrokenHeaderError(Exception):
    def __init__(self, length: int, reason: str) -> None:
        super().__init__(reason)
        self.length, self.reason = length, reason


def read_samples(file: BinaryIO, *, stop: int | None = None) -> Iterator[TarSample]:
    """Yield the samples of an open tar file, from where it stands, in its order; only those that begin before byte
    `stop`. Folders, links and hidden files are passed over.

    Raises BrokenTarError where it cannot be read on, after the samples before that one.
    """
    sample: TarSample | None = None
    for member, key, suffix in _members(file):
        if sample is None or key != sample.key:
            if sample is not None:
                yield sample
            if stop is not None and member.offset >= stop:
                return
            sample = TarSample(key, member.offset)
        file.seek(member.offset_data)
        content = file.read(member.size)
        if len(content) < member.size:
            at = member.offset_data + len(content)
            raise BrokenTarError(f"it ends at byte {at}, within {member.name!r}: it was cut off")
        if suffix in sample.files:
            raise BrokenTarError(f"{member.name!r} at byte {member.offset} is there twice")
        sample.files[suffix] = content
    if sample is not None:
        yield sample


def scan_samples(file: BinaryIO) -> Iterator[int]:
    """Yield the position in bytes at which each sample begins, without reading its files, as far as headers are
    sound."""
    last = None
    try:
        for member, key, _ in _members(file):
            if key != last:
                last = key
                yield member.offset
    except BrokenTarError:
        return  # who reads it will say so


def _members(file: BinaryIO) -> Iterator[tuple[tarfile.TarInfo, str, str]]:
    """Yield headers of files that belong to samples, with key and suffix."""
    try:
        tar: Any = tarfile.TarFile(fileobj=file, mode="r", tarinfo=_Header)
        while (member := tar.next()) is not None:
            tar.members.clear()  # it would keep all headers
            key, suffix = _split(member.name)
            if member.isreg() and member.sparse is None and suffix:
                yield member, key, suffix
    except _BrokenHeaderError as error:
        at = file.tell() - error.length
        if not error.length:
            raise BrokenTarError(f"it ends at byte {at} without the mark that ends a tar: it was cut off") from None
        raise BrokenTarError(
            f"the header at byte {at} is damaged ({error.reason}): nothing after it can be found"
        ) from None
    except tarfile.TarError as error:
        raise BrokenTarError(f"it was cut off or is damaged: {error}") from error


def _split(name: str) -> tuple[str, str]:
    """Key and suffix of a file: "a/b.seg.png" is ("a/b", "seg.png"); the suffix is "" where there is none."""
    folder, slash, last = name.rpartition("/")
    stem, _, suffix = last.partition(".")
    return (folder + slash + stem, suffix.lower()) if stem else (name, "")
