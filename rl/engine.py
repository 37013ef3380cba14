"""The runtime under a training."""

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


def preload(*modules: str) -> None:
    """Have workers import these modules before they start, and this package, which each actor of a training needs: by
    itself it takes 0.2 s of processor time for it, each time that it is started."""
    runtime.preload(*modules, str(__package__))
