"""The serial engine: every task and actor runs in this process, at once, when `.remote()` is called.

For debugging (`pdb` works, one stack) and for tests. Values pass through the same serialisation as on the other
engines, so arguments are copies, results are read-only, and what could not be sent to a process fails here too.
Options about running several calls of an actor at the same time are accepted: one at a time is within all limits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..engine import Holding, Host, Whereabouts
from ..introspection.events import RECORD_CALL_SITES
from ..introspection.metric_table import MetricTable
from ..introspection.reports import NodeReport
from ..refs import ObjectRef
from ..resources import HEAD, UNIT, in_amounts, machine_resources, visible_gpus
from ..runtime_context import RunsCalls
from ..runtime_env import RuntimeEnv
from ..scheduling import PlacementGroup, PlacementGroupSchedulingStrategy
from ..settings import Settings
from ..store_settings import store_settings
from .actors import SerialActors
from .records import Value
from .reports import ME, report_serial
from .resources import NODE_ID, SerialResources


class SerialEngine(SerialActors, RunsCalls):
    """Runs everything eagerly in the calling thread; see `shoal.runtime.engine.Engine` for the methods."""

    name = "serial"
    address = token = ""

    def __init__(self, settings: Settings) -> None:
        # Checked only: objects are ordinary memory here.
        store_settings(settings.object_store_memory, settings.object_spilling_directory)
        gpus = visible_gpus(settings.num_gpus)
        total = machine_resources(settings.num_cpus, gpus, settings.memory, settings.resources) | {HEAD: UNIT}
        namespace = settings.namespace or os.urandom(16).hex()
        record_call_sites = settings.record_call_sites or os.environ.get(RECORD_CALL_SITES) == "1"
        super().__init__(SerialResources(total, gpus), namespace, settings.runtime_env, record_call_sites)
        self.metrics = MetricTable()
        self._published: dict[str, bytes] = {}
        self._started = time.monotonic()

    @property
    def whereabouts(self) -> Whereabouts:
        """This process is all there is."""
        return Whereabouts(ME.hex(), self._namespace, NODE_ID, ME.hex())

    def host(self) -> Host | None:
        """Return None: this process is no actor."""

    def holding(self) -> Holding:
        """Return what the running task or actor was given."""
        given = self._resources.assigned
        if given is None:
            return Holding()
        strategy = given.strategy
        captures = (
            isinstance(strategy, PlacementGroupSchedulingStrategy) and strategy.placement_group_capture_child_tasks
        )
        return Holding(in_amounts(given.demand), self._resources.gpu_ids(), self._resources.current(), captures)

    def is_cancelled(self) -> bool:
        """Return False: nothing else runs that could have done it."""
        return False

    @property
    def runtime_env(self) -> RuntimeEnv:
        """What was given; folders and modules lie where they are."""
        return RuntimeEnv.found(self._surroundings.of(None))

    def cancel(self, ref: ObjectRef, force: bool, recursive: bool) -> None:
        """Do nothing: the task has ended."""

    def publish(self, key: str, payload: bytes) -> None:
        """Keep a named value."""
        self._published[key] = payload

    def lookup(self, key: str) -> bytes | None:
        """Return a named value."""
        return self._published.get(key)

    def preload(self, modules: Sequence[str]) -> None:
        """Do nothing: there is no other process, and this one imports what it uses."""

    def cluster_resources(self) -> dict[str, float]:
        """Return what `init` was given or found."""
        return in_amounts(self._resources.total)

    def available_resources(self) -> dict[str, float]:
        """Return what no placement group has."""
        return self._resources.available()

    def create_group(
        self, bundles: list[Mapping[str, float]], strategy: str, name: str, detached: bool
    ) -> PlacementGroup:
        """Reserve bundles at once, if they are free."""
        return self._resources.create(bundles, strategy, name, detached)

    def remove_group(self, group: PlacementGroup) -> None:
        """Give the bundles back."""
        self._resources.remove(group)

    def group_table(self) -> list[dict[str, Any]]:
        """Return all about all groups."""
        return self._resources.table()

    def group_ready(self, group: PlacementGroup) -> ObjectRef:
        """Return a reference to the group, or to the reason why it is not ready."""
        failure = self._resources.unready(group)
        return self.put(group) if failure is None else self._store(Value(failure=failure))

    def state(self, sections: Sequence[str], limit: int) -> list[NodeReport]:
        """Return what there is: objects, actors and tasks that have ended."""
        self._collect()
        return report_serial(
            sections,
            limit,
            started=self._started,
            total=in_amounts(self._resources.total),
            executing=self._executing,
            values=self._values,
            lifetimes=self._lifetimes,
            sites=self._sites or {},
            actors=self._actors.values(),
            events=self._events,
            metrics=self.metrics.report(),
        )

    def shutdown(self) -> bool:
        """Drop all objects and actors."""
        self._end_actors()
        self._values.clear()
        return True

    def abandon(self) -> None:
        """Do nothing: a forked child's copy is its own."""
