"""Saying what ended this process, where code of an environment did: by `exit`, by a crash in a library of its own.

A check runs in the program's own process, where nothing outlives that. So a shell waits for its end, 2 ms a check; it
reads what is going on, and speaks if the last line is not that all went well.
"""

import contextlib
import subprocess

_OVER = "."
_SCRIPT = f"""
while read -r line; do [ "$line" = {_OVER} ] && exit; last=$line; done
[ -z "$last" ] || printf "error: environment %s has ended this process in %s: it, or a library that it uses, has \
called exit() or crashed (if nobody else has killed the process). PYTHONFAULTHANDLER=1 in the environment prints where \
Python was at a crash.\\n" "$1" "$last" >&2
"""


class LastWords:
    """Of this process, if it ends before `close` while an environment is called."""

    def __init__(self, name: str) -> None:
        """Be ready; `name` is the environment's."""
        self._noted, self._shell = "", None
        with contextlib.suppress(OSError):  # a system without it: then there are none
            command = ["/bin/sh", "-c", _SCRIPT, "sh", repr(name)]
            self._shell = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0)

    def note(self, doing: str) -> None:
        """Note what is called: "step", "reset" or "__init__", each time."""
        if doing != self._noted:
            self._noted = doing
            self._write(doing)

    def close(self) -> None:
        """Nothing has happened."""
        if self._shell is not None:
            self._write(_OVER)
            shell, self._shell = self._shell, None
            assert shell.stdin is not None
            shell.stdin.close()
            shell.wait()

    def _write(self, line: str) -> None:
        if self._shell is not None:
            assert self._shell.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # Ctrl-C has ended it, too
                self._shell.stdin.write(f"{line}\n".encode())
