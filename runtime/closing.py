"""What is closed before the runtime is shut down: objects that give something back through their actors."""

import logging
import os
import weakref
from typing import Protocol

logger = logging.getLogger("shoal")


class Closable(Protocol):
    """What has something to give back, such as a training its environments."""

    def close(self) -> None:
        """Give it back, in bounded time; a second call does nothing."""


# With the process that asked: what a forked child inherits is its parent's.
_to_close: "weakref.WeakKeyDictionary[Closable, int]" = weakref.WeakKeyDictionary()


def close_before_shutdown(closable: Closable) -> None:
    """Register an object whose `close` is called when the runtime is shut down, if it still lives then."""
    _to_close[closable] = os.getpid()


def close_all() -> None:
    """Close what asked for it; what fails is logged, since the runtime ends all the same."""
    closables = [closable for closable, process in list(_to_close.items()) if process == os.getpid()]
    _to_close.clear()
    for closable in closables:
        try:
            closable.close()
        except Exception as error:
            logger.warning("closing %s before the shutdown failed: %r", type(closable).__name__, error)
