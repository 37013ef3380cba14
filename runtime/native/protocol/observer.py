"""Asking a node how things are: the program itself does it as those do that are no part of it, such as `shoal status`.

An observer does not register: it keeps no node alive and takes no line of the board. The node answers what it asks
on the connection on which it asks.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from ...core.reports.rows import NodeReport, ProcessReport
from ...exceptions import InputError, NodeDiedError
from . import messages as m
from .connection import receive_one
from .local_sockets import connect, node_name, peer_pid, sessions_listening

# How long the node waits for its processes' answers, seconds.
_ANSWER_SECONDS = 1.0
# And how much longer an observer waits for the node itself.
_SILENCE_SECONDS = 10.0


@dataclass(frozen=True)
class Session:
    """A runtime of this user on this machine: its name, its node's pid, and when that was started (Unix time)."""

    name: str
    pid: int
    started: float


def sessions() -> list[Session]:
    """Return the runtimes of this user that run on this machine, the newest first."""
    found = []
    for name in sessions_listening():
        try:
            with connect(node_name(name)) as sock:
                pid = peer_pid(sock)
        except OSError:  # it has just ended, or is another user's
            continue
        found.append(Session(name, pid, _started(pid)))
    return sorted(found, key=lambda session: -session.started)


def _started(pid: int) -> float:
    try:
        return os.stat(f"/proc/{pid}")[stat.ST_CTIME]
    except OSError:
        return 0.0


def observe(session: str, sections: Sequence[str], limit: int) -> list[NodeReport]:
    """Return what the nodes of a session say; arguments as for `Engine.state`.

    Raises:
        InputError: there is no such session.
        NodeDiedError: the node ended before it answered, or does not answer at all.
    """
    try:
        sock = connect(node_name(session))
    except OSError:
        raise InputError(f"there is no runtime with session {session!r} on this machine any more") from None
    sock.settimeout(_ANSWER_SECONDS + _SILENCE_SECONDS)
    answer = None
    with sock, contextlib.suppress(ConnectionError):
        try:
            sock.sendall(m.encode(m.AskState(1, list(sections), limit, _ANSWER_SECONDS)))
            answer = receive_one(sock)
        except TimeoutError:
            raise NodeDiedError(f"the node of session {session!r} does not answer: is it stopped?") from None
    if answer is None or not isinstance(answer[0], m.State):
        raise NodeDiedError(f"the node of session {session!r} ended before it answered")
    return unpack(answer[0])


def unpack(answer: m.State) -> list[NodeReport]:
    """Return what is in a node's answer: its own report, and those of the nodes that it has asked."""
    report = msgspec.msgpack.decode(answer.node, type=NodeReport)
    report.processes = [msgspec.msgpack.decode(payload, type=ProcessReport) for payload in answer.reports]
    report.silent = [process.hex() for process in answer.silent]
    return [report, *(other for answers in answer.others for other in unpack(answers))]
