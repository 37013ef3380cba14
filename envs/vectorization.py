"""How the copies of a simulation group are stepped: configuration, recorded with the run.

    sync          n copies in this process, one after the other (the default everywhere)
    entry_point   gymnasium's own vector version of the environment
    envpool       the C++ environments of the envpool package

Never a consequence of what is installed: the kinds differ in their random numbers and in when they reset. A further
kind is a class with the public methods of `EnvGroup`; it becomes available by its entry in this table.
"""

from ..runtime import InputError, nearest

#: All names, and whether this version has them.
VECTORIZATIONS = {"sync": True, "entry_point": False, "envpool": False}


def check_vectorization(name: str) -> None:
    """Refuse a way of stepping that is unknown or that this version does not have.

    Raises:
        InputError: names those that there are.
    """
    available = ", ".join(kind for kind, there in VECTORIZATIONS.items() if there)
    if name not in VECTORIZATIONS:
        raise InputError(f"unknown vectorization {name!r}. {nearest(str(name), VECTORIZATIONS)} Available: {available}")
    if not VECTORIZATIONS[name]:
        raise InputError(f"vectorization {name!r} is not available in this version; available: {available}")
