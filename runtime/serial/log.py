"""How an actor of the serial engine comes back with its state: its last checkpoint, and the calls since."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any

from ..checkpoints import CHECKPOINT, RESTORE


class SerialLog:
    """The log of one actor; see `shoal.runtime.checkpoints` for what it promises.

    Args:
        every: calls between two checkpoints; 0: the actor does not come back with its state.
        pack, load: serialise a value, and rebuild it.
        unpack: rebuilds the arguments of a call.
    """

    def __init__(
        self, every: int, pack: Callable[[Any], Any], load: Callable[[Any], Any], unpack: Callable[..., Any]
    ) -> None:
        self._every, self._pack, self._load, self._unpack = every, pack, load, unpack
        self._state: Any = None
        self._calls: list[tuple[str, tuple[Any, ...]]] = []

    def ran(self, instance: Any, method: str, *arguments: Any) -> None:
        """A call has run: note it, and take a checkpoint if it is time."""
        if self._every == 0 or instance is None:
            return
        self._calls.append((method, arguments))
        if len(self._calls) < self._every:
            return
        try:
            self._state = self._pack(getattr(instance, CHECKPOINT)())
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:  # of the user's method, or of pickling; the log goes on, so nothing is lost yet
            traceback.print_exc()
            print(f"{CHECKPOINT} failed; it is called again after the next call", file=sys.stderr, flush=True)
        else:
            self._calls.clear()

    def restore(self, instance: Any) -> None:
        """Bring a fresh instance to where the last one was; raises what its `__restore__` raises."""
        if self._state is not None:
            getattr(instance, RESTORE)(self._load(self._state))
        for method, arguments in self._calls:
            try:
                args, kwargs = self._unpack(*arguments)
                getattr(instance, method)(*args, **kwargs)
            except BaseException as error:  # it was raised in the caller when the call ran first
                if isinstance(error, SystemExit | KeyboardInterrupt):
                    raise
