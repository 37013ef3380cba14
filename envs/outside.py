"""What an environment holds outside of itself: a folder, a session, a port, which something gives back at its end.

A second environment made from the pickle of a first holds the same, and gives it back once more.
"""

import io
import weakref
from typing import Any

import cloudpickle
import gymnasium


def gives_back(env: gymnasium.Env) -> str | None:
    """Return what gives something back when the environment ends, such as "Rented.close"; None if nothing does.

    Asked are the `close` and `__del__` of the environment and its wrappers, except for gymnasium's own, which close a
    window at most, and all objects that a pickle would hold.
    """
    level: Any = env
    while True:
        for name in ("close", "__del__"):
            owner = next((cls for cls in type(level).__mro__ if name in vars(cls)), None)
            if owner is not None and owner.__module__.partition(".")[0] != "gymnasium":
                return f"{owner.__qualname__}.{name}"
        if not isinstance(level, gymnasium.Wrapper):
            break
        level = level.env
    parts = _PartsPickler(io.BytesIO())
    try:
        parts.dump(env)
    except Exception:  # a user's __reduce__ may raise anything; what was seen until then counts
        return parts.found
    return parts.found


class _PartsPickler(cloudpickle.Pickler):
    """Looks at each object that goes into a pickle.

    Attributes:
        found: the type of the first that gives something back.
    """

    found: str | None = None

    def persistent_id(self, obj: Any) -> None:
        """Look at an object; it is pickled as ever."""
        cls = type(obj)
        if self.found is None and cls is not type and not isinstance(obj, gymnasium.Env):
            if hasattr(cls, "__del__"):
                self.found = f"{cls.__qualname__}.__del__"
            elif hasattr(cls, "__exit__") or isinstance(obj, weakref.finalize):
                self.found = f"a {cls.__qualname__}"
