"""Closing environments: every one that was made, once, in bounded time, and without hiding the error that led to it."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import gymnasium

from .interrupts import CallInterrupted, interrupted_after

#: Seconds that the environments of a group have together for their `close`.
CLOSE_SECONDS = 5.0

logger = logging.getLogger("shoal")


def close_all(envs: Sequence[gymnasium.Env], name: str, seconds: float = CLOSE_SECONDS) -> None:
    """Close environments, each although another one's `close` fails or hangs; what went wrong is logged once.

    Args:
        envs: the environments.
        name: their id, for the message.
        seconds: for all of them together; a `close` that takes longer is interrupted.
    """
    deadline, problems = time.monotonic() + seconds, []
    for env in envs:
        try:
            with interrupted_after(max(deadline - time.monotonic(), 0.1)):
                env.close()
        except CallInterrupted:
            problems.append(f"had not returned after {seconds:g} s")
        except Exception as error:  # the user's own; the work is done, or another error is on its way
            problems.append(f"raised {error!r:.300}")
    if problems:
        others = f" ({len(problems)} of {len(envs)} copies)" if len(envs) > 1 else ""
        logger.warning("close() of environment %r %s%s", name, problems[0], others)


@contextmanager
def closing(env: gymnasium.Env, name: str) -> Iterator[gymnasium.Env]:
    """Close one environment at the end of the block."""
    try:
        yield env
    finally:
        close_all([env], name)


@contextmanager
def closing_on_error(env: gymnasium.Env, name: str) -> Iterator[None]:
    """Close an environment if the block raises."""
    try:
        yield
    except BaseException:
        close_all([env], name)
        raise
