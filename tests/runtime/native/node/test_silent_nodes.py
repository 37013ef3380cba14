"""Nodes between which nothing is said for long: one that lives stays, one that has vanished is missed. This waits."""

import os
import signal

import psutil
import pytest
from conftest import WORKERS_NEED, wait_until
from nodes import joined

from shoal import runtime
from shoal.runtime.core.engine import current_engine

pytestmark = pytest.mark.slow

# gRPC hangs up on a node whose pings it finds too many 15 to 20 s after the last message.
QUIET_SECONDS = 25
# It pings after 5 s and waits 10 s for the answer; by default it would be missed after 60 s.
MISSED_SECONDS = 30


@pytest.fixture
def node():
    runtime.init("native", num_cpus=1, preload=WORKERS_NEED, listen="127.0.0.1:0")
    with joined("--num-cpus", "1", "--resources", '{"there": 1}') as node:
        yield node


@runtime.remote(num_cpus=0, max_retries=0, resources={"there": 1})
def read(pipe):
    """Wait in silence until somebody writes into a named pipe."""
    with open(pipe) as file:
        return psutil.Process().parents()[1].pid, file.read()


@pytest.fixture
def pipe(tmp_path):
    """Return a task that reads on the other node, and what to write for it."""
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    ref = read.remote(path)
    with open(path, "w") as file:  # opens once the task reads
        yield ref, file


def test_a_node_on_which_nothing_is_said_stays(node, pipe):
    ref, file = pipe
    assert runtime.wait([ref], timeout=QUIET_SECONDS) == ([], [ref])
    file.write("done")
    file.close()
    assert runtime.get(ref, timeout=10) == (node.pid, "done")


def test_a_node_that_has_vanished_is_missed(node, pipe):
    node.send_signal(signal.SIGSTOP)
    links = current_engine().parts.links
    wait_until(lambda: len(links.nodes) == 1, MISSED_SECONDS)
    with pytest.raises(runtime.WorkerCrashedError, match="its connection has ended"):
        runtime.get(pipe[0], timeout=10)
    node.kill()
