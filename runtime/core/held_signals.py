"""Ctrl-C between two steps that belong together, such as those of an import."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import FrameType, ModuleType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_is_held = False


@contextmanager
def signals_held() -> Iterator[None]:
    """Let a signal whose handler may raise take effect at the end of the block. A second one does so at once, so that
    what hangs in the block can be ended.

    Python runs handlers in the main thread alone, between any two of its instructions: elsewhere nothing is held. A
    block in a block is a part of it.
    """
    global _is_held
    if _is_held or threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    is_over = False

    def hold(number: int, frame: FrameType | None) -> None:
        held.append(number)
        if len(held) > 1 or is_over:  # what the block has installed, such as a starting runtime, may call this later
            before[number](number, frame)

    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in before:
        signal.signal(number, hold)
    _is_held = True
    try:
        yield
    finally:
        _is_held, is_over = False, True
        for number, handler in before.items():
            if signal.getsignal(number) is hold:
                signal.signal(number, handler)
        if len(held) == 1:
            signal.raise_signal(held[0])


def import_whole(name: str, package: str | None = None) -> ModuleType:
    """As `importlib.import_module`; a Ctrl-C takes effect once it is imported.

    numpy and torch cannot be imported again in a process where half of them was: one in the first cell of a notebook,
    or in its first evaluation, would cost its kernel.

    Raises:
        ImportError: also in place of an AttributeError, of which ``from package import name`` would tell the name
            alone.
    """
    with signals_held():
        try:
            return import_module(name, package)
        except AttributeError as error:
            raise ImportError(f"{name.lstrip('.')} cannot be imported: {error}") from error
