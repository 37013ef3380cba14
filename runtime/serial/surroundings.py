"""What a `runtime_env` means where tasks run in the caller's own process: entered before a call, left after it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from ..core.runtime_env import RuntimeEnv

# Of each thread its own: several may run tasks at the same time.
_current: ContextVar[dict[str, Any] | None] = ContextVar("surroundings", default=None)


class Surroundings:
    """The surroundings of the code that runs now; folders and modules are used where they lie, not as copies."""

    def __init__(self, job: RuntimeEnv | None) -> None:
        self._job: dict[str, Any] = dict(job or {})

    def of(self, own: RuntimeEnv | None) -> dict[str, Any]:
        """Return the surroundings of what is started now with options that say `own`."""
        current = _current.get() or self._job
        if not own:
            return current
        merged = {**current.get("env_vars", {}), **own.get("env_vars", {})}
        return {**current, **own, "env_vars": merged}

    @contextlib.contextmanager
    def entered(self, wanted: dict[str, Any]) -> Iterator[None]:
        """Set these surroundings up, and put back the former ones after it."""
        if not wanted:
            yield
            return
        variables = wanted.get("env_vars", {})
        before = {name: os.environ.get(name) for name in variables}
        folder, path = os.getcwd(), list(sys.path)
        outer = _current.set(wanted)
        try:
            os.environ.update({name: os.path.expandvars(value) for name, value in variables.items()})
            if "working_dir" in wanted:
                os.chdir(wanted["working_dir"])
                sys.path.insert(0, wanted["working_dir"])
            archives = (".zip", ".whl")
            modules = wanted.get("py_modules", ())
            sys.path[:0] = [source if source.endswith(archives) else os.path.dirname(source) for source in modules]
            yield
        finally:
            _current.reset(outer)
            os.chdir(folder)
            sys.path[:] = path
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
