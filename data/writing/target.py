"""Where a dataset is written: a folder that appears under its name once all its files are there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from ...runtime import InputError
from .formats import Format
from .whole import whole_file


@dataclass(frozen=True)
class Target:
    """Files of one format in a folder, named by the position of what they hold: part-00000.parquet, part-00001.parquet.

    So whoever writes one again, after a death of a worker or of the program, writes the same bytes under the same name.
    """

    folder: str
    form: Format

    def write(self, number: int, table: pa.Table) -> dict[str, int | str]:
        """Write part `number`; return its `file`, `rows` and `bytes`."""
        path = Path(self.folder) / f"part-{number:05d}.{self.form.suffix}"
        with whole_file(path) as file:
            self.form.write(table, file)
        return {"file": path.name, "rows": table.num_rows, "bytes": path.stat().st_size}


@contextlib.contextmanager
def new_folder(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a hidden folder beside `path`, which takes its name when the block is left; with an exception nothing stays.

    Raises:
        InputError: `path` is there, and shall not be overwritten or is no folder; or another program is writing it.
    """
    if path.is_dir() and not overwrite and any(path.iterdir()):
        raise InputError(f"{str(path)!r} is there already: choose another folder, or say overwrite=True")
    if path.exists() and not path.is_dir():
        raise InputError(f"{str(path)!r} is no folder: a dataset is written as a folder of files")
    partial = path.with_name(f".{path.name}.writing")
    partial.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        lock = _claim(partial)
        stack.callback(os.close, lock)
        with contextlib.ExitStack() as failed:
            failed.callback(_remove, partial)
            for left in partial.iterdir():  # by one that was killed
                left.unlink()
            yield partial
            os.fsync(lock)
            _put(partial, path)
            failed.pop_all()


def _claim(folder: Path) -> int:
    """Lock a folder, which the kernel frees at any death; returns its descriptor."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), os.stat(folder)):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    raise InputError(f"another program is writing {str(folder)!r}: wait for it, or choose another folder")


def _put(partial: Path, path: Path) -> None:
    """Give a complete folder its name, in place of an older one."""
    older = path.with_name(f".{path.name}.older")
    if path.exists():
        shutil.rmtree(older, ignore_errors=True)
        path.rename(older)
    partial.rename(path)
    shutil.rmtree(older, ignore_errors=True)


def _remove(folder: Path) -> None:
    """Remove a folder into which tasks may still be writing: under its new name they do not find it."""
    gone = folder.with_name(f"{folder.name}.gone")
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
