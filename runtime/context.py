"""The engine that this process talks to, for all who know what an engine can do; see `current`."""

from collections.abc import Callable
from typing import cast

from . import current
from .current import in_rays_worker, is_over, published, runtime_number, set_default_starter, set_engine
from .engine import Engine

__all__ = [
    "current_engine",
    "in_rays_worker",
    "is_over",
    "published",
    "running_engine",
    "runtime_number",
    "set_default_starter",
    "set_engine",
]

# The same functions: a wrapper would be paid for with every call.
current_engine = cast(Callable[[], Engine], current.current_engine)
running_engine = cast(Callable[[], Engine | None], current.running_engine)
