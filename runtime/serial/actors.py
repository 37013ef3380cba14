"""Actors of the serial engine: objects of this process, called one at a time."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

from ..checkpoints import RESTORE
from ..engine import ActorId, ActorState, Arguments, Function, Running
from ..exceptions import ActorUnavailableError, DeadlockError, ShoalError
from ..failure import describe_here, not_made, pack_exception
from ..instances import method_of, shut_down
from ..options import ActorOptions, MethodOptions
from ..private_loop import PrivateLoop
from ..remote import load_function
from ..results import died, how_it_left, name_taken
from ..runtime_context import ActorExit, running
from ..runtime_env import RuntimeEnv
from ..signatures import is_async
from .calls import Attempts, within
from .log import SerialLog
from .records import Actor, Value
from .resources import SerialResources
from .tasks import SerialTasks


class SerialActors(SerialTasks):
    """All actors, and the names of the living ones."""

    def __init__(
        self, resources: SerialResources, namespace: str, runtime_env: RuntimeEnv | None, record_call_sites: bool
    ) -> None:
        super().__init__(resources, runtime_env, record_call_sites)
        self._namespace = namespace
        self._resources.on_removed = self._end_actors_of
        self._actors: dict[bytes, Actor] = {}
        self._lifetimes: dict[bytes, bytes] = {}
        self._names: dict[tuple[str, str], bytes] = {}

    def create_actor(
        self, cls: Function, arguments: Arguments, options: ActorOptions, methods: Mapping[str, MethodOptions]
    ) -> ActorId:
        """Construct the instance now; a failing constructor makes a dead actor, as on the other engines."""
        strategy = self._resources.place(f"actor {cls.name}", options.demand, options.scheduling_strategy)
        self._collect()
        namespace = options.namespace or self._namespace
        if options.name is not None and (namespace, options.name) in self._names:
            if options.get_if_exists:
                return self._handle_of(self._names[namespace, options.name])
            raise name_taken(options.name)
        packed, refs = self._pack_arguments(arguments)
        lifetime = None if options.detached else self._store(Value())
        info = ActorId.of(self._new_id(), lifetime, cls, methods, options)
        # The record must not hold the reference that keeps the actor alive.
        log = SerialLog(options.checkpoint_every or 0, self._pack, self._load, self._arguments)
        lifetime_id = None if lifetime is None else lifetime.id
        actor = Actor(cls, packed, refs, options, replace(info, lifetime=None), log, lifetime_id, namespace)
        actor.surroundings, actor.strategy = self._surroundings.of(options.runtime_env), strategy
        self._actors[info.id] = actor
        if lifetime is not None:
            self._lifetimes[lifetime.id] = info.id
        if options.name is not None:
            self._names[namespace, options.name] = info.id
        removal = self._resources.removal_of(strategy)
        if removal is None:
            self._construct(actor)
        else:
            self._end(actor, str(removal))
        return info

    def _gone(self, object_id: bytes) -> None:
        actor_id = self._lifetimes.pop(object_id, None)
        if actor_id is not None:
            self._end(self._actors[actor_id], "its last handle is gone", on_purpose=True)

    def _construct(self, actor: Actor) -> None:
        call, method = actor.call("__init__"), "__init__"

        def make() -> None:
            nonlocal method
            args, kwargs = self._arguments(actor.arguments, actor.argument_refs)
            cls: Any = load_function(actor.function.payload)
            actor.loop = PrivateLoop() if is_async(cls) else None
            actor.instance = cls(*args, **kwargs) if actor.loop is None else actor.loop.run(cls, args, kwargs)
            method = RESTORE
            actor.log.restore(actor.instance)

        try:
            within(partial(self._entered, call, actor.surroundings, actor.options.demand, actor.strategy), make)
        except SystemExit as request:
            self._end(actor, how_it_left(f"{actor.info.class_name}.{method}", request))
        except KeyboardInterrupt:  # the user's Ctrl-C
            raise
        except BaseException as error:  # a constructor's exception is the reason of the actor's death
            name = f"{actor.info.class_name}.{method}"
            actor.cause = pack_exception(error, name, describe_here("serial"))
            self._end(actor, not_made(method, actor.cause))

    def _end_actors_of(self, group: bytes) -> None:
        for actor in self._actors.values():
            removal = self._resources.removal_of(actor.strategy)
            if removal is not None and actor.death is None:
                self._end(actor, str(removal))

    def _end(self, actor: Actor, death: str, on_purpose: bool = False) -> None:
        instance, actor.instance = actor.instance, None
        actor.death, is_first = actor.death or death, actor.death is None
        if actor.options.name is not None and self._names.get((actor.namespace, actor.options.name)) == actor.info.id:
            del self._names[actor.namespace, actor.options.name]
        if actor.running is None:
            actor.close_loop()
        if is_first and on_purpose and instance is not None:
            _shut_down(instance)

    def call(self, actor: ActorId, method: str, arguments: Arguments, options: MethodOptions) -> list[Any]:
        """Run the method now; a generator when its values are asked for."""
        self._collect()
        record = self._actors[actor.id]
        call = record.call(method, self._new_id(), options.name)
        if record.death is not None:
            failure = died(call.function_name, actor, record.death, record.cause)
            return [self._store(Value(failure=failure)) for _ in range(max(options.num_returns, 1))]
        packed = self._pack_arguments(arguments)
        retries = actor.max_task_retries if options.max_task_retries is None else options.max_task_retries
        inside = partial(self._inside, record, call)
        attempts = Attempts(call, options, retries)
        options.check_checkpoints(call.function_name, actor.checkpointed)
        instance = record.instance
        made = self._run(lambda: method_of(record.instance, method), packed, attempts, inside, record.loop)
        if actor.checkpointed and record.instance is instance:
            with inside():
                record.log.ran(instance, method, *packed)
        return made

    @contextlib.contextmanager
    def _inside(self, record: Actor, call: Running) -> Iterator[None]:
        """Run one of an actor's methods, or a part of it."""
        if record.death is not None:
            raise died(call.function_name, record.info, record.death, record.cause)
        if record.running is not None:
            raise DeadlockError(
                f"{call.name} is called while {record.running} of the same actor runs. The serial engine runs a call "
                "at once, and an actor one call at a time: use engine='native' if the two need not wait for each other"
            )
        record.running = call.name
        try:
            with self._entered(call, record.surroundings, record.options.demand, record.strategy):
                yield
        finally:
            record.running = None
            if record.death is not None:
                record.close_loop()

    def exit_actor(self) -> NoReturn:
        """Leave the call; the actor ends with it, also if that catches this."""
        call = running.get()
        assert call is not None
        assert call.host is not None
        self._actors[call.host.actor.id].leaving = True
        raise ActorExit(0)

    def _check_left(self, call: Running) -> None:
        if call.host is not None and self._actors[call.host.actor.id].leaving:
            raise ActorExit(0)

    def _left(self, call: Running, request: SystemExit) -> ShoalError:
        """End the actor that a call has asked to end; a code that is not 0 counts as a crash."""
        if call.host is None:
            return super()._left(call, request)
        record = self._actors[call.host.actor.id]
        reason = how_it_left(call.name, request)
        if request.code in {None, 0} or not record.may_restart():
            self._end(record, reason, on_purpose=request.code in {None, 0})
            return died(call.function_name, record.info, reason, None)
        self._restart(record)
        return ActorUnavailableError(f"{call.function_name}: the actor ended before it answered: {reason}")

    def _restart(self, record: Actor) -> None:
        record.restarts += 1
        record.close_loop()
        self._construct(record)

    def kill(self, actor: ActorId, no_restart: bool) -> None:
        """Drop the instance, or construct it again if it may be restarted."""
        record = self._actors[actor.id]
        if record.death is not None:
            return
        if no_restart or not record.may_restart():
            self._end(record, "it was killed by kill()")
        else:
            self._restart(record)

    def actor_state(self, actor: ActorId) -> ActorState:
        """Return how an actor is; one that restarts is made again at once."""
        return "alive" if self._actors[actor.id].death is None else "dead"

    def find_actor(self, name: str, namespace: str | None) -> ActorId | None:
        """Return the living actor of that name."""
        self._collect()
        actor_id = self._names.get((namespace or self._namespace, name))
        return None if actor_id is None else self._actors[actor_id].info

    def _handle_of(self, actor_id: bytes) -> ActorId:
        record = self._actors[actor_id]
        return replace(record.info, lifetime=None if record.lifetime is None else self.adopt(record.lifetime))

    def actor_names(self) -> list[tuple[str, str]]:
        """Return all namespaces and names."""
        self._collect()
        return sorted(self._names)

    def _end_actors(self) -> None:
        for actor in self._actors.values():
            self._end(actor, "the runtime has ended", on_purpose=True)
        self._actors.clear()


def _shut_down(instance: Any) -> None:
    try:
        shut_down(instance)
    except KeyboardInterrupt:  # the user's Ctrl-C
        raise
    except BaseException:  # the actor ends, whatever it says
        traceback.print_exc()
