"""The one global of the runtime: the engine that this process talks to, and the names published through it.

References and placement groups know only what they ask of it themselves; all others import it from `engine`, with
everything that an engine can do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..exceptions import ShoalError

if TYPE_CHECKING:
    from concurrent.futures import Future


class AwaitsValues(Protocol):
    """What waits for values."""

    def get(self, refs: Sequence[Any], timeout: float | None, copy: bool = False) -> list[Any]:
        """Return the values; raise the first failed one's exception, or GetTimeoutError after `timeout` seconds.

        `copy`: arrays in memory of their own, which can be written.
        """

    def wait(self, refs: Sequence[Any], num_returns: int, timeout: float | None) -> tuple[list[Any], list[Any]]:
        """Split into ready and not ready, as soon as `num_returns` are ready or `timeout` seconds are over."""


class Backend(Protocol):
    """What references and placement groups ask of an engine, in whose own terms they are not told yet.

    Attributes:
        waits: its part that waits for values.
    """

    waits: AwaitsValues

    def future(self, ref: Any) -> Future:
        """Return a future of the value."""

    async def value(self, ref: Any) -> Any:
        """Return the value, or raise as `get` does, without blocking the event loop."""

    def when_ready(self, ref: Any, action: Callable[[], None]) -> None:
        """Call `action` once the value is there, in any thread; it must be short and not raise."""

    def group_ready(self, group: Any) -> Any:
        """Return a reference to the group that is ready once its bundles are reserved."""

    def abandon(self) -> None:
        """Event: this process is a forked child, which owns nothing of the engine, and forgets it."""
        return


_engine: Backend | None = None
_runtimes = 0  # how many this process has used
_start_default: Callable[[], None] | None = None
_forked_from: int | None = None
_inherited: dict[int, int] = {}  # in a forked child: the runtimes that ran when it was forked, and whose they are

#: Values published in this process, by key, serialised; handed to each engine that starts later.
published: dict[str, bytes] = {}


def current_engine() -> Backend:
    """Return the running engine; start the default one on first use.

    Raises:
        ShoalError: in a process that was forked from one that uses the runtime.
    """
    if _engine is None:
        if _forked_from is not None:
            raise ShoalError(
                f"this process (pid {os.getpid()}) was forked from process {_forked_from}, which uses Shoal: the "
                "connections and shared memory of the parent cannot be used here. Start helpers as tasks or actors, "
                "or use multiprocessing's 'spawn' method, or call shoal.runtime.init() for a runtime of its own"
            )
        assert _start_default is not None
        _start_default()
        assert _engine is not None
    return _engine


def running_engine() -> Backend | None:
    """Return the running engine, or None; one of Ray's workers has been given one by the program that it works for."""
    if _engine is None and in_rays_worker():
        return current_engine()
    return _engine


def in_rays_worker() -> bool:
    """Return whether Ray has made this process, so that what runs in it belongs to a program on Ray."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized() and ray.get_runtime_context().worker.mode == ray.WORKER_MODE


def runtime_number() -> int | None:
    """Return which of this process's runtimes is running; None: there is none, or it has only begun."""
    return None if _engine is None else _runtimes


def is_over(number: int | None) -> bool:
    """Return whether what was made when `runtime_number` said so is of a runtime that has been shut down."""
    return number is not None and (_engine is None or number != _runtimes)


def whose(number: int | None) -> str:
    """Return what to say of a runtime that is over for this process."""
    if number not in _inherited:
        return "a runtime that has been shut down"
    return f"the runtime of process {_inherited[number]}, from which this process was forked"


def set_engine(engine: Backend | None) -> None:
    """Make `engine` the one that this process talks to; None: there is none any more."""
    global _engine, _forked_from, _runtimes
    _engine = engine
    if engine is not None:
        _forked_from = None
        _runtimes += 1


def set_default_starter(start: Callable[[], None]) -> None:
    """Register what starts the default engine on first use."""
    global _start_default
    _start_default = start


def _after_fork_in_child() -> None:
    global _engine, _forked_from
    if _engine is not None:
        _engine.abandon()
        _engine, _forked_from = None, os.getppid()
        _inherited[_runtimes] = _forked_from


os.register_at_fork(after_in_child=_after_fork_in_child)
