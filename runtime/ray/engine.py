"""The Ray engine: the runtime's calls as Ray's. Functions, actors and values are Ray's own; nothing is remade here.

Beside them a program leaves in Ray only what it has published, and what makes handles of its named actors, both in the
key-value store of Ray's control plane.
"""

from __future__ import annotations

import atexit
import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from copy import deepcopy
from dataclasses import replace
from time import sleep
from typing import Any, NoReturn

import cloudpickle
import numpy as np
import ray
from ray import exceptions as theirs
from ray.experimental import internal_kv as store
from ray.util import list_named_actors, placement_group
from ray.util.placement_group import placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as TheirStrategy

from .. import serialization
from ..capacity import Capacity
from ..context import current_engine
from ..engine import ActorId, Arguments, Function
from ..exceptions import InputError, PendingCallsLimitExceeded
from ..introspection.metric_table import MetricTable
from ..introspection.reports import Event
from ..options import STREAMING, ActorOptions, MethodOptions, TaskOptions
from ..placement import place
from ..ready_queue import ReadyQueue
from ..refs import ObjectRef, short
from ..resources import Demand, check_feasible, in_units, infeasible
from ..results import name_taken
from ..scheduling import PlacementGroup, PlacementGroupSchedulingStrategy, SchedulingStrategy, missing_in_bundle
from ..settings import Settings
from . import translation as their
from .callables import as_function, hosted, yielding
from .references import arrival, cancel, has_arrived, held, stream, wrapped
from .surroundings import MYSELF, Surroundings

_KEYS = b"shoal"


