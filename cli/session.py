"""The runtime for the length of a command."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import runtime
from ..algorithms import ALGORITHMS
from .signals import STOP_WITH_STDIN

_WORKERS_NEED = ("torch", "gymnasium")
_NOT_EARLY = ("-h", "--help", "--engine", "--address", "--resume", "--seeds")
"""Flags that the runtime must not be started before: they choose another one, or none."""
_SETTINGS_IN = ("cli/train.py", "algorithms/*.py", "rl/*.py", "rl/*/*algorithm.py", "rl/*/*training.py")
"""Sources that declare flags of a training."""


@contextlib.contextmanager
def running_runtime(engine: str | None, address: str | None) -> Iterator[None]:
    """Run the runtime within the block; what workers need most is loaded while the command goes on with its work."""
    if engine is None and address is None and runtime.is_initialized():
        yield  # started early
        return
    with runtime.init(engine=engine, address=address, preload=_WORKERS_NEED):
        yield


def _declared() -> set[str]:
    """Names of which every flag of a training is one. Read from sources as text, which takes a hundredth of a second,
    since the modules that know which flags there are take a quarter."""
    top = Path(__file__).parents[1]
    sources = (file.read_text(encoding="utf-8") for pattern in _SETTINGS_IN for file in top.glob(pattern))
    return {name for source in sources for name in re.findall(r"^    (\w+):", source, re.MULTILINE)}


def _are_flags(arguments: Sequence[str]) -> bool:
    """Whether all flags among the arguments may be some training's."""
    flags = {word.partition("=")[0] for word in arguments if word.startswith("-") and not word[1:2].isdigit()}
    names = {flag.removeprefix("--").removeprefix("no-").replace("-", "_") for flag in flags}
    return not names or names <= _declared()


@contextlib.contextmanager
def started_early(command: str, arguments: Sequence[str]) -> Iterator[None]:
    """Run the runtime within the block, if the command is a training for which nothing has to be known before.

    Workers import torch for a second, and the modules of `shoal train` take a third of one to load: both at once.
    """
    is_training = command == "train" and len(arguments) > 1 and arguments[0].lower() in ALGORITHMS
    # What names a module of the user's own may add to the folders in which workers look for modules.
    must_be_read = any(":" in word or word.startswith(_NOT_EARLY) for word in arguments)
    nothing_gained = runtime.is_initialized() or f"{__package__}.{command}" in sys.modules
    if not is_training or must_be_read or nothing_gained or STOP_WITH_STDIN in os.environ or not _are_flags(arguments):
        yield
        return
    with runtime.init(preload=_WORKERS_NEED):
        yield
