"""The serial engine: every task and actor runs in this process, at once, when `.remote()` is called.

For debugging (`pdb` works, one stack) and for tests. Values pass through the same serialisation as on the other
engines, so arguments are copies, results are read-only, and what could not be sent to a process fails here too.
Options about running several calls of an actor at the same time are accepted: one at a time is within all limits.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, NoReturn

from ..core.engine import Engine, Holding, Host, Whereabouts
from ..core.futures import ReadyQueue, ValueFuture
from ..core.refs import ObjectRef
from ..core.reports.events import RECORD_CALL_SITES, Event
from ..core.reports.metric_table import MetricTable
from ..core.reports.rows import (
    NODE_DIGITS,
    NodeReport,
    NodeState,
    PlacementGroupState,
    ProcessReport,
    WorkerState,
    unix_ms,
)
from ..core.resources.amounts import HEAD, UNIT, in_amounts, machine_resources, visible_gpus
from ..core.runtime_env import RuntimeEnv
from ..core.scheduling import PlacementGroup, PlacementGroupSchedulingStrategy
from ..core.settings import Settings, store_settings
from .actors import SerialActors
from .objects import ME, SerialObjects, Value
from .resources import NODE_ID, SerialResources
from .surroundings import Surroundings
from .tasks import SerialTasks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike


class SerialEngine(Engine):
    """Runs everything eagerly in the calling thread; see `shoal.runtime.core.engine.Engine` for the methods."""

    name = "serial"
    address = token = ""

    def __init__(self, settings: Settings) -> None:
        # Checked only: objects are ordinary memory here.
        store_settings(settings.object_store_memory, settings.object_spilling_directory)
        gpus = visible_gpus(settings.num_gpus)
        total = machine_resources(settings.num_cpus, gpus, settings.memory, settings.resources) | {HEAD: UNIT}
        record_call_sites = settings.record_call_sites or os.environ.get(RECORD_CALL_SITES) == "1"
        self._namespace = settings.namespace or os.urandom(16).hex()
        self._resources, self._surroundings = SerialResources(total, gpus), Surroundings(settings.runtime_env)
        self._objects = objects = SerialObjects(record_call_sites)
        self._tasks = tasks = SerialTasks(objects, self._resources, self._surroundings)
        self._actors = actors = SerialActors(objects, tasks, self._resources, self._surroundings, self._namespace)
        self.tasks, self.actors, self.actor_calls, self.values, self.waits = tasks, actors, actors, objects, objects
        self.metrics = MetricTable()
        self._published: dict[str, bytes] = {}
        self._started = time.monotonic()

    def cancel(self, ref: ObjectRef, force: bool, recursive: bool) -> None:
        """Do nothing: the task has ended."""

    def exit_actor(self) -> NoReturn:
        self._actors.exit_actor()

    def future(self, ref: ObjectRef) -> Future:
        future = ValueFuture()
        try:
            future.set_result(self._objects.get([ref])[0])
        except BaseException as error:  # whatever the task raised belongs to whoever asks the future
            future.set_exception(error)
        return future

    def when_ready(self, ref: ObjectRef, action: Callable[[], None]) -> None:
        action()

    def ready_queue(self) -> ReadyQueue:
        return ReadyQueue(self.when_ready)

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        return self._objects.empty(shape, dtype)

    def store_memory(self) -> int | None:
        return None

    # Resources --------------------------------------------------------------------------------------------------

    def holding(self) -> Holding:
        given = self._resources.assigned
        if given is None:
            return Holding()
        strategy = given.strategy
        captures = (
            isinstance(strategy, PlacementGroupSchedulingStrategy) and strategy.placement_group_capture_child_tasks
        )
        return Holding(in_amounts(given.demand), self._resources.gpu_ids(), self._resources.current(), captures)

    def cluster_resources(self) -> dict[str, float]:
        return in_amounts(self._resources.total)

    def available_resources(self) -> dict[str, float]:
        return self._resources.available()

    def create_group(
        self, bundles: list[Mapping[str, float]], strategy: str, name: str, detached: bool
    ) -> PlacementGroup:
        return self._resources.create(bundles, strategy, name, detached)

    def remove_group(self, group: PlacementGroup) -> None:
        self._resources.remove(group)
        self._actors.end_removed()

    def placement_groups(self) -> list[PlacementGroupState]:
        return self._resources.describe()

    def group_ready(self, group: PlacementGroup) -> ObjectRef:
        failure = self._resources.unready(group)
        return self._objects.put(group) if failure is None else self._objects.store(Value(failure=failure))

    # The runtime ------------------------------------------------------------------------------------------------

    @property
    def whereabouts(self) -> Whereabouts:
        return Whereabouts(ME.hex(), self._namespace, NODE_ID, ME.hex())

    @property
    def runtime_env(self) -> RuntimeEnv:
        return RuntimeEnv.found(self._surroundings.of(None))

    def host(self) -> Host | None:
        """Return None: this process is no actor."""

    def publish(self, key: str, payload: bytes) -> None:
        self._published[key] = payload

    def lookup(self, key: str) -> bytes | None:
        return self._published.get(key)

    def note(self, event: Event) -> None:
        self._objects.events.append(event)

    def state(self, sections: Sequence[str], limit: int) -> list[NodeReport]:
        """Return what there is: one node and one process, both this one; nothing ever waits in it."""
        self._objects.collect()
        pid, me, objects = os.getpid(), ME.hex(), self._objects.report()
        wants_events = "events" in sections or "ended" in sections
        process = ProcessReport(
            process_id=me,
            pid=pid,
            objects_total=len(objects),
            object_bytes=sum(row.object_size for row in objects),
            executing=self._tasks.report(),
            objects=objects[:limit] if "objects" in sections else [],
            events=list(self._objects.events) if wants_events else [],
            metrics=self.metrics.report(),
        )
        node = NodeState(
            node_id=me[:NODE_DIGITS],
            node_name=socket.gethostname(),
            state="ALIVE",
            pid=pid,
            session="serial",
            is_head_node=True,
            resources_total=self.cluster_resources(),
            start_time_ms=unix_ms(self._started),
        )
        worker = WorkerState(
            worker_id=me,
            pid=pid,
            worker_type="DRIVER",
            title="driver",
            is_alive=True,
            node_id=node.node_id,
            cpu_seconds=time.process_time(),
            start_time_ms=node.start_time_ms,
        )
        actors, groups = self._actors.report(), self._resources.describe()
        return [NodeReport(node=node, workers=[worker], actors=actors, groups=groups, processes=[process])]

    def shutdown(self) -> bool:
        self._actors.end_all()
        self._objects.clear()
        return True
