"""The native engine as the public API sees it, in a driver and in its workers alike."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, NoReturn

from ..core.engine import Engine, Holding, Host, Whereabouts
from ..core.refs import ObjectRef
from ..core.reports.events import Event
from ..core.reports.rows import NodeReport, PlacementGroupState
from ..core.resources.amounts import HEAD, UNIT, in_amounts, machine_resources, visible_gpus
from ..core.results import ActorExit
from ..core.runtime_env import RuntimeEnv
from ..core.scheduling import PlacementGroup
from ..core.settings import Settings, store_settings
from ..core.telling import tell
from .driver.node_process import NodeProcess, become_node
from .driver.printer import Printer
from .node.session import new_session
from .node.settings import NodeSettings
from .node.transport import Secrets, parse_address, warn_if_readable
from .process.completion import ReadyQueue
from .process.environments import Environments
from .process.interrupts import InterruptGuard
from .process.links import Links
from .process.long_waits import LongWaits, warn_after
from .process.packages import packages_of
from .process.parts import Parts
from .protocol import messages as m
from .protocol.local_sockets import SocketNames
from .protocol.observer import observe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike

# Worth importing once in the fork server if the driver uses them: slow to import, quiet, and safe to fork.
_PRELOADABLE = ("numpy", "gymnasium", "torch")
#: Environment variable: the token that lets a node join.
ENVIRONMENT_VARIABLE = "SHOAL_TOKEN"


class NativeEngine(Engine):
    """Processes of this machine, as a worker sees them, whose runtime is not its own to end.

    `shoal.runtime.core.engine.Engine` tells what the methods do.
    """

    name = "native"

    def __init__(self, links: Links, environments: Environments) -> None:
        self.environments = environments
        self.parts = parts = Parts(links, environments)
        self.hosted: Host | None = None
        self.on_exit_actor: Callable[[SystemExit], None] = lambda request: None
        self.cancelled: set[bytes] = set()  # calls that run here, or are about to, and should end
        self.metrics = parts.reporting.metrics
        self.tasks, self.actors, self.actor_calls = parts.tasks, parts.actors, parts.actor_calls
        self.values, self.waits = parts.values, parts.waits
        self._links, self._groups = links, parts.groups

    def cancel(self, ref: ObjectRef, force: bool, recursive: bool) -> None:
        self.parts.cancelling.cancel(ref, force, recursive)

    def future(self, ref: ObjectRef) -> Future:
        return self.parts.futures.of(ref)

    def when_ready(self, ref: ObjectRef, action: Callable[[], None]) -> None:
        self.parts.arrivals.when_ready(ref, action)

    def ready_queue(self) -> ReadyQueue:
        parts = self.parts
        return ReadyQueue(self._links, parts.values, parts.arrivals, parts.waits)

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        return self.parts.store.empty(shape, dtype)

    # Placement groups -------------------------------------------------------------------------------------------

    def create_group(
        self, bundles: list[Mapping[str, float]], strategy: str, name: str, detached: bool
    ) -> PlacementGroup:
        return self._groups.create(bundles, strategy, name, detached)

    def group_ready(self, group: PlacementGroup) -> ObjectRef:
        return self._groups.ready(group)

    def remove_group(self, group: PlacementGroup) -> None:
        self._groups.remove(group)

    def placement_groups(self) -> list[PlacementGroupState]:
        return self._links.ask_node(m.AskGroups())

    # Where this process is --------------------------------------------------------------------------------------

    @property
    def whereabouts(self) -> Whereabouts:
        job, me = self._links.job, self._links.me
        return Whereabouts(job.driver.hex(), job.namespace, me[:4].hex(), me.hex())

    def host(self) -> Host | None:
        return self.hosted

    def exit_actor(self) -> NoReturn:
        request = ActorExit(0)
        self.on_exit_actor(request)
        raise request

    def holding(self) -> Holding:
        given, groups = self._groups.assigned, self._groups
        if given is None:
            return Holding()
        return Holding(in_amounts(given.demand), list(given.gpus), groups.current(), groups.captured is not None)

    def is_cancelled(self) -> bool:
        call = self.running()
        return call is not None and call.task_id in self.cancelled

    @property
    def runtime_env(self) -> RuntimeEnv:
        found = self.environments.current
        if found is None:
            return RuntimeEnv()
        return RuntimeEnv.found(
            {"env_vars": found.env_vars, "working_dir": found.working_dir, "py_modules": found.paths}
        )

    # Values by name, and the machine ----------------------------------------------------------------------------

    def publish(self, key: str, payload: bytes) -> None:
        with self._links.lock:
            self._links.check()
            self._links.node.send(m.Publish(key, payload))

    def lookup(self, key: str) -> bytes | None:
        return self._links.ask_node(m.Lookup(key))

    def preload(self, modules: Sequence[str]) -> None:
        with self._links.lock:
            self._links.check()
            self._links.node.send(m.Preload(list(modules)))

    def store_memory(self) -> int | None:
        return self._links.welcome.store_memory

    def cluster_resources(self) -> dict[str, float]:
        together: Counter[str] = Counter()
        for node in self._links.ask_node(m.AskNodes()).alive:
            together.update(node.resources)
        return in_amounts(together)

    def available_resources(self) -> dict[str, float]:
        available = self._links.ask_node(m.AskResources())
        return in_amounts(available)

    def note(self, event: Event) -> None:
        self._links.note(event)

    def state(self, sections: Sequence[str], limit: int) -> list[NodeReport]:
        self._links.check()
        return observe(self._links.names.session, sections, limit)

    def shutdown(self) -> bool:
        return False


class NativeDriver(NativeEngine):
    """The same in a driver, which has started the node, and ends it."""

    def __init__(self, settings: Settings, node: NodeProcess) -> None:
        seconds = warn_after()
        token = os.environ.get(ENVIRONMENT_VARIABLE) or os.urandom(16).hex()
        if settings.listen is not None:
            parse_address(settings.listen)
        session, folder = new_session(settings.log_directory)
        names = SocketNames.new(session)
        try:
            environments = Environments(packages_of(folder), None)
            environments.current = environments.of(settings.runtime_env)
            given = _node_settings(settings, names, folder)
            given.resources[HEAD] = UNIT
            if settings.listen is not None:
                given.listen, given.secrets = settings.listen, Secrets.from_environment(token)
                warn_if_readable("listen", settings.listen, given.secrets)
            address = node.set_up(given.line())
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shown = settings.log_to_driver and os.environ.get("SHOAL_LOG_TO_DRIVER", "1") != "0"
        namespace = settings.namespace or os.urandom(16).hex()
        links = Links(names, None, log_to_driver=shown, namespace=namespace, why_node_died=node.why_it_died)
        super().__init__(links, environments)
        self.address, self.token, parts = address, token, self.parts
        if settings.record_call_sites:
            parts.values.sites = {}
        self._printer = Printer(links.reactor.call_later)
        self._node = node
        links.reactor.watch(node.fileno(), lambda mask: self._read_node())
        if seconds > 0:
            parts.waits.on_wait = LongWaits(links, parts.waits, seconds).begin
        self._guard = InterruptGuard(parts.busy)
        links.on_node_death.append(self._tell_of_dead_node)
        links.start({**parts.handlers(), m.Output: lambda node, message: self._printer.show(message)})

    @staticmethod
    def become_node(address: str, token: str, settings: Settings) -> None:
        """Turn this process into a further node; see `shoal.runtime.become_node`."""
        parse_address(address)
        session, folder = new_session(settings.log_directory)
        given = _node_settings(settings, SocketNames.new(session, joins=True), folder)
        given.join, given.secrets = address, Secrets.from_environment(token)
        warn_if_readable("join", address, given.secrets)
        become_node(given.line(), given.record_call_sites)

    def preload(self, modules: Sequence[str]) -> None:
        with self._links.lock:
            self._links.check()
            self.parts.task_queues.give_all_back()
            self._links.node.send(m.Preload(list(modules), _import_path()))  # a cell may have changed it since

    def guard_signals(self) -> None:
        self._guard.put_up()

    def shutdown(self) -> bool:
        """End the node and with it everything else."""
        self._links.shut_down()
        self._node.stop()
        self._links.drain_node()
        self.parts.close()
        self._node.close()
        self._printer.flush()
        self._guard.remove()
        return True

    def _tell_of_dead_node(self, node: bytes, reason: str) -> None:
        if not self._links.is_shut_down:
            tell(f"shoal: {reason}\n")

    def _read_node(self) -> None:
        if not self._node.read():
            self._links.reactor.unwatch(self._node.fileno())


def _node_settings(settings: Settings, names: SocketNames, folder: str) -> NodeSettings:
    gpus = visible_gpus(settings.num_gpus)
    store_memory, spill_directory = store_settings(settings.object_store_memory, settings.object_spilling_directory)
    loaded = [name for name in _PRELOADABLE if name in sys.modules]
    return NodeSettings(
        names=names,
        folder=folder,
        store_memory=store_memory,
        spill_directory=spill_directory,
        memory_usage_threshold=settings.memory_usage_threshold,
        resources=machine_resources(settings.num_cpus, gpus, settings.memory, settings.resources),
        gpus=gpus,
        infeasible=settings.infeasible,
        max_lineage_bytes=int(settings.max_lineage_bytes),
        preload=loaded if settings.preload is None else list(settings.preload),
        record_call_sites=settings.record_call_sites,
        metrics_port=settings.metrics_port,
        sys_path=_import_path(),
    )


def _import_path() -> list[str]:
    """Where workers look for modules: where this process does now."""
    return [os.path.abspath(entry) for entry in sys.path]
