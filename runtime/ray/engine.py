"""The Ray engine: the runtime's calls on a Ray cluster. Scheduling, storage and recovery are Ray's; nothing is remade.

Ray runs a few things of ours, all in `hosts`: the functions that run the user's, the actor classes that hold the
user's actors, and the board, one small actor for each job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import cloudpickle
import ray
from ray import exceptions as theirs
from ray.util import get_current_placement_group, list_named_actors, placement_group
from ray.util.placement_group import placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as TheirStrategy

from .. import context
from ..capacity import Capacity
from ..checkpoints import is_async
from ..engine import ActorId, Arguments, Function, Host, Whereabouts
from ..exceptions import InputError, PendingCallsLimitExceeded
from ..introspection.metric_table import MetricTable
from ..introspection.reports import Event
from ..options import STREAMING, ActorOptions, MethodOptions, TaskOptions
from ..placement import place
from ..refs import ObjectRef
from ..resources import Demand, check_feasible, in_units, infeasible
from ..results import name_taken
from ..runtime_context import running
from ..scheduling import PlacementGroup, PlacementGroupSchedulingStrategy, SchedulingStrategy, missing_in_bundle
from ..settings import Settings
from .hosts import AsyncHost, Board, Order, SyncHost, Work, echo
from .options import (
    actor_arguments,
    group_row,
    init_arguments,
    method_arguments,
    our_group,
    task_arguments,
    their_group,
)
from .values import BOARD, Code, Packed, RayValues, held, wrapped

# Resources that Ray has for itself.
_OF_RAY = ("node:", "object_store_memory", "bundle")


class RayEngine(RayValues):
    """Ray; see `shoal.runtime.engine.Engine` for the methods."""

    name = "ray"
    token = ""
    # Whether the nodes that there are are all that there will be; None: the board knows.
    _is_fixed: bool | None = None

    def __init__(self, settings: Settings) -> None:
        self._join()
        arguments = init_arguments(settings)
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
        # A cluster that was there before may have an autoscaler, so that what cannot run now may run later.
        self._is_fixed = settings.infeasible == "raise" and arguments["address"] == "local" and self._started
        self.address = ray.get_runtime_context().gcs_address
        # It lives as long as this driver: handles that others get by its name keep nothing alive.
        self._board = ray.remote(Board).options(name=self.board_name(), num_cpus=0).remote(self._is_fixed)

    @classmethod
    def in_worker(cls) -> RayEngine:
        """Return the engine of a process that Ray has made."""
        known = context.running_engine()
        if known is not None:
            assert isinstance(known, RayEngine)
            return known
        engine = cls.__new__(cls)
        engine._started = False
        engine._join()
        context.set_engine(engine)
        return engine

    def _join(self) -> None:
        super().__init__()
        self.metrics = MetricTable()
        self.address = ""
        self._shipped: dict[bytes, Any] = {}
        self._run, self._stream = ray.remote(_run_task), ray.remote(_stream_task)
        self._bounded: dict[tuple[bytes, int, bool], Any] = {}
        self._hosts: dict[tuple[bytes, tuple[tuple[str, int], ...]], Any] = {}
        self._feasible: set[Any] = set()

    # Tasks ------------------------------------------------------------------------------------------------------

    def submit(self, function: Function, arguments: Arguments, options: TaskOptions) -> list[Any]:
        """Have Ray run the function."""
        name = options.name or function.name
        self._check_feasible(f"task {function.name}", options.demand, options.scheduling_strategy)
        order = Order(function.name, name, options.num_returns, options.retry, _attempts(options.max_retries))
        packed, slots = self.pack_arguments(arguments)
        task = self._task(function, options).options(**task_arguments(options, function.name))
        return self._results(task.remote(order, self._ship(function), packed, *slots), options.num_returns)

    def _task(self, function: Function, options: TaskOptions) -> Any:
        streams = options.num_returns == STREAMING
        if not options.max_calls:
            return self._stream if streams else self._run
        key = (function.id, options.max_calls, streams)
        if key not in self._bounded:  # Ray counts the calls of each of its functions
            task = _bounded(function.id, _stream_task if streams else _run_task)
            self._bounded[key] = ray.remote(max_calls=options.max_calls)(task)
        return self._bounded[key]

    def _ship(self, function: Function) -> Any:
        """Return Ray's reference to a function's code, stored once for all its calls."""
        shipped = self._shipped.get(function.id)
        if shipped is None:
            shipped = self._shipped[function.id] = ray.put(_code(function))
        return shipped

    def _results(self, made: Any, num_returns: int) -> list[Any]:
        if num_returns == STREAMING:
            return [self.stream(made)]
        if num_returns == 0:
            return []
        return [wrapped(ref) for ref in (made if num_returns > 1 else [made])]

    # Actors -----------------------------------------------------------------------------------------------------

    def create_actor(
        self, cls: Function, arguments: Arguments, options: ActorOptions, methods: Mapping[str, MethodOptions]
    ) -> ActorId:
        """Have Ray start a host for the actor."""
        given = actor_arguments(options, cls.name)
        self._check_feasible(f"actor {cls.name}", options.demand, options.scheduling_strategy)
        packed, slots = self.pack_arguments(arguments)
        draft = ActorId.of(b"", None, cls.name, methods, options)
        names = options.name, options.namespace
        # The code itself, not a reference to it: Ray can restart an actor only as long as its arguments are there.
        code = _code(cls)
        try:
            handle = self._host(cls, code, options).options(**given).remote(draft, names, code, packed, *slots)
        except ValueError as error:
            if options.name is None:
                raise
            raise name_taken(options.name) from error
        actor = self._actor(handle, draft)
        if options.name is not None:
            self._board.publish.remote(_key(actor.id), cloudpickle.dumps(draft))
        return actor

    def _host(self, cls: Function, code: Code, options: ActorOptions) -> Any:
        """Return Ray's class for a user's: named after that, so that Ray's tools and `top` tell actors apart."""
        groups = dict(options.concurrency_groups)
        key = cls.id, tuple(groups.items())
        if key not in self._hosts:
            base = AsyncHost if is_async(self.unship(code)) else SyncHost  # type: ignore[arg-type]  # it is a class
            host = type(cls.name, (base,), {"join": staticmethod(RayEngine.in_worker)})
            self._hosts[key] = ray.remote(concurrency_groups=groups)(host) if groups else ray.remote(host)
        return self._hosts[key]

    @staticmethod
    def _actor(handle: Any, draft: ActorId) -> ActorId:
        actor_id = handle._actor_id.binary()
        return replace(draft, id=actor_id, lifetime=wrapped(handle, actor_id))

    def call(self, actor: ActorId, method: str, arguments: Arguments, options: MethodOptions) -> list[Any]:
        """Have the actor's host call the method."""
        self._classes[actor.id.hex()] = actor.class_name
        function = f"{actor.class_name}.{method}"
        retries = actor.max_task_retries if options.max_task_retries is None else options.max_task_retries
        order = Order(function, options.name or function, options.num_returns, options.retry, _attempts(retries))
        packed, slots = self.pack_arguments(arguments)
        handle = held(actor.lifetime)
        host_method = handle.stream if options.num_returns == STREAMING else handle.call
        call = host_method.options(**method_arguments(options, order.name, retries))
        try:
            made = call.remote(order, method, packed, *slots)
        except theirs.PendingCallsLimitExceeded as error:
            raise PendingCallsLimitExceeded(
                f"{function}: {actor.max_pending_calls} calls of this process to the actor have not been answered, and "
                "that is its max_pending_calls. Wait for some of them, or raise the limit"
            ) from error
        return self._results(made, options.num_returns)

    def kill(self, actor: ActorId, no_restart: bool) -> None:
        """Have Ray end an actor."""
        ray.kill(held(actor.lifetime), no_restart=no_restart)

    def find_actor(self, name: str, namespace: str | None) -> ActorId | None:
        """Return the living actor of that name."""
        try:
            handle = ray.get_actor(name, namespace)
            draft = self.lookup(_key(handle._actor_id.binary()))
            if draft is not None:
                return self._actor(handle, cloudpickle.loads(draft))
            return self._actor(handle, ray.get(handle.about.remote()))  # it is of another job
        except (ValueError, AttributeError, theirs.RayActorError):
            return None

    def actor_names(self) -> list[tuple[str, str]]:
        """Return the namespace and name of each actor that Ray knows by name, the boards left out."""
        rows = [(row["namespace"], row["name"]) for row in list_named_actors(all_namespaces=True)]
        return sorted(row for row in rows if not row[1].startswith(BOARD))

    # Placement --------------------------------------------------------------------------------------------------

    def _check_feasible(self, who: str, demand: Demand, strategy: SchedulingStrategy | None) -> None:
        """Raise InfeasibleError for what can never run; Ray itself would wait."""
        if isinstance(strategy, PlacementGroupSchedulingStrategy):
            lacks = missing_in_bundle(strategy, demand)
            if lacks:
                raise infeasible(who, lacks)
            return
        key = frozenset(demand.items())
        if key not in self._feasible:
            if self._refuses():
                most: Demand = {"CPU": 0}
                for node in _nodes():
                    most |= {name: max(units, most.get(name, 0)) for name, units in node.items()}
                check_feasible(who, demand, most)
            self._feasible.add(key)

    def _refuses(self) -> bool:
        """Return whether what no node has is refused."""
        if self._is_fixed is None:
            self._is_fixed = ray.get(self.board.is_fixed.remote())
        return bool(self._is_fixed)

    def create_group(
        self, bundles: list[Mapping[str, float]], strategy: str, name: str, detached: bool
    ) -> PlacementGroup:
        """Have Ray reserve the bundles."""
        if name and any(row["name"] == name and row["state"] != "REMOVED" for row in self.group_table()):
            raise InputError(f"a placement group named {name!r} exists. Use get_placement_group({name!r})")
        wanted = [in_units(bundle) for bundle in bundles]
        if self._refuses() and place(wanted, strategy, [Capacity(node) for node in _nodes()]) is None:
            raise infeasible(f"placement group {name or bundles}", f"{bundles} with strategy {strategy}")
        amounts = [{key: amount for key, amount in bundle.items() if amount} for bundle in bundles]
        made = placement_group(amounts, strategy, name, lifetime="detached" if detached else None)
        return PlacementGroup(made.id.binary(), tuple(bundles), name)

    def group_ready(self, group: PlacementGroup) -> ObjectRef:
        """Return a reference to the group that a task makes which runs in it."""
        task = ray.remote(echo).options(num_cpus=0, scheduling_strategy=TheirStrategy(their_group(group)))
        return wrapped(task.remote(self.pack(group)))

    def remove_group(self, group: PlacementGroup) -> None:
        """Have Ray give the bundles back."""
        remove_placement_group(their_group(group))

    def group_table(self) -> list[dict[str, Any]]:
        """Return a row for each placement group."""
        return [group_row(row) for row in placement_group_table().values()]

    def current_group(self) -> PlacementGroup | None:
        """Return the placement group that the caller runs in."""
        group = get_current_placement_group()
        return None if group is None else our_group(group)

    def gpu_ids(self) -> list[str]:
        """Return the GPUs that Ray has given to the caller."""
        return [] if self._started else [str(gpu) for gpu in ray.get_gpu_ids()]

    def cluster_resources(self) -> dict[str, float]:
        """Return what the cluster has."""
        return _asked_for(ray.cluster_resources())

    def available_resources(self) -> dict[str, float]:
        """Return what is free in the cluster."""
        return dict.fromkeys(self.cluster_resources(), 0.0) | _asked_for(ray.available_resources())

    def assigned_resources(self) -> dict[str, float]:
        """Return what the running task or actor holds."""
        return {} if running.get() is None else ray.get_runtime_context().get_assigned_resources()

    # Everything else --------------------------------------------------------------------------------------------

    @property
    def whereabouts(self) -> Whereabouts:
        """What this process is part of."""
        here = ray.get_runtime_context()
        return Whereabouts(here.get_job_id(), here.namespace, here.get_node_id(), here.get_worker_id())

    def host(self) -> Host | None:
        """Return the actor that this process is."""
        return self.hosted

    def publish(self, key: str, payload: bytes) -> None:
        """Have the board keep a named value; it is known everywhere when this returns."""
        ray.get(self.board.publish.remote(key, payload))

    def lookup(self, key: str) -> bytes | None:
        """Ask the board for a named value."""
        return ray.get(self.board.lookup.remote(key))

    def preload(self, modules: Sequence[str]) -> None:
        """Do nothing: Ray starts its workers by itself."""

    def state(self, sections: Sequence[str], limit: int) -> NoReturn:
        """Refuse: Ray keeps its own books."""
        raise InputError(
            "engine='ray': what runs is shown by Ray: its dashboard, `ray status`, `ray list tasks` (actors, objects, "
            "nodes …), `ray memory`, `ray timeline`, ray.nodes() and ray.util.metrics"
        )

    def note(self, event: Event) -> None:
        """Do nothing: stories and timelines are Ray's."""

    def shutdown(self) -> None:
        """Leave Ray, if it was entered here."""
        if self._started:
            ray.shutdown()

    def abandon(self) -> None:
        """Forget Ray, which belongs to the parent of this forked child."""
        self._started = False


