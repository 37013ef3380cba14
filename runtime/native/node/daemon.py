"""Entry point of the node's daemon: `python -m shoal.runtime.native.node.daemon`."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys

import setproctitle

from ...exceptions import InputError, ShoalError
from .forkserver import start_fork_server
from .node import Node
from .session import SessionFolder


def main() -> None:
    """Entry point: settings arrive as one line of JSON on standard input, "ready" leaves on standard output."""
    settings = json.loads(sys.stdin.readline())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    setproctitle.setproctitle("shoal: node")
    fork_server = start_fork_server(settings)
    # Three descriptors for each worker; the usual limit of 1024 would end at three hundred of them.
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    folder = SessionFolder(settings["folder"])
    node = Node(settings, folder, fork_server)
    try:
        node.connect(settings)  # only now: gRPC's threads would not survive the fork server's fork
    except (InputError, ShoalError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.stderr.flush()
        folder.close()
        os._exit(2 if isinstance(error, InputError) else 1)
    if "join" in settings:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # it has a terminal of its own
    else:
        sys.stdout.write(f"ready {node.cluster.address}\n")
        sys.stdout.flush()
    os.close(sys.stdout.fileno())
    node.run()
    os._exit(0)


if __name__ == "__main__":
    main()
