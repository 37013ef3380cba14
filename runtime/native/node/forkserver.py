"""The fork server: one quiet process that has imported what workers need and forks them from itself.

A worker takes milliseconds instead of the seconds that importing torch takes. For that it must stay single-threaded
and must never start gRPC or CUDA: neither survives a fork. It reaps its children and reports each death at once. It
dies with the node, and its children die with it (PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import resource
import select
import signal
import socket
import sys
import time
import types
from collections.abc import Callable
from functools import partial

import setproctitle

from ...core.telling import tell_exception, tell_rest
from ..process.environments import exec_worker
from ..protocol import messages as m
from ..protocol.connection import Connection
from ..protocol.local_sockets import SocketNames
from .known_process import Process
from .output import Pipe
from .settings import NodeSettings

_PR_SET_PDEATHSIG = 1
_WORKER = "..worker.worker_process"
#: Seconds for which a worker that the system has no room for is tried again, and between two tries.
_PATIENCE, _PAUSE = 10.0, 0.05


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when the thread that forked it ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)  # it died before we asked


def fork(reap: Callable[[], None], patience: float) -> int:
    """Fork; where the system has no room for another process, try again for so many seconds, since some may end.

    Args:
        reap: takes note of children that have ended, which count as long as nobody does.
        patience: seconds.

    Raises:
        OSError: there is no room; it says which limits there are.
    """
    until = time.monotonic() + patience
    while True:
        try:
            return os.fork()
        except OSError as error:
            if time.monotonic() >= until:
                most = resource.getrlimit(resource.RLIMIT_NPROC)[0]
                most_here = "no limit here" if most == resource.RLIM_INFINITY else f"{most} here"
                raise OSError(
                    error.errno,
                    f"no process can be started: {error.strerror}. What counts processes, and threads as such: "
                    f"ulimit -u ({most_here}), a container's pids.max, sysctl kernel.threads-max",
                ) from None
        reap()
        time.sleep(_PAUSE)


def start_fork_server(settings: NodeSettings) -> Process:
    """Fork the fork server and return it, with a pipe of what it prints; in the child, serve and never return."""
    ours, theirs = socket.socketpair()
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(write, True)
    parent = os.getpid()
    pid = fork(lambda: None, 0)
    if pid:
        theirs.close()
        os.close(write)
        return Process(b"", -1, "fork server", pid, Connection(ours), pipes=[Pipe(read, True)])
    code = 1
    try:
        die_with_parent(parent)
        ours.close()
        os.close(read)
        os.dup2(write, 2)
        os.close(write)
        _serve(theirs, settings)
        code = 0
    except BaseException:  # the process must end here, and not go on as a second node
        tell_exception()
    finally:
        tell_rest()
        os._exit(code)


def _serve(sock: socket.socket, settings: NodeSettings) -> None:
    setproctitle.setproctitle("shoal: fork server")
    # Only here and now, while the node goes on: it has no use for this, and a starting driver waits for it.
    importlib.import_module(_WORKER, __package__)
    sys.path[:] = settings.sys_path
    # cloudpickle looks for the driver's functions in __main__; what it finds must not be the node's own.
    sys.modules["__main__"] = types.ModuleType("__main__")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    node = Connection(sock)
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    _import(settings.preload)
    while True:
        ready, _, _ = select.select([sock.fileno(), wake_read], [], [])
        if wake_read in ready:
            os.read(wake_read, 4096)
            _reap(node)
        if sock.fileno() in ready:
            messages = node.receive_with_fds()
            if messages is None:
                return
            for message in messages:
                if isinstance(message, m.Preload):
                    if message.sys_path is not None:
                        sys.path[:] = message.sys_path
                    _import(message.modules)
                elif isinstance(message, m.Fork):
                    _fork(node, message, settings.names, (wake_read, wake_write))


def _import(modules: list[str]) -> None:
    gc.disable()  # what imports make stays: collections meanwhile took a sixth of torch's time, and found nothing
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # workers that need it will raise it to their callers
            print(f"shoal: cannot preload {module!r}: {error!r}", file=sys.stderr)
    gc.enable()
    # What is loaded now stays: the children's garbage collectors need not walk, and thereby copy, these pages. Nor is
    # it collected here: of torch that takes 0.13 s, for which all wait, and finds 6,500 small objects.
    gc.freeze()


def _reap(node: Connection) -> None:
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        node.send(m.Exited(pid, status, usage.ru_maxrss * 1024))


def _fork(node: Connection, message: m.Fork, names: SocketNames, wake: tuple[int, int]) -> None:
    output, errors = node.fds.popleft(), node.fds.popleft()
    parent = os.getpid()
    pid = fork(partial(_reap, node), _PATIENCE)
    if pid:
        os.close(output)
        os.close(errors)
        # Both of us do it, so that the group is there before anybody can send it a signal.
        with contextlib.suppress(OSError):  # the child was quicker, and is another program already
            os.setpgid(pid, pid)
        node.send(m.Forked(message.process, pid))
        return
    try:
        die_with_parent(parent)
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        node.close()
        for fd in wake:
            os.close(fd)
        os.dup2(output, 1)
        os.dup2(errors, 2)
        os.close(output)
        os.close(errors)
        if message.environment is not None and message.environment.env_vars:
            exec_worker(names, message)
        importlib.import_module(_WORKER, __package__).be_worker(names, message)
    except BaseException:  # the child must end here, and not go on as a second fork server
        tell_exception()
    finally:
        tell_rest()
        os._exit(1)
