"""The runtime under a training."""

from typing import Any

from .. import runtime
from ..runtime import InputError


def start_runtime(engine: str | None) -> None:
    """Start the runtime, if it isn't running; InputError if it runs on another engine than this one (None: any)."""
    if not runtime.is_initialized():
        runtime.init(engine=engine)
    elif engine is not None and engine != runtime.engine_name():
        raise InputError(
            f"engine is {engine!r}, but the runtime runs on {runtime.engine_name()!r} already. "
            "Call runtime.shutdown() first"
        )


def preload(kind: type[Any], *modules: str) -> None:
    """Have workers import these modules before they start, and that of ours which defines a class: by itself each actor
    of a training takes 0.2 s of processor time for what it needs of this package, whenever it is started."""
    ours = str(__package__).rpartition(".")[0]
    homes = (base.__module__ for base in kind.__mro__)  # one of a script's own may not be had elsewhere
    runtime.preload(*modules, next(home for home in homes if home.startswith(f"{ours}.")))
