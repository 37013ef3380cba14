"""What the node knows of each process: pid, what it is for, what it prints, and why it died."""

from __future__ import annotations

import os
import signal
from collections import deque
from dataclasses import dataclass, field

from ..protocol.connection import Connection
from ..protocol.messages import ActorWanted, Environment, Job
from .output import LogFile, OutputReader, Pipe
from .scheduler import Lease

_TAIL_LINES = 20


@dataclass
class Process:
    """A driver or worker of this node.

    Attributes:
        job: what it works for.
        registered: for a worker: it has come up.
        lease: for a worker: the resources that it works with, and the process that leased it; None while it idles.
        actor: for a worker: the actor that it is made for.
        ended: we have told it to end, or killed it.
        environment: for a worker: its surroundings, if they are not the driver's.
        setup_failed: it ended by itself before it came up in those: another one would, too.
        starved: it was ended for want of memory: by what, and why.
        output_reader: for a driver: how it gets to see what workers print, if it wants to.
        label: for a worker: who it is in what it prints, if that is not its title.
        hears_end: for an actor: it has something to do when the runtime ends.
        pipes, logs: for a worker: what it prints comes from there, and goes there.
        log_path: the log file last begun.
        tail: the last lines that it printed.
    """

    id: bytes
    index: int
    title: str
    pid: int = 0
    connection: Connection | None = None
    job: Job = field(default_factory=Job)
    driver: bool = False
    output_reader: OutputReader | None = None
    label: str | None = None
    hears_end: bool = False
    registered: bool = False
    lease: Lease | None = None
    actor: ActorWanted | None = None
    ended: bool = False
    environment: Environment | None = None
    setup_failed: bool = False
    starved: str | None = None
    log_path: str | None = None
    arenas: list[int] = field(default_factory=list)
    pipes: list[Pipe] = field(default_factory=list)
    logs: dict[bool, LogFile] = field(default_factory=dict)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL_LINES))

    def note_output(self, text: str) -> None:
        """Remember its last lines."""
        self.tail.extend(text.splitlines()[-_TAIL_LINES:])

    def kill(self) -> None:
        """End it at once; its death will be reported."""
        self.ended = True
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send a signal to the process, and to whatever it has started."""
        if self.pid:
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                return
