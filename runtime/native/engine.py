"""The native engine as the public API sees it, in a driver and in its workers alike."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..exceptions import NodeDiedError
from ..reports import NodeReport
from ..resources import machine_resources
from ..runtime_env import RuntimeEnv
from . import messages as m
from .actor_calls import ActorCalls
from .actors import Actors
from .client import Client
from .connection import Connection
from .environments import Environments
from .interrupts import InterruptGuard
from .reporting import Reporting
from .session import new_session, packages_of
from .task_calls import TaskCalls

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike

# Worth importing once in the fork server if the driver uses them: slow to import, quiet, and safe to fork.
_PRELOADABLE = ("numpy", "gymnasium", "torch")
_SHUTDOWN_SECONDS = 5


class NativeEngine:
    """Processes of this machine; see `shoal.runtime.engine.Engine` for the methods."""

    name = "native"

    def __init__(
        self,
        *,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        resources: dict[str, float] | None = None,
        preload: Sequence[str] | None = None,
        log_to_driver: bool = True,
        runtime_env: RuntimeEnv | None = None,
        log_directory: str | None = None,
    ) -> None:
        session, folder = new_session(log_directory)
        self.environments = Environments(packages_of(folder), None)
        self.environments.current = self.environments.of(runtime_env)
        loaded = [name for name in _PRELOADABLE if name in sys.modules]
        settings = {
            "session": session,
            "folder": folder,
            "resources": machine_resources(num_cpus, num_gpus, resources or {}),
            "preload": loaded if preload is None else list(preload),
            "sys_path": [os.path.abspath(entry) for entry in sys.path],
        }
        self._node: subprocess.Popen | None = _start_node(settings)
        self._join(Client(session, None, log_to_driver=log_to_driver))
        self.client.handlers[m.Output] = _show
        self._guard = InterruptGuard(self.client.busy)
        self.client.start()

    @classmethod
    def join(cls, session: str, process: bytes, environment: m.Environment | None) -> NativeEngine:
        """Return the engine of a worker, whose client is still to be started."""
        engine = cls.__new__(cls)
        engine._node = None
        client = Client(session, process)
        engine.environments = Environments(packages_of(client.welcome.folder), environment)
        engine._join(client)
        return engine

    def _join(self, client: Client) -> None:
        self.client = client
        self._tasks = TaskCalls(client, self.environments)
        self._calls = ActorCalls(client)
        self._actors = Actors(client, self._calls, self.environments)
        self._reporting = Reporting(
            client,
            lambda: chain(self._tasks.report(), self._calls.report()),
            lambda: chain(self._tasks.report_groups(), self._calls.report_groups()),
        )
        client.handlers[m.Reply] = self._on_reply
        self.adopt = client.adopt
        self.borrow = client.borrow
        self.pin = client.pinned.add
        self.get = client.get
        self.put = client.put
        self.wait = client.wait
        self.future = client.future
        self.submit = self._tasks.submit
        self.call = self._calls.call
        self.create_actor = self._actors.create
        self.find_actor = self._actors.find
        self.kill = self._calls.kill

    def _on_reply(self, peer: Connection, message: m.Reply) -> None:
        if not self._tasks.on_reply(peer, message) and not self._calls.on_reply(peer, message):
            for value in message.values:  # it was given up meanwhile
                self.client.adopt_all(value, peer.peer)
                self.client.objects.discard(value)

    def where(self) -> str:
        """Return the text that says where this process runs."""
        return f"node {self.client.me[:4].hex()}, pid {os.getpid()}"

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """Return a writable array in shared memory."""
        return self.client.store.empty(shape, dtype)

    def publish(self, key: str, payload: bytes) -> None:
        """Have the node keep a named value."""
        with self.client.lock:
            self.client.check()
            self.client.node.send(m.Publish(key, payload))

    def lookup(self, key: str) -> bytes | None:
        """Ask the node for a named value."""
        return self.client.ask_node(m.Lookup(key)).payload

    def preload(self, modules: Sequence[str]) -> None:
        """Have the fork server import modules."""
        with self.client.lock:
            self.client.check()
            self.client.node.send(m.Preload(list(modules)))

    def cluster_resources(self) -> dict[str, float]:
        """Return what the node has."""
        return dict(self.client.resources)

    def available_resources(self) -> dict[str, float]:
        """Ask the node what is free."""
        return self.client.ask_node(m.AskResources()).available

    def state(self, sections: Sequence[str], limit: int) -> list[NodeReport]:
        """Ask the node how everything is."""
        return self._reporting.ask(sections, limit)

    def shutdown(self) -> None:
        """End the node and with it everything else; in a worker: nothing, it is not the worker's to end."""
        if self._node is None:
            return
        with self.client.lock:
            if self.client.broken is None:
                self.client.node.send(m.Shutdown())
        try:
            self._node.wait(_SHUTDOWN_SECONDS)
        except subprocess.TimeoutExpired:
            self._node.kill()
            self._node.wait()
        self.client.drain_node()
        self.client.close()
        self._guard.remove()

    def abandon(self) -> None:
        """Forget the node, which belongs to the parent of this forked child."""
        self._node = None


def _start_node(settings: dict[str, Any]) -> subprocess.Popen:
    environment = os.environ | {
        # The same hashes in every run and worker, and one thread per process unless told otherwise: processes are the
        # unit of parallelism here, and threads that fight for a core made training thirty times slower.
        "PYTHONHASHSEED": "0",
        **{name: os.environ.get(name, "1") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")},
    }
    node = subprocess.Popen(
        [sys.executable, "-m", f"{__package__}.node"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # the terminal's Ctrl-C is for the driver alone
    )
    assert node.stdin is not None
    assert node.stdout is not None
    with node.stdout, contextlib.suppress(BrokenPipeError):  # if it is dead already, the missing answer tells
        with node.stdin:
            node.stdin.write(json.dumps(settings).encode() + b"\n")
        if node.stdout.readline() == b"ready\n":
            return node
    raise NodeDiedError(f"the node's daemon did not start (exit code {node.wait()}); its own message is above")


def _show(node: Connection, message: m.Output) -> None:
    """Print what a worker printed, each line marked with who it was."""
    stream = sys.stderr if message.error else sys.stdout
    stream.write("".join(f"({message.who}) {line}\n" for line in message.text.splitlines()))
    stream.flush()
