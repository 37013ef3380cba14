"""How processes die, in words: what their status means, what they held and said last, and what to do about it."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import msgspec

from ...core.resources.machine_memory import Memory, human_bytes

_SHOW_STACK = (
    "runtime_env={'env_vars': {'PYTHONFAULTHANDLER': '1'}} has such a process print its Python stack when it crashes"
)
_CRASH = f"a crash in native code. {_SHOW_STACK}"
# What a signal that nobody here sent tells, and what to do next.
_MEANING: dict[int, str] = {
    signal.SIGKILL: "from outside: by hand, by a job scheduler or a container's limit",
    signal.SIGSEGV: _CRASH,
    signal.SIGBUS: f"{_CRASH}. A full disk under a mapped file does this too",
    signal.SIGILL: f"an instruction that this CPU does not have: a library built for another one? {_SHOW_STACK}",
    signal.SIGFPE: _CRASH,
    signal.SIGABRT: f"native code gave up, such as a failed assertion. {_SHOW_STACK}",
    signal.SIGTERM: "from outside: somebody asked it to end",
    signal.SIGXCPU: "its limit of CPU time (ulimit -t) was reached",
}


def signal_name(number: int) -> str:
    """Return a signal with its name, as in "signal 9 (SIGKILL)"."""
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:  # real-time signals have none
        return f"signal {number}"


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a worker's death.

    Attributes:
        who: pid and title.
        status: as `os.waitpid` gives it.
        expected: we had told it to end, or killed it.
        peak: the most memory that it ever held, bytes; 0 if unknown.
        memory: the machine's, just after.
        starved: for a process that was ended for want of memory: by what.
        biggest: the processes that held most memory then, as (pid, name, bytes).
        tail: the last lines that it printed.
        log: the file with all that it printed, or at least the end of it.
    """

    who: str
    status: int
    expected: bool
    peak: int
    memory: Memory
    starved: str | None = None
    biggest: Sequence[tuple[int, str, int]] = ()
    tail: Sequence[str] = ()
    log: str | None = None

    def describe(self) -> str:
        """Return the sentences of the report, the last lines at its end."""
        parts = [f"process {self.who} {self._how()}"]
        if not self.expected:
            if self.peak:
                parts.append(f"It held up to {human_bytes(self.peak)} of memory; {self.memory}")
            if self.biggest:
                others = ", ".join(f"{name} (pid {pid}) {human_bytes(size)}" for pid, name, size in self.biggest)
                parts.append(f"Most memory is held by {others}")
        if self.log is not None:
            parts.append(f"What it printed is in {self.log}")
        text = ". ".join(parts)
        return text + "; its last lines:" + "".join(f"\n    {line}" for line in self.tail) if self.tail else text

    def _how(self) -> str:
        if self.starved is not None:
            return (
                f"was killed for want of memory by {self.starved}. Run fewer tasks at a time (num_cpus=, memory=), "
                "let each hold less, or use a machine with more memory"
            )
        if os.WIFSIGNALED(self.status):
            number = os.WTERMSIG(self.status)
            meaning = None if self.expected else _MEANING.get(number)
            return f"was killed by {signal_name(number)}" + (f": {meaning}" if meaning else "")
        return f"ended with exit code {os.WEXITSTATUS(self.status)}"


def killed_by_kernel(status: int, expected: bool, kills_before: int, kills_now: int) -> bool:
    """Return whether a process died of the kernel's want of memory: killed, not by us, and the kernel has killed."""
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    return killed and not expected and kills_now > kills_before
