"""How a worker's process begins and ends, be it a fork of the fork server or an interpreter of its own."""

from __future__ import annotations

import os
import sys
import types
from typing import Any, NoReturn

import msgspec
import setproctitle

from ...core.results import exit_code
from ...core.telling import tell, tell_exception, tell_rest
from ..process.environments import enter
from ..protocol import messages as m
from ..protocol.local_sockets import SocketNames
from .printing import PrintedStream
from .signals import ignore_interrupts
from .worker import Worker


def be_worker(names: SocketNames, fork: m.Fork) -> NoReturn:
    """Run the worker that the node asked for, then end the process."""
    code = 1
    try:
        sys.stdout, sys.stderr = PrintedStream(1), PrintedStream(2)
        setproctitle.setproctitle(f"shoal: {fork.title}")
        if fork.environment is not None:
            enter(fork.environment)
        ignore_interrupts()
        Worker(names, fork.process, fork.environment).run()
        code = 0
    except SystemExit as request:
        if isinstance(request.code, str):
            tell(f"{request.code}\n")
        code = exit_code(request)
    except BaseException:  # the worker must end here, and not go on as a second fork server
        tell_exception()
    finally:
        tell_rest()
        os._exit(code)


def main(settings: dict[str, Any]) -> NoReturn:
    """Run the worker that `environments.exec_worker` started this interpreter for."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    # cloudpickle looks for the driver's functions in __main__.
    sys.modules["__main__"] = types.ModuleType("__main__")
    be_worker(SocketNames(**settings["names"]), msgspec.msgpack.decode(bytes.fromhex(settings["fork"]), type=m.Fork))
