"""The serial engine: every task and actor runs in this process, at once, when `.remote()` is called.

For debugging (`pdb` works, one stack) and for tests. Values pass through the same serialisation as on the other
engines, so arguments are copies, results are read-only, and what could not be sent to a process fails here too.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import serialization
from .engine import ActorId, Arguments, Function
from .exceptions import DeadlockError, InputError, ObjectLostError
from .failure import describe_here, pack_exception, unpack_exception
from .options import ActorOptions, MethodOptions, TaskOptions
from .refs import ObjectRef
from .remote import load_function
from .reports import EVENTS_KEPT, Event, NodeReport
from .resources import in_amounts, machine_resources, visible_gpus
from .results import died, split_returns
from .runtime_env import RuntimeEnv
from .scheduling import PlacementGroup
from .serial_log import SerialLog
from .serial_records import Actor, Value, size_of
from .serial_reports import ME, report_serial
from .serial_resources import SerialResources
from .story_events import ENDED, FREED, PUT, RECORD_CALL_SITES, call_site
from .surroundings import Surroundings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike


class SerialEngine:
    """Runs everything eagerly in the calling thread; see `shoal.runtime.engine.Engine` for the methods."""

    name = "serial"

    def __init__(
        self,
        *,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        memory: float | None = None,
        infeasible: str = "raise",
        resources: dict[str, float] | None = None,
        preload: Sequence[str] | None = None,
        log_to_driver: bool = True,
        log_directory: str | None = None,
        runtime_env: RuntimeEnv | None = None,
        max_lineage_bytes: int = 1 << 30,
        record_call_sites: bool = False,
    ) -> None:
        record_call_sites = record_call_sites or os.environ.get(RECORD_CALL_SITES) == "1"
        self._sites: dict[bytes, str] | None = {} if record_call_sites else None
        self._surroundings = Surroundings(runtime_env)
        if infeasible == "wait":
            raise InputError("infeasible='wait' needs engine='native': here nothing waits, and no node is added")
        gpus = visible_gpus(num_gpus)
        self._resources = SerialResources(machine_resources(num_cpus, gpus, memory, resources or {}), gpus)
        self._resources.on_removed = self._end_actors
        self.available_resources = self._resources.available
        self.create_group, self.remove_group = self._resources.create, self._resources.remove
        self.group_table, self.current_group = self._resources.table, self._resources.current
        self.gpu_ids = self._resources.gpu_ids
        self._values: dict[bytes, Value] = {}
        self._actors: dict[bytes, Actor] = {}
        self._lifetimes: dict[bytes, bytes] = {}
        self._names: dict[str, bytes] = {}
        self._published: dict[str, bytes] = {}
        self._unsealed: dict[int, weakref.ref[np.ndarray]] = {}
        self._dropped: deque[bytes] = deque()
        self._ids = itertools.count(1)
        self._pinned: set[ObjectRef] = set()
        self._started = time.monotonic()
        self._executing: list[tuple[str, float]] = []
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self.note = self._events.append

    # Objects ----------------------------------------------------------------------------------------------------

    def adopt(self, object_id: bytes) -> ObjectRef:
        """Return one more reference to an object."""
        self._values.setdefault(object_id, Value(failure=ObjectLostError("the object is gone"))).count += 1
        return ObjectRef(object_id, self._dropped.append)

    def borrow(self, object_id: bytes) -> ObjectRef:
        """Return one more reference to an object."""
        return self.adopt(object_id)

    def pin(self, ref: ObjectRef) -> None:
        """Keep a reference until the end."""
        self._pinned.add(ref)

    def _new_id(self) -> bytes:
        return next(self._ids).to_bytes(16, "big")

    def _store(self, value: Value) -> ObjectRef:
        self._collect()
        object_id = self._new_id()
        self._values[object_id] = value
        if self._sites is not None:
            self._sites[object_id] = call_site()
        return self.adopt(object_id)

    def _collect(self) -> None:
        """Forget objects, and end actors, whose last reference is gone."""
        while self._dropped:
            object_id = self._dropped.popleft()
            value = self._values[object_id]
            value.count -= 1
            if value.count == 0:
                del self._values[object_id]
                if self._sites is not None:
                    self._sites.pop(object_id, None)
                self.note((time.monotonic(), FREED, object_id, None))
                actor_id = self._lifetimes.pop(object_id, None)
                if actor_id is not None:
                    self._bury(self._actors[actor_id], "its last handle is gone")

    def _pack(self, value: Any, seal: bool = True) -> Value:
        stream, buffers, inner = serialization.dumps(value)
        return Value(stream, [self._keep(memoryview(buffer.raw()), seal) for buffer in buffers], inner)

    def _keep(self, view: memoryview, seal: bool) -> Any:
        """Return a read-only buffer with these contents: the array itself if it came from `empty`, else a copy."""
        found = self._unsealed.get(serialization.address_of(view)) if seal and self._unsealed else None
        array = None if found is None else found()
        if array is None or array.nbytes != view.nbytes:
            return bytes(view)
        del self._unsealed[serialization.address_of(view)]
        array.flags.writeable = False
        return memoryview(array.reshape(-1).view("uint8"))  # type: ignore[arg-type]  # numpy 1 does not say so

    def _load(self, value: Value, copy: bool = False) -> Any:
        if value.failure is not None:
            raise unpack_exception(value.failure) if isinstance(value.failure, bytes) else value.failure
        return serialization.loads(value.stream, map(bytearray, value.buffers) if copy else value.buffers)

    def put(self, value: Any) -> ObjectRef:
        """Store a value."""
        packed = self._pack(value)
        ref = self._store(packed)
        self.note((time.monotonic(), PUT, ref.id, size_of(packed)))
        return ref

    def get(self, refs: Sequence[ObjectRef], timeout: float | None, copy: bool = False) -> list[Any]:
        """Return the values; here they are always there."""
        self._collect()
        return [self._load(self._values[ref.id], copy) for ref in refs]

    def wait(
        self, refs: Sequence[ObjectRef], num_returns: int, timeout: float | None
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        """Return the first `num_returns` as ready."""
        self._collect()
        return list(refs[:num_returns]), list(refs[num_returns:])

    def future(self, ref: ObjectRef) -> Future:
        """Return a finished future."""
        future: Future = Future()
        try:
            future.set_result(self.get([ref], None)[0])
        except BaseException as error:  # whatever the task raised belongs to whoever asks the future
            future.set_exception(error)
        return future

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """Return an array that `_keep` will recognise."""
        import numpy as np

        array = np.empty(shape, dtype)
        if array.nbytes and not array.dtype.hasobject:
            address = array.__array_interface__["data"][0]
            self._unsealed[address] = weakref.ref(array, lambda _: self._unsealed.pop(address, None))
        return array

    # Tasks ------------------------------------------------------------------------------------------------------

    def submit(self, function: Function, arguments: Arguments, options: TaskOptions) -> list[ObjectRef]:
        """Run the function now."""
        strategy = self._resources.place(f"task {function.name}", options.demand, options.scheduling_strategy)
        packed, refs = self._pack_arguments(arguments)
        removal = self._resources.removal_of(strategy)
        if removal is not None:
            return [self._store(Value(failure=removal)) for _ in range(options.num_returns)]
        surroundings = self._surroundings.of(options.runtime_env)
        with self._surroundings.entered(surroundings), self._resources.entered(options.demand, strategy):
            return self._run(function.name, lambda: load_function(function.payload), packed, refs, options.num_returns)

    def _pack_arguments(self, arguments: Arguments) -> tuple[Value, list[ObjectRef]]:
        args, kwargs, refs = serialization.take_out_refs(*arguments)
        return self._pack((args, kwargs), seal=False), refs

    def _arguments(self, packed: Value, refs: list[ObjectRef]) -> Arguments:
        args, kwargs = self._load(packed)
        return serialization.fill_slots(args, kwargs, self.get(refs, None)) if refs else (args, kwargs)

    def _run(  # noqa: PLR0917
        self, name: str, find: Any, packed: Value, refs: list[ObjectRef], num_returns: int, actor: bytes = b""
    ) -> list[ObjectRef]:
        for ref in refs:
            failure = self._values[ref.id].failure
            if failure is not None:  # an argument that failed fails the task, with the first exception
                return [self._store(Value(failure=failure)) for _ in range(max(num_returns, 1))]
        started, error_type = time.monotonic(), ""
        self._executing.append((name, started))
        try:
            args, kwargs = self._arguments(packed, refs)
            result = find()(*args, **kwargs)
            values = [self._pack(value) for value in split_returns(name, result, num_returns)]
        except Exception as error:  # a task's exception is a value
            payload = pack_exception(error, name, describe_here("serial"))
            values = [Value(failure=payload) for _ in range(num_returns)]
            error_type = type(error).__name__
        finally:
            self._executing.pop()
        returned = [self._store(value) for value in values]
        if returned:
            who = name.rpartition(".")[::2] if actor else ("", name)
            now = time.monotonic()
            detail = (*who, actor, ME, started, started, now - started, num_returns, error_type)
            self.note((now, ENDED, returned[0].id, detail))
        return returned

    # Actors -----------------------------------------------------------------------------------------------------

    def create_actor(
        self, cls: Function, arguments: Arguments, options: ActorOptions, methods: Mapping[str, MethodOptions]
    ) -> ActorId:
        """Construct the instance now; a failing constructor makes a dead actor, as on the other engines."""
        strategy = self._resources.place(f"actor {cls.name}", options.demand, options.scheduling_strategy)
        self._collect()
        if options.name is not None and options.name in self._names:
            raise InputError(
                f"an actor named {options.name!r} is alive. Use get_actor({options.name!r}) or another name"
            )
        packed, refs = self._pack_arguments(arguments)
        lifetime = self._store(Value())
        info = ActorId.of(self._new_id(), lifetime, cls.name, methods, options)
        # The record must not hold the reference that keeps the actor alive.
        log = SerialLog(options.checkpoint_every or 0, self._pack, self._load, self._arguments)
        actor = Actor(cls, packed, refs, options, replace(info, lifetime=None), log)
        actor.surroundings, actor.strategy = self._surroundings.of(options.runtime_env), strategy
        self._actors[info.id] = actor
        self._lifetimes[lifetime.id] = info.id
        if options.name is not None:
            self._names[options.name] = info.id
        removal = self._resources.removal_of(strategy)
        if removal is None:
            self._construct(actor)
        else:
            self._bury(actor, str(removal))
        return info

    def _construct(self, actor: Actor) -> None:
        try:
            with self._entered(actor):
                args, kwargs = self._arguments(actor.arguments, actor.argument_refs)
                actor.instance = load_function(actor.function.payload)(*args, **kwargs)
                actor.log.restore(actor.instance)
        except Exception as error:  # a constructor's exception is the reason of the actor's death
            actor.cause = pack_exception(error, f"{actor.function.name}.__init__", describe_here("serial"))
            self._bury(actor, "its constructor failed")

    @contextlib.contextmanager
    def _entered(self, actor: Actor) -> Iterator[None]:
        entered = self._resources.entered(actor.options.demand, actor.strategy)
        with self._surroundings.entered(actor.surroundings), entered:
            yield

    def _end_actors(self, group: bytes) -> None:
        for actor in self._actors.values():
            removal = self._resources.removal_of(actor.strategy)
            if removal is not None and actor.death is None:
                self._bury(actor, str(removal))

    def _bury(self, actor: Actor, death: str) -> None:
        actor.instance, actor.death = None, actor.death or death
        if actor.options.name is not None:
            self._names.pop(actor.options.name, None)

    def call(self, actor: ActorId, method: str, arguments: Arguments, options: MethodOptions) -> list[ObjectRef]:
        """Run the method now."""
        self._collect()
        num_returns = options.num_returns
        record = self._actors[actor.id]
        name = f"{actor.class_name}.{method}"
        if record.death is not None:
            failure = died(name, actor, record.death, record.cause)
            return [self._store(Value(failure=failure)) for _ in range(max(num_returns, 1))]
        if record.running is not None:
            raise DeadlockError(
                f"{name} is called while {record.running} of the same actor runs. The serial engine runs a call at "
                "once, and an actor one call at a time: use engine='native' if the two need not wait for each other"
            )
        packed, refs = self._pack_arguments(arguments)
        record.running = name
        try:
            with self._entered(record):
                made = self._run(name, lambda: getattr(record.instance, method), packed, refs, num_returns, actor.id)
                record.log.ran(record.instance, method, packed, refs)
            return made
        finally:
            record.running = None

    def kill(self, actor: ActorId, no_restart: bool) -> None:
        """Drop the instance, or construct it again if it may be restarted."""
        record = self._actors[actor.id]
        if record.death is not None:
            return
        allowed = record.options.max_restarts
        if no_restart or (allowed != -1 and record.restarts >= allowed):
            self._bury(record, "it was killed by kill()")
        else:
            record.restarts += 1
            self._construct(record)

    def find_actor(self, name: str) -> ActorId | None:
        """Return the living actor of that name."""
        self._collect()
        actor_id = self._names.get(name)
        if actor_id is None:
            return None
        lifetime = next(ref for ref, actor in self._lifetimes.items() if actor == actor_id)
        record = self._actors[actor_id]
        return replace(record.info, lifetime=self.adopt(lifetime))

    # Everything else --------------------------------------------------------------------------------------------

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
        )

    def shutdown(self) -> None:
        """Drop all objects and actors."""
        self._actors.clear()
        self._values.clear()

    def abandon(self) -> None:
        """Do nothing: a forked child's copy is its own."""
