"""Which running program a command looks into."""

from dataclasses import dataclass, field

from ..runtime import InputError, nearest, state
from .output import note


@dataclass(frozen=True, kw_only=True)
class SessionFlags:
    """Which running program to look into."""

    session: str | None = field(default=None, metadata={"metavar": "NAME"})
    """Its session's name, as `shoal status` shows it. Default: the one that was started last by this user."""


def chosen_session(name: str | None) -> str:
    """Return the name of the session to look into.

    Raises:
        InputError: there is none, or none of that name.
    """
    running = state.sessions()
    names = [session.name for session in running]
    if not names:
        raise InputError("no program of this user that uses Shoal is running here. Start one, then look again")
    if name is None:
        if len(names) > 1:
            note(f"{len(names)} programs are running; this is the newest. Others: --session {' or '.join(names[1:])}")
        return names[0]
    if name not in names:
        raise InputError(f"--session: no session {name!r} is running. {nearest(name, names)}")
    return name