class RayEngine(Surroundings):
    """Ray; see `shoal.runtime.engine.Engine` for the methods."""

    name = "ray"
    address = token = ""

    def __init__(self, settings: Settings) -> None:
        arguments = their.init_arguments(settings)
        self._started = not ray.is_initialized()
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
        # Another one may have an autoscaler, so that what cannot run now may run later.
        self._is_fixed = settings.infeasible == "raise" and self._started and arguments["address"] == "local"
        self._job = ray.get_runtime_context().get_job_id()
        super().__init__()
        self._functions: dict[Any, Any] = {}
        self._kept: list[Any] = []
        self.metrics = MetricTable()
        self.empty = np.empty
        ray.util.register_serializer(ObjectRef, serializer=_taken_apart, deserializer=_put_together)
        serialization.listen(_serialize_as)
        atexit.register(self.shutdown)  # before Ray's own, which comes before ours: it was imported later

    # Tasks and actors -------------------------------------------------------------------------------------------

    def submit(self, function: Function, arguments: Arguments, options: TaskOptions) -> list[Any]:
        """Have Ray run the function."""
        self._check_feasible(f"task {function.name}", options.demand, options.scheduling_strategy)
        streams = options.num_returns == STREAMING
        key = function.id, options.max_calls, streams
        if key not in self._functions:
            make = ray.remote(max_calls=options.max_calls) if options.max_calls else ray.remote
            self._functions[key] = make(yielding(function.target) if streams else as_function(function.target))
        task = self._functions[key].options(**their.option_arguments(options, function.name))
        return _results(_call(task.remote, arguments), options.num_returns)

    def create_actor(
        self, cls: Function, arguments: Arguments, options: ActorOptions, methods: Mapping[str, MethodOptions]
    ) -> ActorId:
        """Have Ray start the actor."""
        given = their.option_arguments(options, cls.name)
        self._check_feasible(f"actor {cls.name}", options.demand, options.scheduling_strategy)
        draft = ActorId.of(b"", None, cls.name, methods, options)
        packed, groups = cloudpickle.dumps(draft), dict(options.concurrency_groups)
        key = cls.id, packed, tuple(groups.items())
        if key not in self._functions:
            make = ray.remote(concurrency_groups=groups) if groups else ray.remote
            self._functions[key] = make(hosted(cls.target, draft))  # type: ignore[arg-type]  # it is a class
        try:
            handle = _call(self._functions[key].options(**given).remote, arguments)
        except ValueError as error:
            if options.name is None:
                raise
            raise name_taken(options.name) from error
        if options.name is not None:
            kept = _key(handle._actor_id.binary(), "detached" if options.detached else self._job)
            store._internal_kv_put(kept, packed, overwrite=False, namespace=_KEYS)
        return _of(handle, draft)

    def call(self, actor: ActorId, method: str, arguments: Arguments, options: MethodOptions) -> list[Any]:
        """Have Ray call the method."""
        given = their.option_arguments(options, f"{actor.class_name}.{method}")
        try:
            made = _call(getattr(held(actor.lifetime), method).options(**given).remote, arguments)
        except theirs.PendingCallsLimitExceeded as error:
            raise PendingCallsLimitExceeded(
                f"{actor.class_name}.{method}: {actor.max_pending_calls} calls of this process to the actor have not "
                "been answered, and that is its max_pending_calls. Wait for some of them, or raise the limit"
            ) from error
        return _results(made, options.num_returns)

    def kill(self, actor: ActorId, no_restart: bool) -> None:
        """Have Ray end an actor."""
        ray.kill(held(actor.lifetime), no_restart=no_restart)
        if no_restart:
            store._internal_kv_del(_key(actor.id, "detached"), namespace=_KEYS)

    def exit_actor(self) -> NoReturn:
        """Have Ray end this actor."""
        ray.actor.exit_actor()
        raise AssertionError("Ray's exit_actor does not return")

    def cancel(self, ref: ObjectRef, force: bool, recursive: bool) -> None:
        """Have Ray cancel the task."""
        cancel(held(ref), held(ref), force, recursive)

    def find_actor(self, name: str, namespace: str | None) -> ActorId | None:
        """Return the living actor of that name; an actor that another program made without this runtime is none."""
        try:
            handle = ray.get_actor(name, namespace)
        except ValueError:
            return None
        actor = handle._actor_id.binary()
        for _ in range(100):  # its creator may be about to say what makes a handle
            for prefix in (actor[-4:].hex(), "detached"):  # ids of Ray's actors end with their job's
                draft = store._internal_kv_get(_key(actor, prefix), namespace=_KEYS)
                if draft is not None:
                    return _of(handle, cloudpickle.loads(draft))
            sleep(0.01)
        return None

    def actor_names(self) -> list[tuple[str, str]]:
        """Return the namespace and name of each actor that Ray knows by name."""
        return sorted((row["namespace"], row["name"]) for row in list_named_actors(all_namespaces=True))

    # Objects ----------------------------------------------------------------------------------------------------

    def put(self, value: Any) -> ObjectRef:
        """Have Ray store a value."""
        return wrapped(ray.put(value))

    def get(self, refs: Sequence[ObjectRef], timeout: float | None, copy: bool = False) -> list[Any]:
        """Have Ray return the values."""
        failure = None
        try:
            if timeout == 0 and len(refs) == 1 and has_arrived(refs[0]):
                # Whoever awaits has been given the value already; asking again would block the event loop.
                values = [arrival(refs[0]).result()]
            else:
                values = ray.get([held(ref) for ref in refs], timeout=timeout)
        except Exception as error:  # whatever the task raised
            failure = their.translated(error, refs[0].id)
        if failure is not None:
            raise failure  # out here: what Ray raised is no context of it
        return deepcopy(values) if copy else values

    def wait(
        self, refs: Sequence[ObjectRef], num_returns: int, timeout: float | None
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        """Split into ready and not ready."""
        waited = [held(ref) for ref in refs]
        ready, _ = ray.wait(waited, num_returns=num_returns, timeout=timeout)
        if len(ready) < len(refs):  # Ray returns those that it sees first; the first ones that are ready are wanted
            ready, _ = ray.wait(waited, num_returns=len(refs), timeout=0)
        found = {ref.binary() for ref in ready}
        chosen = [ref for ref in refs if ref.id in found][:num_returns]
        taken = set(chosen)
        return chosen, [ref for ref in refs if ref not in taken]

    def future(self, ref: ObjectRef) -> Future:
        """Return a future of the value."""
        future: Future = Future()
        future.set_running_or_notify_cancel()

        def arrived(theirs: Future) -> None:
            error = theirs.exception()
            if error is None:
                future.set_result(theirs.result())
            else:
                future.set_exception(their.translated(error, ref.id))

        arrival(ref).add_done_callback(arrived)
        return future

    def when_ready(self, ref: ObjectRef, action: Callable[[], None]) -> None:
        """Have Ray call it."""
        arrival(ref).add_done_callback(lambda _: action())

    def ready_queue(self) -> ReadyQueue:
        """Return a queue of references in the order in which their values arrive."""
        return ReadyQueue(self.when_ready)

    def adopt(self, object_id: bytes) -> NoReturn:
        """Refuse: Ray's references travel through Ray alone."""
        raise InputError(f"reference {short(object_id)} was pickled by hand; pass it to a task or an actor instead")

    def keep(self, ref: ObjectRef) -> bytes:
        """Keep a reference, or a handle, until this process leaves Ray."""
        self._kept.append(held(ref))
        return ray.cloudpickle.dumps((held(ref), ref.id))

    def borrow(self, kept: bytes) -> ObjectRef:
        """Return what was kept, or a reference to this actor."""
        if kept == MYSELF:
            handle = ray.get_runtime_context().current_actor
            return wrapped(handle, handle._actor_id.binary())
        return wrapped(*ray.cloudpickle.loads(kept))

    def publish(self, key: str, payload: bytes) -> None:
        """Have Ray keep a named value until the job ends."""
        store._internal_kv_put(f"{self._job}/value/{key}".encode(), payload, overwrite=True, namespace=_KEYS)

    def lookup(self, key: str) -> bytes | None:
        """Return a named value."""
        return store._internal_kv_get(f"{self._job}/value/{key}".encode(), namespace=_KEYS)

    # Resources and placement ------------------------------------------------------------------------------------

    def _check_feasible(self, who: str, demand: Demand, strategy: SchedulingStrategy | None) -> None:
        """Raise InfeasibleError for what can never run; Ray itself would wait."""
        if isinstance(strategy, PlacementGroupSchedulingStrategy):
            lacks = missing_in_bundle(strategy, demand)
            if lacks:
                raise infeasible(who, lacks)
        elif self._is_fixed:
            check_feasible(who, demand, self._nodes[0])

    @functools.cached_property
    def _nodes(self) -> list[Demand]:
        return [{"CPU": 0} | in_units(node["Resources"]) for node in ray.nodes()]

    def cluster_resources(self) -> dict[str, float]:
        """Return what the cluster has."""
        return their.asked_for(ray.cluster_resources())

    def available_resources(self) -> dict[str, float]:
        """Return what is free in the cluster."""
        return dict.fromkeys(self.cluster_resources(), 0.0) | their.asked_for(ray.available_resources())

    def create_group(
        self, bundles: list[Mapping[str, float]], strategy: str, name: str, detached: bool
    ) -> PlacementGroup:
        """Have Ray reserve the bundles."""
        if name and any(row["name"] == name and row["state"] != "REMOVED" for row in self.group_table()):
            raise InputError(f"a placement group named {name!r} exists. Use get_placement_group({name!r})")
        wanted = [in_units(bundle) for bundle in bundles]
        if self._is_fixed and place(wanted, strategy, [Capacity(node) for node in self._nodes]) is None:
            raise infeasible(f"placement group {name or bundles}", f"{bundles} with strategy {strategy}")
        amounts = [{key: amount for key, amount in bundle.items() if amount} for bundle in bundles]
        made = placement_group(amounts, strategy, name, lifetime="detached" if detached else None)
        return PlacementGroup(made.id.binary(), tuple(bundles), name)

    def group_ready(self, group: PlacementGroup) -> ObjectRef:
        """Return a reference to the group that a task makes which runs in it."""
        task = ray.remote(lambda: group).options(
            num_cpus=0, scheduling_strategy=TheirStrategy(their.their_group(group))
        )
        return wrapped(task.remote())

    def remove_group(self, group: PlacementGroup) -> None:
        """Have Ray give the bundles back."""
        remove_placement_group(their.their_group(group))

    def group_table(self) -> list[dict[str, Any]]:
        """Return a row for each placement group."""
        return [their.group_row(row) for row in placement_group_table().values()]

    # What Ray does in its own way -------------------------------------------------------------------------------

    def preload(self, modules: Sequence[str]) -> None:
        """Do nothing: Ray starts its workers by itself."""

    def note(self, event: Event) -> None:
        """Do nothing: stories and timelines are Ray's."""

    def state(self, sections: Sequence[str], limit: int) -> NoReturn:
        """Refuse: Ray keeps its own books."""
        raise InputError(
            "engine='ray': what runs is shown by Ray: its dashboard, `ray status`, `ray list tasks` (actors, objects, "
            "nodes …), `ray memory`, `ray timeline`, ray.nodes() and ray.util.metrics"
        )

    def shutdown(self) -> bool:
        """Leave Ray, if it was entered here; a worker stays."""
        if self._is_worker:
            return False
        serialization.listeners.discard(_serialize_as)
        atexit.unregister(self.shutdown)
        if ray.is_initialized():
            store._internal_kv_del(f"{self._job}/".encode(), del_by_prefix=True, namespace=_KEYS)
        if self._started:
            ray.shutdown()
        return True

    def abandon(self) -> None:
        """Forget Ray, which belongs to the parent of this forked child."""
        self._started = False


def _key(actor: bytes, prefix: str) -> bytes:
    return f"{prefix}/actor/{actor.hex()}".encode()


def _of(handle: Any, draft: ActorId) -> ActorId:
    actor_id = handle._actor_id.binary()
    return replace(draft, id=actor_id, lifetime=wrapped(handle, actor_id))


def _call(remote: Callable[..., Any], arguments: Arguments) -> Any:
    args, kwargs = arguments
    theirs = [held(arg) if type(arg) is ObjectRef else arg for arg in args]
    return remote(*theirs, **{key: held(arg) if type(arg) is ObjectRef else arg for key, arg in kwargs.items()})


def _results(made: Any, num_returns: int) -> list[Any]:
    if num_returns == STREAMING:
        return [stream(made)]
    if num_returns == 0:
        return []
    return [wrapped(ref) for ref in (made if num_returns > 1 else [made])]


def _taken_apart(ref: ObjectRef) -> tuple[Any, bytes]:
    return held(ref), ref.id


def _put_together(taken_apart: tuple[Any, bytes]) -> ObjectRef:
    current_engine()  # whoever has a reference may send it on, which this process must have been told how to do
    return wrapped(*taken_apart)


def _serialize_as(cls: type, functions: tuple[Callable, Callable] | None) -> None:
    if functions is None:
        ray.util.deregister_serializer(cls)
    else:
        ray.util.register_serializer(cls, serializer=functions[0], deserializer=functions[1])