def _code(function: Function) -> Code:
    return function.id, function.payload, {ref.id: held(ref) for ref in function.captured}


def _key(actor: bytes) -> str:
    return f"actor {actor.hex()}"


def _attempts(retries: int) -> int:
    return retries + 1


def _asked_for(resources: dict[str, float]) -> dict[str, float]:
    """Return the resources that can be asked for, without those that Ray has for itself."""
    return {n: amount for n, amount in resources.items() if not (n.startswith(_OF_RAY) or "_group_" in n)}


def _nodes() -> list[Demand]:
    return [in_units(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def _run_task(order: Order, code: Code, packed: Packed, *slots: Packed) -> Any:
    engine = RayEngine.in_worker()
    return Work(engine, order, lambda: engine.unship(code), packed, slots).run()


def _stream_task(order: Order, code: Code, packed: Packed, *slots: Packed) -> Iterator[Packed]:
    engine = RayEngine.in_worker()
    yield from Work(engine, order, lambda: engine.unship(code), packed, slots).stream()


def _bounded(key: bytes, task: Callable) -> Callable:
    """Return a function of its own for a user's: Ray knows functions by their pickles."""
    if task is _run_task:
        return lambda *args: (key, task(*args))[1]

    def stream(*args: Any) -> Iterator[Packed]:
        yield from (key, task(*args))[1]

    return stream
