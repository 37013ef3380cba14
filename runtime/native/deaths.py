"""How processes die, in words: what their status means, what they held and said last, and what to do about it."""

from __future__ import annotations

import signal


def signal_name(number: int) -> str:
    """Return a signal with its name, as in "signal 9 (SIGKILL)"."""
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:  # real-time signals have none
        return f"signal {number}"
