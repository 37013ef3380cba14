"""Further nodes on this machine, for tests."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

from conftest import WORKERS_NEED, wait_until

from shoal import runtime


def address() -> str:
    return runtime.cluster_address()


def start_node(*flags: str, token: str | None = None, join: str | None = None, **options) -> subprocess.Popen:
    """Start `shoal node`; it joins the running cluster unless told otherwise."""
    environment = os.environ | {"SHOAL_TOKEN": runtime.cluster_token() if token is None else token}
    command = [sys.executable, "-m", "shoal.cli.main", "node", "--join", join or address(), *flags]
    return subprocess.Popen(command, env=environment, **options)


def alive() -> list:
    return [node for node in runtime.nodes() if node["Alive"]]


@contextlib.contextmanager
def joined(*flags: str) -> Iterator[subprocess.Popen]:
    """Have a node join; it has ended with the head, or is ended, when the block is left."""
    before = len(alive())
    node = start_node(*flags)
    try:
        wait_until(lambda: node.poll() is not None or len(alive()) > before)
        assert node.poll() is None
        yield node
        runtime.shutdown()
        node.wait(10)
    finally:
        node.kill()
        node.wait()


@contextlib.contextmanager
def two_nodes() -> Iterator[None]:
    """Run a head without a CPU, and a node with two: whatever runs, runs on the latter."""
    runtime.init("native", num_cpus=0, preload=WORKERS_NEED, listen="127.0.0.1:0")
    with joined("--num-cpus", "2"):
        yield
