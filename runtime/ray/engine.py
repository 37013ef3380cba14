"""The Ray engine: the runtime's calls as Ray's. Functions, actors, handles and values are Ray's own.

Beside them a program leaves in Ray only what it has published, in the key-value store of its control plane. What the
runtime's own things are in Ray, such as options and errors, is said by `translation.py`; and `functions.py` has what
the few functions and classes become that Ray cannot take as they are.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import ray
from ray.experimental import internal_kv as store
from ray.util import get_current_placement_group, placement_group
from ray.util.placement_group import placement_group_table, remove_placement_group

from ..core.current import AwaitsValues, in_rays_worker
from ..core.engine import (
    Arguments,
    Engine,
    Function,
    Holding,
    Host,
    KeepsValues,
    Running,
    RunsTasks,
    Whereabouts,
)
from ..core.futures import ReadyQueue, ValueFuture
from ..core.options import STREAMING, ActorOptions, TaskOptions
from ..core.refs import ObjectRef, short
from ..core.reports.metric_table import MetricTable
from ..core.reports.rows import PlacementGroupState
from ..core.resources.amounts import Demand, check_feasible, in_units, infeasible
from ..core.resources.capacity import Capacity
from ..core.resources.placement import place
from ..core.runtime_env import RuntimeEnv
from ..core.scheduling import PlacementGroup, PlacementGroupSchedulingStrategy, check_in_bundle, group_name_taken
from ..core.settings import Settings
from ..core.values import serialization
from ..exceptions import InputError
from . import functions
from . import translation as their
from .actors import RayActors
from .translation import held, wrapped

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

_KEYS = b"shoal"
_MOST_REMEMBERED = 256


class RayEngine(Engine, RunsTasks, KeepsValues, AwaitsValues):
    """Ray; its bases tell what its methods do."""

    name = "ray"

    def __init__(self, settings: Settings) -> None:
        self._started = not ray.is_initialized()
        arguments = their.init_arguments(settings)
        if self._started:
            try:
                ray.init(**arguments)
            except (ConnectionError, ValueError) as error:
                raise InputError(
                    f"no Ray to work on at {settings.address or 'this machine'}: {error}. Start one with `ray start "
                    "--head`, leave the address out for one of its own, or, where Ray asks for a token, set "
                    "RAY_AUTH_MODE=token"
                ) from error
        elif settings != Settings(preload=settings.preload, log_to_driver=settings.log_to_driver):
            raise InputError(
                "Ray is running in this process already: what `init` is given would have no effect. Leave it out, or "
                "leave ray.init to the runtime"
            )
        self._is_worker, self._job = in_rays_worker(), ray.get_runtime_context().get_job_id()
        # One that others have started may have an autoscaler, so that what cannot run now may run later.
        self._is_fixed = settings.infeasible == "raise" and self._started and arguments["address"] == "local"
        self._remotes: dict[Any, Any] = {}
        self._kept: list[Any] = []
        self._closing = their.Closing()
        self.metrics = MetricTable()
        self.tasks = self.values = self.waits = self
        self.actors = self.actor_calls = RayActors(self._remote, self._check_feasible, self._closing)
        ray.util.register_serializer(ObjectRef, serializer=their.taken_apart, deserializer=their.put_together)
        serialization.listen(their.serialize_as)
        atexit.register(self.shutdown)  # before Ray's own, which comes before ours: it was imported later

    # Tasks ------------------------------------------------------------------------------------------------------

    def _remote(self, key: Any, target: Callable[[], Any], **options: Any) -> Any:
        """Return what Ray has made of a function or class, which is made once."""
        if key not in self._remotes:
            if len(self._remotes) >= _MOST_REMEMBERED:  # a program may make functions in a loop
                del self._remotes[next(iter(self._remotes))]
            self._remotes[key] = (ray.remote(**options) if options else ray.remote)(target())
        return self._remotes[key]

    def submit(self, function: Function, arguments: Arguments, options: TaskOptions) -> list[Any]:
        self._check_feasible(f"task {function.name}", options)
        make = functions.generator if options.num_returns == STREAMING else functions.function
        limit = {"max_calls": options.max_calls} if options.max_calls else {}
        task = self._remote((function.id, make, options.max_calls), lambda: make(function.target), **limit)
        made = their.call(task.options(**their.options(options, function.name)).remote, arguments)
        return their.results(made, options.num_returns, self._closing)

    def exit_actor(self) -> NoReturn:
        ray.actor.exit_actor()
        raise AssertionError("Ray's exit_actor does not return")

    def cancel(self, ref: ObjectRef, force: bool, recursive: bool) -> None:
        their.cancel(held(ref), held(ref), force, recursive)

    # Objects ----------------------------------------------------------------------------------------------------

    def put(self, value: Any) -> ObjectRef:
        return wrapped(ray.put(value))

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        return np.empty(shape, dtype)

    def store_memory(self) -> int | None:
        return None

    def get(self, refs: Sequence[ObjectRef], timeout: float | None, copy: bool = False) -> list[Any]:
        failure = None
        try:
            values = ray.get([held(ref) for ref in refs], timeout=timeout)
        except Exception as error:  # whatever the task raised
            failure = their.error(error, refs[0].id)
        if failure is not None:
            raise failure  # out here: what Ray raised is no context of it
        return deepcopy(values) if copy else values

    def wait(
        self, refs: Sequence[ObjectRef], num_returns: int, timeout: float | None
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        waited = [held(ref) for ref in refs]
        ready, _ = ray.wait(waited, num_returns=num_returns, timeout=timeout)
        if len(ready) < len(refs):  # Ray returns those that it sees first; the first ones that are ready are wanted
            ready, _ = ray.wait(waited, num_returns=len(refs), timeout=0)
        found = {ref.binary() for ref in ready}
        chosen = [ref for ref in refs if ref.id in found][:num_returns]
        taken = set(chosen)
        return chosen, [ref for ref in refs if ref not in taken]

    def future(self, ref: ObjectRef) -> Future:
        future = ValueFuture()
        future.set_running_or_notify_cancel()

        def arrived(theirs: Future) -> None:
            error = theirs.exception()
            if error is None:
                future.set_result(theirs.result())
            else:
                future.set_exception(their.error(error, ref.id))

        held(ref).future().add_done_callback(arrived)
        return future

    async def value(self, ref: ObjectRef) -> Any:
        return await asyncio.wrap_future(self.future(ref))

    def when_ready(self, ref: ObjectRef, action: Callable[[], None]) -> None:
        held(ref).future().add_done_callback(lambda _: action())

    def ready_queue(self) -> ReadyQueue:
        return ReadyQueue(self.when_ready)

    def adopt(self, object_id: bytes) -> NoReturn:
        raise InputError(f"reference {short(object_id)} was pickled by hand; pass it to a task or an actor instead")

    def keep(self, ref: ObjectRef) -> bytes:
        self._kept.append(held(ref))
        return ray.cloudpickle.dumps(their.taken_apart(ref))

    def borrow(self, kept: bytes) -> ObjectRef:
        return their.put_together(ray.cloudpickle.loads(kept))

    def publish(self, key: str, payload: bytes) -> None:
        store._internal_kv_put(f"{self._job}/{key}".encode(), payload, overwrite=True, namespace=_KEYS)

    def lookup(self, key: str) -> bytes | None:
        return store._internal_kv_get(f"{self._job}/{key}".encode(), namespace=_KEYS)

    # What runs here ---------------------------------------------------------------------------------------------

    @property
    def whereabouts(self) -> Whereabouts:
        here = ray.get_runtime_context()
        return Whereabouts(here.get_job_id(), here.namespace, here.get_node_id(), here.get_worker_id())

    def host(self) -> Host | None:
        here = ray.get_runtime_context()
        if not self._is_worker or here.get_actor_id() is None:
            return None
        handle = here.current_actor  # a weak one, as that of `get_actor` is
        actor = functions.actor(handle)
        actor = replace(actor, lifetime=wrapped(handle, actor.id))
        return Host(actor, here.get_actor_name() or None, here.namespace, self._restarts)

    @functools.cached_property
    def _restarts(self) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of what Ray itself calls there
            return int(ray.get_runtime_context().was_current_actor_reconstructed)

    def running(self) -> Running | None:
        here = ray.get_runtime_context()
        task = here.get_task_id() if self._is_worker else None
        if task is None:
            return None
        # Where there is a task, it has both.
        name, function = here.get_task_name() or "", here.get_task_function_name() or ""
        if name.endswith(".__init__"):  # which Ray puts the actor's name before
            return Running(None, name.rpartition(":")[2], function, self.host())
        # The id of the first object that it returns, as on the other engines.
        return Running(bytes.fromhex(task) + (1).to_bytes(4, "little"), name, function, self.host())

    def holding(self) -> Holding:
        if not self._is_worker:
            return Holding()
        group = get_current_placement_group()
        ours = None if group is None else PlacementGroup(group.id.binary(), list(group.bundle_specs))
        given = ray.get_runtime_context().get_assigned_resources()
        captures = bool(ray.get_runtime_context().should_capture_child_tasks_in_placement_group)
        return Holding(given, [str(gpu) for gpu in ray.get_gpu_ids()], ours, ours is not None and captures)

    def is_cancelled(self) -> bool:
        try:
            return self._is_worker and ray.get_runtime_context().is_canceled()
        except RuntimeError:  # Ray does not tell async methods
            return False

    @property
    def runtime_env(self) -> RuntimeEnv:
        return RuntimeEnv.found(ray.get_runtime_context().runtime_env)

    # Resources and placement ------------------------------------------------------------------------------------

    def _check_feasible(self, who: str, options: TaskOptions | ActorOptions) -> None:
        """Raise InfeasibleError for what can never run; Ray itself would wait."""
        if isinstance(options.scheduling_strategy, PlacementGroupSchedulingStrategy):
            check_in_bundle(who, options.demand, options.scheduling_strategy)
        elif self._is_fixed:
            check_feasible(who, options.demand, self._nodes[0])

    @functools.cached_property
    def _nodes(self) -> list[Demand]:
        return [{"CPU": 0} | in_units(node["Resources"]) for node in ray.nodes()]

    def cluster_resources(self) -> dict[str, float]:
        return their.asked_for(ray.cluster_resources())

    def available_resources(self) -> dict[str, float]:
        return dict.fromkeys(self.cluster_resources(), 0.0) | their.asked_for(ray.available_resources())

    def create_group(
        self, bundles: list[Mapping[str, float]], strategy: str, name: str, detached: bool
    ) -> PlacementGroup:
        if name and any(row.name == name and row.state != "REMOVED" for row in self.placement_groups()):
            raise InputError(group_name_taken(name))
        wanted = [in_units(bundle) for bundle in bundles]
        if self._is_fixed and place(wanted, strategy, [Capacity(node) for node in self._nodes]) is None:
            raise infeasible(f"placement group {name or bundles}", f"{bundles} with strategy {strategy}")
        amounts = [{key: amount for key, amount in bundle.items() if amount} for bundle in bundles]
        made = placement_group(amounts, strategy, name, lifetime="detached" if detached else None)
        return PlacementGroup(made.id.binary(), list(bundles), name)

    def group_ready(self, group: PlacementGroup) -> ObjectRef:
        if placement_group_table(their.group(group)).get("state") == "REMOVED":
            return wrapped(ray.remote(functions.removed).options(num_cpus=0).remote(str(group)))
        strategy = their.strategy(PlacementGroupSchedulingStrategy(group))
        return wrapped(ray.remote(lambda: group).options(num_cpus=0, scheduling_strategy=strategy).remote())

    def remove_group(self, group: PlacementGroup) -> None:
        remove_placement_group(their.group(group))

    def placement_groups(self) -> list[PlacementGroupState]:
        return [
            PlacementGroupState(
                bundles=list(row["bundles"].values()),
                node_ids=[node or "" for node in row["bundles_to_node_id"].values()],
                **{key: row[key] for key in ("placement_group_id", "name", "strategy", "state")},
            )
            for row in placement_group_table().values()
        ]

    # The end ----------------------------------------------------------------------------------------------------

    def state(self, sections: Sequence[str], limit: int) -> NoReturn:
        raise InputError(
            "engine='ray': what runs is shown by Ray: its dashboard, `ray status`, `ray list tasks` (actors, objects, "
            "nodes …), `ray memory`, `ray timeline`, ray.nodes() and ray.util.metrics"
        )

    def shutdown(self) -> bool:
        if self._is_worker:
            return False
        serialization.listeners.discard(their.serialize_as)
        atexit.unregister(self.shutdown)
        self._closing.end()
        if ray.is_initialized():
            store._internal_kv_del(f"{self._job}/".encode(), del_by_prefix=True, namespace=_KEYS)
        if self._started:
            ray.shutdown()
        return True

    def abandon(self) -> None:
        self._started = False
