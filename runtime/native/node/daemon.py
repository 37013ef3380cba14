"""Entry point of the node's daemon: `python -m shoal.runtime.native.node.daemon`."""

from __future__ import annotations

import os
import resource
import signal
import sys

import setproctitle

from ...exceptions import InputError, ShoalError
from .forkserver import start_fork_server
from .node import Node
from .session import SessionFolder
from .settings import NodeSettings
from .workers import LEAST_FILES


def main() -> None:
    """Entry point: settings arrive as one line of JSON on standard input, "ready" leaves on standard output."""
    settings = NodeSettings.read(sys.stdin.readline())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    setproctitle.setproctitle("shoal: node")
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != most_files < LEAST_FILES:
        print(
            f"error: a node opens up to {LEAST_FILES} files at one time, and more with many workers, but may open only "
            f"{most_files} here. Raise the limit (ulimit -Hn)",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)
    try:
        fork_server = start_fork_server(settings)
    except OSError as error:
        print(f"error: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(2)
    # For itself alone: workers are programs of the user's, some of which use `select`.
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    folder = SessionFolder(settings.folder)
    node = Node(settings, folder, fork_server)
    try:
        node.connect()  # only now: gRPC's threads would not survive the fork server's fork
    except (InputError, ShoalError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.stderr.flush()
        folder.close()
        os._exit(2 if isinstance(error, InputError) else 1)
    if settings.join is not None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # it has a terminal of its own
    else:
        sys.stdout.write(f"ready {node.cluster.address}\n")
        sys.stdout.flush()
    os.close(sys.stdout.fileno())
    node.run()
    os._exit(0)


if __name__ == "__main__":
    main()
