"""What runs here: the task, call or actor that this code is part of."""

from __future__ import annotations

from typing import NoReturn


class ActorExit(SystemExit):
    """Raised by `exit_actor`; ends the actor once it has left the method."""


def exit_actor() -> NoReturn:
    """End the actor whose method this is, on purpose: it is not started again, whatever its `max_restarts`.

    Calls that run finish; those that have not begun, and the one that called this, raise ActorDiedError at their
    callers. It works by an exception that is a SystemExit: let it pass.
    """
    raise ActorExit(0)
