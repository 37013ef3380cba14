"""Where a run may be written: which folders are free, what a run leaves there, and the next name."""

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ...runtime import InputError
from .checkpoint import list_checkpoints
from .league_files import LEAGUE
from .run_lines import LINE_FILES
from .run_lock import LOCK, check_unlocked

RUNS = "runs"
"""Where run folders are made whose place nobody has chosen."""
REPRODUCER = "reproduce.py"
_FILES = (
    REPRODUCER,
    "config.json",
    "metrics.jsonl",
    "metrics.csv",
    *LINE_FILES,
    "evaluations.jsonl",
    "result.json",
    "learning_curve.png",
)
_BEGINNING = ("config.json", "metrics.jsonl", "metrics.csv")
"""What is there before the first iteration; of metrics.csv the head."""
_EVENTS = "events.out.tfevents.*"


def check_writable(path: str | Path) -> None:
    """Raise InputError if a run folder is a file, or nothing can be written into it, or, where it is not there yet,
    into the one that it would be made in. A training asks before it starts anything: later it would be told by what was
    lost."""
    if os.path.isfile(path):
        raise InputError(f"run folder '{path}' is a file. Choose another --run-dir")
    problem = writing_problem(path)
    if problem is not None:
        raise InputError(f"run folder '{path}' cannot be written: {problem}. Choose another --run-dir")


def writing_problem(path: str | Path) -> str | None:
    """What the system says where nothing can be written into a folder, or into that which it would be made in, which is
    named; None if something can."""
    place = Path(path).absolute()
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            place.lstat()  # a name may be too long for any file
        while not os.path.lexists(place) and place != place.parent:
            place = place.parent
        with tempfile.TemporaryFile(dir=place, suffix=".tmp", buffering=0) as file:
            file.write(bytes(4096))
    except OSError as error:
        where = "" if place == Path(path).absolute() else f" ('{place}')"
        return f"{error.strerror or error}{where}"
    return None


def file_problem(path: Path) -> str | None:
    """What is in the way of a file that is to be written; None if nothing is."""
    return "a folder has that name" if path.is_dir() else writing_problem(path.parent)


def default_run_dir(algorithm: str, env_id: str, root: str | Path = RUNS) -> Path:
    """Make and return the first of ``runs/<algorithm>-<env>-<n>``, n = 1, 2, …, that is above every one that exists.

    Making it is the claim: of several that ask at once, each gets one of its own. InputError if none can be made.
    """
    check_writable(root)
    stem = f"{algorithm}-{env_id}".replace("/", "-").replace(":", "-")
    while True:
        numbers = [0]
        for path in Path(root).glob(f"{glob.escape(stem)}-*"):
            with contextlib.suppress(ValueError):
                numbers.append(int(path.name.removeprefix(f"{stem}-")))
        claimed = Path(root) / f"{stem}-{max(numbers) + 1}"
        claimed.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # another was faster: take the next
            claimed.mkdir()
            return claimed


@contextlib.contextmanager
def claimed_run_dir(algorithm: str, env_id: str) -> Iterator[Path]:
    """A folder of `default_run_dir`, which goes again if nothing has come of the run in it by the end of the block."""
    folder = default_run_dir(algorithm, env_id)
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            if all(child.name in _BEGINNING or _is_passing(child.name) for child in folder.iterdir()):
                metrics = folder / "metrics.jsonl"
                if not metrics.exists() or not metrics.stat().st_size:
                    shutil.rmtree(folder)


def check_vacant(path: str | Path, *, overwrite: bool = False) -> Path:
    """Return `path` if a new run may be written there.

    That is where nothing is, or an empty folder, or a run that ended before its first iteration did; with `overwrite`
    also any older run.

    Raises:
        InputError: something is there that may not be replaced, a training of another process is writing there, or
            nothing can be written there.
    """
    folder = Path(path)
    check_writable(folder)
    check_unlocked(folder)
    if not folder.exists() or all(_is_passing(child.name) for child in folder.iterdir()):
        return folder
    known = [name for name in (*_FILES, "checkpoints") if (folder / name).exists()]
    if not known:
        raise InputError(f"'{folder}' holds files, but no run. Choose another --run-dir: they will not be deleted")
    metrics = folder / "metrics.jsonl"
    begun = set(known) - {*_BEGINNING, REPRODUCER} or (metrics.exists() and metrics.stat().st_size)
    if begun and not overwrite:
        resume = f"continue it with --resume {folder} (load, resume=True), " if list_checkpoints(folder) else ""
        raise InputError(
            f"run folder '{folder}' exists already (it holds {', '.join(known)}): {resume}replace it with --overwrite "
            "(overwrite=True), or choose another folder (--run-dir)"
        )
    return folder


def remove_run(path: str | Path) -> None:
    """Delete what a run has written into a folder; what else is in it stays, as a folder may be given by mistake.
    InputError if a training of another process is writing there."""
    check_unlocked(Path(path))
    remove_files(Path(path))


def remove_files(path: Path) -> None:
    """Delete what a run has written into a folder that this process has locked."""
    for folder in ("checkpoints", LEAGUE):
        shutil.rmtree(path / folder, ignore_errors=True)
    for file in (*(path / name for name in _FILES), *path.glob(_EVENTS)):
        file.unlink(missing_ok=True)


def _is_passing(name: str) -> bool:
    """Whether a file is one that only a kill can have left."""
    return name == LOCK or name.endswith(".tmp")
