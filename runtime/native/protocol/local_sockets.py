"""Sockets between the processes of one machine: how they are named, and that only this user's processes talk there.

Names are abstract: no file is left behind by any death. Abstract sockets have no permissions, so any user of the
machine may connect to them, and may bind a name that is free. Hence two rules, kept here and nowhere else: who calls
and who is called is asked of the kernel, and a name that is still to be bound cannot be guessed.
"""

from __future__ import annotations

import hashlib
import os
import socket
import struct
from dataclasses import dataclass

from .descriptors import NONE_LEFT, opening

#: How long a connect waits while the listener's queue is full, seconds: whoever fills it must not stop us for ever.
PATIENCE = 1.0
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
_PREFIX, _SUFFIX, _JOINED = "\0shoal-", "-node", "+"


@dataclass(frozen=True)
class SocketNames:
    """The names of a session's sockets on this machine.

    Attributes:
        session: name of the session; with it anybody finds the node.
        key: secret, hexadecimal; without it nobody knows how the socket of a process to come will be named.
    """

    session: str
    key: str

    @classmethod
    def new(cls, session: str, *, joins: bool = False) -> SocketNames:
        """Return names that no other user can know; `joins`: of a node that is to be a part of another's runtime."""
        return cls(session + _JOINED * joins, os.urandom(16).hex())

    @property
    def node(self) -> str:
        """The node's own."""
        return node_name(self.session)

    def of(self, process: bytes) -> str:
        """Return that of the process with this id."""
        digest = hashlib.blake2b(process, key=bytes.fromhex(self.key), digest_size=16)
        return f"{_PREFIX}{self.session}-{digest.hexdigest()}"


def node_name(session: str) -> str:
    """Return the name of a node's socket."""
    return f"{_PREFIX}{session}{_SUFFIX}"


def sessions_listening() -> set[str]:
    """Return the sessions whose nodes listen on this machine, those of other users among them, without joined ones."""
    prefix = _PREFIX.replace("\0", "@")
    with open("/proc/net/unix") as file:
        paths = [line.rstrip("\n").rpartition(" ")[2] for line in file]
    found = [path for path in paths if path.startswith(prefix) and path.endswith(_SUFFIX)]
    names = {path[len(prefix) : -len(_SUFFIX)] for path in found}
    return {name for name in names if not name.endswith(_JOINED)}


def listen(name: str) -> socket.socket:
    """Return a listening socket."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(name)
    sock.listen(1024)
    sock.setblocking(False)
    return sock


def accept(listener: socket.socket) -> socket.socket | None:
    """Return the next caller's socket; None if there is none, or it belongs to another user of this machine.

    Raises:
        OSError: no descriptor is left (`NONE_LEFT`). Callers wait.
    """
    try:
        sock, _ = opening(listener.accept)
    except OSError as error:
        if error.errno in NONE_LEFT:
            raise
        return None  # nobody calls, or it is closed
    if _peer(sock)[1] != os.getuid():
        sock.close()
        return None
    return sock


def connect(name: str, patience: float = PATIENCE) -> socket.socket:
    """Return a socket, which blocks, connected to the one of this user's that is so named.

    Args:
        name: as `listen` was given.
        patience: how long to wait while its queue is full, seconds.

    Raises:
        PermissionError: another user listens there, who has taken the name of a process that has ended.
        OSError: nobody listens there, or the queue stays full.
    """
    sock = opening(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    try:
        _set_send_timeout(sock, patience)  # which bounds a connect, too: its own time limit would not wait at all
        sock.connect(name)
        _set_send_timeout(sock, 0)
        user = _peer(sock)[1]
        if user != os.getuid():
            raise PermissionError(f"the socket {name[1:]} belongs to user {user}")
    except BaseException:
        sock.close()
        raise
    return sock


def peer_pid(sock: socket.socket) -> int:
    """Return the process that listened where this socket has connected to."""
    return _peer(sock)[0]


def _peer(sock: socket.socket) -> tuple[int, int, int]:
    """Return pid, user and group at the other end, as the kernel noted them when it called or began to listen."""
    pid, user, group = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, user, group


def _set_send_timeout(sock: socket.socket, seconds: float) -> None:
    whole = int(seconds)
    packed = struct.pack("@ll", whole, int((seconds - whole) * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, packed)
