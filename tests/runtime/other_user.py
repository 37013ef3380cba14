"""What another user of this machine might do, for tests: where root runs them, a process with that user's rights."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

NOBODY = 65_534

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user for a while")

# Imports what it needs first: the other user may not read this user's files.
_AS_NOBODY = """
import os, socket, sys
from shoal.runtime.native.protocol import messages as m
from shoal.runtime.native.protocol.connection import Connection
os.setgroups([])
os.setresgid({nobody}, {nobody}, {nobody})
os.setresuid({nobody}, {nobody}, {nobody})
{code}
"""


@contextlib.contextmanager
def another_user(code: str, *arguments: str) -> Iterator[subprocess.Popen]:
    """Run Python code with another user's rights until the block is left; it has begun once it has printed a line."""
    command = [sys.executable, "-c", _AS_NOBODY.format(nobody=NOBODY, code=code), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline(), "the other user could not begin"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
