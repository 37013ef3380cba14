"""The serial engine: every task and actor runs in this process, at once, when `.remote()` is called.

For debugging (`pdb` works, one stack) and for tests. Values pass through the same serialisation as on the other
engines, so arguments are copies, results are read-only, and what could not be sent to a process fails here too.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

from . import serialization
from .engine import ActorId, Arguments, Function
from .exceptions import DeadlockError, InputError
from .failure import describe_here, pack_exception
from .generators import ObjectRefGenerator
from .metric_table import MetricTable
from .options import STREAMING, ActorOptions, MethodOptions, TaskOptions
from .refs import ObjectRef
from .remote import load_function
from .reports import NodeReport
from .resources import Demand, in_amounts, machine_resources, visible_gpus
from .results import died, split_returns
from .scheduling import PlacementGroup, SchedulingStrategy
from .serial_calls import Attempts, SerialStream
from .serial_log import SerialLog
from .serial_objects import SerialObjects
from .serial_records import Actor, Value
from .serial_reports import ME, report_serial
from .serial_resources import SerialResources
from .settings import Settings
from .store_settings import store_settings
from .story_events import ENDED, RECORD_CALL_SITES
from .surroundings import Surroundings


class SerialEngine(SerialObjects):
    """Runs everything eagerly in the calling thread; see `shoal.runtime.engine.Engine` for the methods."""

    name = "serial"
    address = token = ""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.record_call_sites or os.environ.get(RECORD_CALL_SITES) == "1")
        if settings.metrics_port is not None:
            raise InputError("metrics_port needs engine='native'; here util.metrics.scrape() returns the same text")
        self.metrics = MetricTable()
        # Checked only: objects are ordinary memory here.
        store_settings(settings.object_store_memory, settings.object_spilling_directory)
        self._surroundings = Surroundings(settings.runtime_env)
        if settings.infeasible == "wait":
            raise InputError("infeasible='wait' needs engine='native': here nothing waits, and no node is added")
        gpus = visible_gpus(settings.num_gpus)
        total = machine_resources(settings.num_cpus, gpus, settings.memory, settings.resources)
        self._resources = SerialResources(total, gpus)
        self._resources.on_removed = self._end_actors
        self.available_resources = self._resources.available
        self.create_group, self.remove_group = self._resources.create, self._resources.remove
        self.group_table, self.current_group = self._resources.table, self._resources.current
        self.gpu_ids = self._resources.gpu_ids
        self._actors: dict[bytes, Actor] = {}
        self._lifetimes: dict[bytes, bytes] = {}
        self._names: dict[str, bytes] = {}
        self._published: dict[str, bytes] = {}
        self._started = time.monotonic()
        self._executing: list[tuple[str, float]] = []

    def _gone(self, object_id: bytes) -> None:
        actor_id = self._lifetimes.pop(object_id, None)
        if actor_id is not None:
            self._bury(self._actors[actor_id], "its last handle is gone")

    # Tasks ------------------------------------------------------------------------------------------------------

    def submit(self, function: Function, arguments: Arguments, options: TaskOptions) -> list[Any]:
        """Run the function now; a generator when its values are asked for."""
        strategy = self._resources.place(f"task {function.name}", options.demand, options.scheduling_strategy)
        packed = self._pack_arguments(arguments)
        removal = self._resources.removal_of(strategy)
        if removal is not None:
            return [self._store(Value(failure=removal)) for _ in range(abs(options.num_returns))]
        within = partial(self._entered, self._surroundings.of(options.runtime_env), options.demand, strategy)
        attempts = Attempts(function.name, options, options.max_retries)
        return self._run(partial(load_function, function.payload), packed, attempts, within)

    def _pack_arguments(self, arguments: Arguments) -> tuple[Value, list[ObjectRef]]:
        args, kwargs, refs = serialization.take_out_refs(*arguments)
        return self._pack((args, kwargs), seal=False), refs

    def _arguments(self, packed: Value, refs: list[ObjectRef]) -> Arguments:
        args, kwargs = self._load(packed)
        return serialization.fill_slots(args, kwargs, self.get(refs, None)) if refs else (args, kwargs)

    def _run(
        self,
        find: Callable[[], Callable],
        arguments: tuple[Value, list[ObjectRef]],
        attempts: Attempts,
        within: Callable[[], AbstractContextManager],
    ) -> list[Any]:
        packed, refs = arguments
        name, num_returns = attempts.name, attempts.num_returns

        def call() -> Any:
            args, kwargs = self._arguments(packed, refs)
            return find()(*args, **kwargs)

        if num_returns == STREAMING:

            def fail(error: Exception) -> ObjectRef:
                return self._store(Value(failure=attempts.failure(error)))

            return [ObjectRefGenerator(SerialStream(self.put, fail, call, attempts, within))]
        for ref in refs:
            failure = self._values[ref.id].failure
            if failure is not None:  # an argument that failed fails the task, with the first exception
                return [self._store(Value(failure=failure)) for _ in range(max(num_returns, 1))]
        values: list[Value] | None = None
        started, error_type = time.monotonic(), ""
        with within():
            while values is None:
                self._executing.append((name, started))
                try:
                    values = [self._pack(value) for value in split_returns(name, call(), num_returns)]
                except Exception as error:  # a task's exception is a value
                    if not attempts.again(error):
                        values = [Value(failure=attempts.failure(error))] * num_returns
                        error_type = type(error).__name__
                finally:
                    self._executing.pop()
        returned = [self._store(replace(value)) for value in values]
        if returned:
            who = name.rpartition(".")[::2] if attempts.actor else ("", name)
            now = time.monotonic()
            detail = (*who, attempts.actor, ME, started, started, now - started, num_returns, error_type)
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
            with self._entered(actor.surroundings, actor.options.demand, actor.strategy):
                args, kwargs = self._arguments(actor.arguments, actor.argument_refs)
                actor.instance = load_function(actor.function.payload)(*args, **kwargs)
                actor.log.restore(actor.instance)
        except Exception as error:  # a constructor's exception is the reason of the actor's death
            actor.cause = pack_exception(error, f"{actor.function.name}.__init__", describe_here("serial"))
            self._bury(actor, "its constructor failed")

    @contextlib.contextmanager
    def _entered(self, surroundings: Any, demand: Demand, strategy: SchedulingStrategy | None) -> Iterator[None]:
        with self._surroundings.entered(surroundings), self._resources.entered(demand, strategy):
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

    def call(self, actor: ActorId, method: str, arguments: Arguments, options: MethodOptions) -> list[Any]:
        """Run the method now; a generator when its values are asked for."""
        self._collect()
        num_returns = options.num_returns
        record = self._actors[actor.id]
        name = f"{actor.class_name}.{method}"
        if record.death is not None:
            failure = died(name, actor, record.death, record.cause)
            return [self._store(Value(failure=failure)) for _ in range(max(num_returns, 1))]
        packed = self._pack_arguments(arguments)
        retries = actor.max_task_retries if options.max_task_retries is None else options.max_task_retries
        within = partial(self._inside, record, name)
        attempts = Attempts(name, options, retries, actor.id)
        options.check_checkpoints(name, actor.checkpointed)
        made = self._run(lambda: getattr(record.instance, method), packed, attempts, within)
        if actor.checkpointed:
            with within():
                record.log.ran(record.instance, method, *packed)
        return made

    @contextlib.contextmanager
    def _inside(self, record: Actor, name: str) -> Iterator[None]:
        """Run one of an actor's methods, or a part of it."""
        if record.death is not None:
            raise died(name, record.info, record.death, record.cause)
        if record.running is not None:
            raise DeadlockError(
                f"{name} is called while {record.running} of the same actor runs. The serial engine runs a call at "
                "once, and an actor one call at a time: use engine='native' if the two need not wait for each other"
            )
        record.running = name
        try:
            with self._entered(record.surroundings, record.options.demand, record.strategy):
                yield
        finally:
            record.running = None

    def cancel(self, ref: ObjectRef, force: bool, recursive: bool) -> None:
        """Do nothing: the task has ended."""

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
            metrics=self.metrics.report(),
        )

    def shutdown(self) -> None:
        """Drop all objects and actors."""
        self._actors.clear()
        self._values.clear()

    def abandon(self) -> None:
        """Do nothing: a forked child's copy is its own."""
