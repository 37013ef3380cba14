"""Which engine runs a program: what `init` is told, what the environment says, what this machine can."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from . import context
from .engine import Engine
from .exceptions import InputError, nearest
from .settings import Settings

# Of an engine only its name is known until it is used: Ray is an extra that takes a second to import, and the daemon
# of the native engine, for which a starting driver waits, imports this package but none of the engines.
_ENGINES = {
    "native": ("native.start", "start"),
    "serial": ("serial.engine", "SerialEngine"),
    "ray": ("ray.engine", "RayEngine"),
}


def _load(name: str) -> Any:
    module, starter = _ENGINES[name]
    try:
        return getattr(importlib.import_module(f".{module}", __package__), starter)
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise InputError("engine='ray' needs Ray, which is not installed: pip install \"shoal[ray]\"") from None


def start(engine: str | None, settings: Settings) -> Engine:
    """Start an engine: the one that is asked for, else Ray's in its workers, else SHOAL_ENGINE, else the default.

    Raises:
        InputError: there is no such engine, or not here.
    """
    chosen = engine or ("ray" if context.in_rays_worker() else os.environ.get("SHOAL_ENGINE"))
    name = chosen or ("native" if sys.platform == "linux" else "serial")
    if name not in _ENGINES:
        raise InputError(f"engine={name!r}: unknown engine. {nearest(name, _ENGINES)}")
    if name == "native" and sys.platform != "linux":
        raise InputError(f"engine='native' needs Linux, this is {sys.platform}. Use engine='serial'")
    if chosen is None and name == "serial":
        print(f"shoal: the native engine needs Linux, this is {sys.platform}: using engine='serial'", file=sys.stderr)
    if settings.address is not None and name != "ray":
        raise InputError(f"address={settings.address!r} is for engine='ray'; this is engine={name!r}")
    if settings.listen is not None and name != "native":
        instead = "Have nodes join with `ray start --address`" if name == "ray" else "Use engine='native'"
        raise InputError(f"listen={settings.listen!r} is for engine='native'; this is engine={name!r}. {instead}")
    started: Engine = _load(name)(settings)
    return started
