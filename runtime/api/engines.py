"""Which engine runs a program: what `init` is told, what the environment says, what this machine can."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

from ..core import current
from ..core.engine import Engine
from ..core.options import given
from ..core.settings import Settings
from ..core.telling import tell
from ..exceptions import InputError, nearest

# Of an engine only its name is known until it is used: Ray is an extra that takes a second to import, and the daemon
# of the native engine, for which a starting driver waits, imports this package but none of the engines.
_ENGINES = {
    "native": ("..native.start", "start"),
    "serial": ("..serial.engine", "SerialEngine"),
    "ray": ("..ray.engine", "RayEngine"),
}

# What `init` can be told that has no effect on an engine, and what to do instead. (`max_lineage_bytes` is no promise
# but a limit, `preload` a wish: an engine that knows nothing of them loses nothing.)
_NO_EFFECT = {
    "native": {"address": "use engine='ray'"},
    "serial": {
        "address": "use engine='ray'",
        "listen": "use engine='native'",
        "infeasible": "here nothing waits, and no node is added: use engine='native'",
        "metrics_port": "use engine='native'; here util.metrics.scrape() returns the same text",
    },
    "ray": {
        "listen": "have nodes join with `ray start --address`",
        "log_directory": "Ray keeps its logs under its own folder: set RAY_TMPDIR, or `ray start --temp-dir`",
        "memory_usage_threshold": "set RAY_memory_usage_threshold where Ray is started",
        "metrics_port": "Ray serves its metrics itself: `ray start --metrics-export-port`",
        "record_call_sites": "set RAY_record_ref_creation_sites=1 and use `ray memory`",
    },
}


def _load(module: str, name: str) -> Any:
    try:
        return getattr(import_module(module, __package__), name)
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise InputError("engine='ray' needs Ray, which is not installed: pip install \"shoal[ray]\"") from None


def start(engine: str | None, settings: Settings) -> Engine:
    """Start an engine: the one that is asked for, else Ray's in its workers, else SHOAL_ENGINE, else the default.

    Raises:
        InputError: there is no such engine, or not here.
    """
    chosen = engine or ("ray" if current.in_rays_worker() else os.environ.get("SHOAL_ENGINE"))
    name = chosen or ("native" if sys.platform == "linux" else "serial")
    if name not in _ENGINES:
        raise InputError(f"engine={name!r}: unknown engine. {nearest(name, _ENGINES)}")
    if name == "native" and sys.platform != "linux":
        raise InputError(f"engine='native' needs Linux, this is {sys.platform}. Use engine='serial'")
    if chosen is None and name == "serial":
        tell(f"shoal: the native engine needs Linux, this is {sys.platform}: using engine='serial'\n")
    said = given(settings)
    for setting, instead in _NO_EFFECT[name].items():
        if setting in said:
            raise InputError(f"init({setting}={said[setting]!r}) has no effect on engine={name!r}: {instead}")
    started: Engine = _load(*_ENGINES[name])(settings)
    return started


def become_node(address: str, token: str, settings: Settings) -> None:
    """Turn this process into a further node of a native engine's cluster; see `shoal.runtime.become_node`."""
    _load("..native.engine", "NativeDriver").become_node(address, token, settings)
