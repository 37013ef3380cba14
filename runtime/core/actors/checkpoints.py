"""Actors that come back with their state: classes with ``__checkpoint__()`` and ``__restore__(state)``.

An actor that may be restarted, and whose class has both methods, is restored after a crash: its constructor runs again,
``__restore__`` is given what ``__checkpoint__`` returned last, and the calls since are run again in the order in which
they ran. For deterministic methods each answered call is in the state once, and each result is delivered once; calls
that were not answered are made again by themselves, whatever `max_task_retries` says. Effects outside may repeat: a
method that runs again writes its files, starts its tasks and makes its calls again, also those of the actor itself.
"""

from __future__ import annotations

from ...exceptions import InputError
from ..options import ActorOptions
from ..signatures import is_async

CHECKPOINT, RESTORE = "__checkpoint__", "__restore__"


def checkpoint_interval(cls: type, options: ActorOptions) -> int:
    """Return after how many calls an actor sends its state to its owner; 0: never, it does not come back with it.

    By default after each call, so that almost nothing is ever run twice: a class that defines the two methods has said
    that its state is worth it. Where the state is large, a higher `checkpoint_every` trades that for a longer log.

    Raises:
        InputError: `checkpoint_every` is given, but the class or another option does not fit.
    """
    every = options.checkpoint_every
    missing = [name for name in (CHECKPOINT, RESTORE) if not callable(getattr(cls, name, None))]
    if every == 0 or (every is None and (missing or options.max_restarts == 0)):
        return 0
    name = cls.__name__
    if missing:
        raise InputError(
            f"checkpoint_every={every}: actor class {name} has no {' and no '.join(missing)}. "
            f"Define {CHECKPOINT}(self), which returns its state, and {RESTORE}(self, state), which takes it back"
        )
    if options.max_restarts == 0:
        raise InputError(
            f"checkpoint_every={every} has no effect with max_restarts=0: the state is restored when the actor comes "
            "back. Set max_restarts too"
        )
    for what, refused in (
        ("an async actor", is_async(cls)),
        ("a threaded actor", (options.max_concurrency or 1) > 1 or bool(options.concurrency_groups)),
    ):
        if refused:
            raise InputError(
                f"{name} is {what}: its calls have no order in which they could be run again, so it cannot be restored "
                f"by {RESTORE}. Let it run one call at a time, or pass checkpoint_every=0 and save the state yourself"
            )
    if options.detached:
        raise InputError(
            f"{name} is detached: it outlives the process that would keep its checkpoints. Keep a handle instead of "
            "lifetime='detached', or pass checkpoint_every=0 and save the state yourself"
        )
    return 1 if every is None else every
