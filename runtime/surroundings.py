"""What a `runtime_env` means where tasks run in the caller's own process: entered before a call, left after it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from .runtime_env import RuntimeEnv


class Surroundings:
    """The surroundings of the code that runs now; folders and modules are used where they lie, not as copies."""

    def __init__(self, job: RuntimeEnv | None) -> None:
        self._current: dict[str, Any] = dict(job or {})

    def of(self, own: RuntimeEnv | None) -> dict[str, Any]:
        """Return the surroundings of what is started now with options that say `own`."""
        if not own:
            return self._current
        merged = {**self._current.get("env_vars", {}), **own.get("env_vars", {})}
        return {**self._current, **own, "env_vars": merged}

    @contextlib.contextmanager
    def entered(self, wanted: dict[str, Any]) -> Iterator[None]:
        """Live in these surroundings for a while."""
        if not wanted:
            yield
            return
        variables = wanted.get("env_vars", {})
        outer, before = self._current, {name: os.environ.get(name) for name in variables}
        folder, path = os.getcwd(), list(sys.path)
        self._current = wanted
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
            self._current = outer
            os.chdir(folder)
            sys.path[:] = path
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
