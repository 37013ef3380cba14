"""A unix socket that carries messages: framing, buffered sending from any thread, descriptors beside messages."""

from __future__ import annotations

import array
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from .messages import Message, Relay, decode, encode

# More than the C library takes from its heap would be mapped anew for each read, which costs more than the read itself.
_CHUNK = 1 << 16
_SEND_AT = 1 << 16
# How often a blocked writer looks whether its connection was closed meanwhile, milliseconds.
_LOOK_AGAIN = 500
# Functions that each end of a connection notes, and reasons of deaths.
_MOST_REMEMBERED = 256


def remember(table: dict[bytes, Any], key: bytes, what: Any) -> None:
    """Add to a table that forgets the oldest entry when it is full.

    A program that makes functions in a loop must not fill the memory of all its processes. Both ends of a connection
    note its functions in the same order, so the sender knows without asking which ones the receiver still has.
    """
    if len(table) >= _MOST_REMEMBERED:
        del table[next(iter(table))]
    table[key] = what


class ProtocolError(Exception):
    """A message that makes no sense here: it ends the sender's connection, and nothing else."""


class Unreadable(Message):
    """In the place of the last message of a connection: what has come there is none, for this reason."""

    reason: str


def decode_or_say(payload: bytes | memoryview) -> Message:
    """Return the message in a frame's payload; an `Unreadable` if there is none."""
    try:
        return decode(payload)
    except Exception as error:  # whatever it is that is wrong with the bytes
        return Unreadable(f"{type(error).__name__}: {error}")


def receive_one(sock: socket.socket) -> tuple[Message, list[int]] | None:
    """Block for exactly one message and the descriptors beside it, so that what follows is left to whoever reads then.

    Returns:
        None: the other end is gone.
    """
    data, fds = bytearray(), list[int]()
    size = 4
    while len(data) < size:
        chunk, more, _, _ = socket.recv_fds(sock, min(size - len(data), _CHUNK), 1)
        if not chunk:
            return None
        fds += more
        data += chunk
        if len(data) == 4:
            size = 4 + int.from_bytes(data, "little")
    return decode(memoryview(data)[4:]), fds


class Connection:
    """Messages over one socket.

    `send` may be called from any thread; `receive` only by the one thread that reads at the moment. What cannot be
    written at once waits in the outbox; `on_blocked(self, True)` has someone call `flush` when there is room, and
    `on_blocked(self, False)` follows once the outbox is empty.

    Attributes:
        peer: the process at the other end, once it is known.
        fds: descriptors that came with messages, in order.
        functions: ids of functions that the other end has; see `remember`.
        code: the code of functions that it has sent.
    """

    def __init__(self, sock: socket.socket, on_blocked: Callable[[Connection, bool], None] | None = None) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.peer: bytes | None = None
        self.on_blocked = on_blocked
        self.closed = False
        self.fds: deque[int] = deque()
        self.functions: dict[bytes, Any] = {}
        self.code: dict[bytes, Any] = {}
        self._inbox = bytearray()
        self._outbox: deque[tuple[bytearray | memoryview, tuple[int, ...]]] = deque()
        self._outbox_size = 0
        self._armed = False
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self.sock.fileno()

    def send(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        """Send now as much as the socket takes; never blocks. A message to a dead process is lost silently.

        Args:
            message: the message.
            fds: descriptors to pass beside it; they are this connection's from here on, which closes them.
        """
        with self._lock:
            self._outbox.append((encode(message), fds))
            self._flush()

    def post(self, message: Message) -> bool:
        """Queue a message for the next flush; return whether one is needed soon."""
        frame = encode(message)
        with self._lock:
            self._outbox.append((frame, ()))
            self._outbox_size += len(frame)
            if self._outbox_size > _SEND_AT:
                self._flush()
                return bool(self._outbox)
        return True

    def flush(self) -> None:
        """Write what waits, as far as the socket takes it."""
        with self._lock:
            self._flush()

    def write_out(self) -> None:
        """Block until all that waits is written, or the other end is gone."""
        self.flush()
        while self._outbox and not self.closed:
            poll = select.poll()
            poll.register(self.sock, select.POLLOUT)
            poll.poll(_LOOK_AGAIN)
            self.flush()

    def _flush(self) -> None:
        outbox = self._outbox
        self._outbox_size = 0
        try:
            while outbox and not self.closed:
                frame, fds = outbox[0]
                if fds:
                    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
                    sent = self.sock.sendmsg([frame], control)
                elif len(outbox) > 1 and len(frame) < _SEND_AT:
                    frame = self._join()
                    sent = self.sock.send(frame)
                else:
                    sent = self.sock.send(frame)
                outbox.popleft()
                _close_all(fds)
                if sent < len(frame):
                    outbox.appendleft((memoryview(frame)[sent:], ()))
        except BlockingIOError:
            self._arm(True)
            return
        except OSError:  # the peer is dead; whoever reads notices the end and says so
            self._discard()
        if self.closed:
            self._discard()
        self._arm(False)

    def _arm(self, wanted: bool) -> None:
        # Under the lock, and only on a change: two threads that flush must not undo each other's wish.
        if wanted != self._armed and self.on_blocked is not None:
            self._armed = wanted
            self.on_blocked(self, wanted)

    def _discard(self) -> None:
        for _, fds in self._outbox:
            _close_all(fds)
        self._outbox.clear()

    def _join(self) -> bytearray:
        """Make one frame of the small ones at the head of the outbox: one system call for many messages."""
        outbox = self._outbox
        frames: list[bytearray | memoryview] = []
        size = 0
        while outbox and not outbox[0][1] and size < _SEND_AT:
            frames.append(outbox.popleft()[0])
            size += len(frames[-1])
        joined = bytearray().join(frames)
        outbox.appendleft((joined, ()))
        return joined

    @property
    def blocked(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._outbox)

    def receive(self) -> list[Message] | None:
        """Return the messages that have arrived; None at the end of the connection."""
        messages: list[Message] = []
        while True:
            try:
                chunk = self.sock.recv(_CHUNK)
            except BlockingIOError:
                return messages
            except OSError:
                chunk = b""
            if not chunk:
                return messages or None
            self._parse(chunk, messages)
            if len(chunk) < _CHUNK:
                return messages

    def receive_with_fds(self) -> list[Message] | None:
        """As `receive`, and append descriptors that came along to `fds`."""
        try:
            chunk, fds, _, _ = socket.recv_fds(self.sock, _CHUNK, 16)
        except BlockingIOError:
            return []
        except OSError:
            return None
        self.fds.extend(fds)
        if not chunk:
            return None
        messages: list[Message] = []
        self._parse(chunk, messages)
        return messages

    def _parse(self, chunk: bytes, messages: list[Message]) -> None:
        inbox = self._inbox
        data: bytes | bytearray = chunk
        if inbox:
            inbox += chunk
            data = inbox
        start, end = 0, len(data)
        with memoryview(data) as view:
            while end - start >= 4:
                size = int.from_bytes(view[start : start + 4], "little")
                if end - start - 4 < size:
                    break
                message = decode_or_say(view[start + 4 : start + 4 + size])
                messages.append(message)
                if type(message) is Unreadable:
                    start = end  # who reads hangs up: there is no telling where the next one would begin
                    break
                start += 4 + size
        if data is inbox:
            del inbox[:start]
        elif start < end:
            inbox += chunk[start:]

    def close(self) -> None:
        """Close the socket; what waits to be sent is lost."""
        with self._lock:
            self.closed = True
            self._discard()
            self.sock.close()
        while self.fds:
            os.close(self.fds.popleft())


class RelayedConnection(Connection):
    """A connection to a process of another node. It shares the socket to the own node, which passes on what is sent."""

    def __init__(self, process: bytes, node: Connection) -> None:
        super().__init__(node.sock)
        self.peer = process
        self._node = node

    def _flush(self) -> None:
        self._outbox_size = 0
        while self._outbox:
            frame, _ = self._outbox.popleft()
            assert self.peer is not None
            self._node.post(Relay(self.peer, bytes(memoryview(frame)[4:])))
        self._node.flush()

    def close(self) -> None:
        """Leave the socket to the connection that it belongs to."""
        self.closed = True


def _close_all(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)
