"""Actors of the serial engine: objects of this process, called one at a time.

When one is made, restarted and dead is decided by the same table of actors as on the native engine
(`core/actors/table.py`); what there is a process is here an instance.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

from ..core.actors.checkpoints import CHECKPOINT, RESTORE
from ..core.actors.instances import method_of, shut_down
from ..core.actors.log import ActorLog
from ..core.actors.table import Actor, ActorTable, AskResources, Command, EndProcess
from ..core.engine import ActorId, ActorState, Arguments, CallsActors, Function, Host, MakesActors, Running, running
from ..core.options import ActorOptions, MethodOptions
from ..core.private_loop import PrivateLoop
from ..core.refs import ObjectRef
from ..core.reports import rows
from ..core.resources.amounts import in_amounts
from ..core.results import ActorExit, died, how_it_left, name_taken
from ..core.scheduling import SchedulingStrategy
from ..core.signatures import is_async
from ..core.telling import tell_exception
from ..core.values.functions import load_function
from ..core.values.packed_exceptions import describe_here, not_made, pack_exception
from ..exceptions import ActorUnavailableError, DeadlockError, ShoalError
from .calls import SerialCall, within
from .objects import ME, SerialObjects, Value
from .resources import SerialResources
from .surroundings import Surroundings
from .tasks import SerialTasks

Packed = tuple[Value, list[ObjectRef]]


@dataclass
class Instance:
    """An actor and, while it lives, its instance. Its arguments are kept serialised: a restart begins with these."""

    function: Function
    arguments: Packed
    options: ActorOptions
    info: ActorId
    lifetime: bytes | None
    namespace: str
    surroundings: dict[str, Any]
    strategy: SchedulingStrategy | None
    log: ActorLog[tuple[str, Packed], Value]
    actor: Actor[None]
    value: Any = None
    loop: PrivateLoop | None = None
    running: str | None = None
    leaving: bool = False

    def code(self, method: str, task_id: bytes | None = None, name: str | None = None) -> Running:
        """Return a call of this actor as the code inside it is to see it."""
        host = Host(self.info, self.options.name, self.namespace, self.actor.restarts)
        function_name = f"{self.info.class_name}.{method}"
        return Running(task_id, name or function_name, function_name, host)

    def died(self, call: Running) -> ShoalError | None:
        """Return the error of a call if the actor is dead."""
        if self.actor.state != "dead":
            return None
        return died(call.function_name, self.info, self.actor.reason, self.actor.failure)

    def method(self, name: str, call: Running) -> Callable:
        """Return a method of the instance; the error of its call where there is none just now: its constructor calls,
        or another thread while this one is killed."""
        value = self.value
        if value is None:
            being_made = f"{call.function_name}: the actor is being made; it answers once its constructor has returned"
            raise self.died(call) or ActorUnavailableError(being_made)
        return method_of(value, name)

    def close_loop(self) -> None:
        """End its event loop, if it has one."""
        if self.loop is not None:
            self.loop.close()
            self.loop = None


class SerialActors(MakesActors, CallsActors):
    """All actors, and the names of the living ones.

    Args:
        namespace: where names are looked for that are given without one.
    """

    def __init__(
        self,
        objects: SerialObjects,
        tasks: SerialTasks,
        resources: SerialResources,
        surroundings: Surroundings,
        namespace: str,
    ) -> None:
        self._objects, self._tasks = objects, tasks
        self._resources, self._surroundings, self._namespace = resources, surroundings, namespace
        self._table: ActorTable[None] = ActorTable()
        self._instances: dict[bytes, Instance] = {}

    def create(
        self, cls: Function, arguments: Arguments, options: ActorOptions, methods: Mapping[str, MethodOptions]
    ) -> ActorId:
        """Construct the instance now; a failing constructor makes a dead actor, as on the other engines."""
        objects = self._objects
        strategy = self._resources.place(f"actor {cls.name}", options.demand, options.scheduling_strategy)
        objects.collect()
        namespace = options.namespace or self._namespace
        taken = None if options.name is None else self._table.find(namespace, options.name)
        if taken is not None:
            if not options.get_if_exists:
                raise name_taken(str(options.name))
            found = self._instances[taken]
            return replace(found.info, lifetime=None if found.lifetime is None else objects.adopt(found.lifetime))
        packed, key = objects.pack_arguments(arguments), objects.new_id()
        # The last reference to this object is the last handle.
        lifetime = None if options.detached else objects.store(Value(when_freed=partial(self._released, key)))
        info = ActorId.of(key, lifetime, cls, methods, options)
        actor = Actor(key, ME, cls.name, options.max_restarts, None)
        self._instances[key] = Instance(
            cls,
            packed,
            options,
            replace(info, lifetime=None),  # it must not keep itself alive
            None if lifetime is None else lifetime.id,
            namespace,
            self._surroundings.of(options.runtime_env),
            strategy,
            ActorLog(),
            actor,
        )
        if options.name is not None:
            self._table.reserve(namespace, options.name, actor, key)
        removal = self._resources.removal_of(strategy)
        self._do(self._table.create(actor, ready=removal is None))
        if removal is not None:
            self._do(self._table.end(key, str(removal)))
        return info

    # What the table decides -------------------------------------------------------------------------------------

    def _do(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, AskResources):
                self._construct(self._instances[command.actor.key])
            elif isinstance(command, EndProcess):
                self._end_process(self._instances[command.process], "", command.gracefully)

    def _end_process(self, instance: Instance, reason: str, gracefully: bool) -> None:
        """Drop the instance, as the end of its process would."""
        value, instance.value = instance.value, None
        if instance.running is None:
            instance.close_loop()
        self._do(self._table.process_died(instance.info.id, reason))
        if gracefully and value is not None:
            _shut_down(value)

    def _released(self, key: bytes) -> None:
        self._do(self._table.released(key))

    def _construct(self, instance: Instance) -> None:
        key = instance.info.id
        self._table.granted(key, key)  # the name of its process, of which there is one at a time
        method = "__init__"

        def make() -> Any:
            nonlocal method
            args, kwargs = self._objects.load_arguments(*instance.arguments)
            cls: Any = load_function(instance.function.payload)
            instance.loop = PrivateLoop() if is_async(cls) else None
            value = cls(*args, **kwargs) if instance.loop is None else instance.loop.run(cls, args, kwargs)
            method = RESTORE
            self._restore(instance, value)
            return value

        entered = partial(self._entered, instance, instance.code("__init__"))
        try:
            value = within(entered, make)
        except SystemExit as request:
            self._do(self._table.end(key, how_it_left(f"{instance.info.class_name}.{method}", request)))
        except KeyboardInterrupt:  # the user's Ctrl-C
            raise
        except BaseException as error:  # a constructor's exception is the reason of the actor's death
            cause = pack_exception(error, f"{instance.info.class_name}.{method}", describe_here("serial"))
            self._do(self._table.constructed(key, cause, not_made(method, cause)))
        else:
            instance.value = value
            self._do(self._table.constructed(key, None))

    def _restore(self, instance: Instance, value: Any) -> None:
        """Bring a fresh instance to where the last one was; raises what its `__restore__` raises."""
        log = instance.log
        if log.state is not None:
            getattr(value, RESTORE)(self._objects.load(log.state))
        for entry in log.entries:
            method, packed = entry.call
            try:
                args, kwargs = self._objects.load_arguments(*packed)
                getattr(value, method)(*args, **kwargs)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException:  # noqa: S110  # it was raised in the caller when the call ran first
                pass

    def end_removed(self) -> None:
        """End the actors whose placement group is removed."""
        for instance in self._instances.values():
            removal = self._resources.removal_of(instance.strategy)
            if removal is not None:
                self._do(self._table.end(instance.info.id, str(removal)))

    def kill(self, actor: ActorId, no_restart: bool) -> None:
        """Drop the instance, or construct it again if it may be restarted."""
        if no_restart:
            self._do(self._table.kill(actor.id, no_restart))
        elif self._instances[actor.id].actor.state != "dead":
            self._end_process(self._instances[actor.id], "it was killed by kill()", gracefully=False)

    # Calls ------------------------------------------------------------------------------------------------------

    def call(self, actor: ActorId, method: str, arguments: Arguments, options: MethodOptions) -> list[Any]:
        """Run the method now; a generator when its values are asked for."""
        self._objects.collect()
        instance = self._instances[actor.id]
        code = instance.code(method, self._objects.new_id(), options.name)
        dead = instance.died(code)
        if dead is not None:
            return self._tasks.failed(dead, max(options.num_returns, 1))
        packed = self._objects.pack_arguments(arguments)
        retries = actor.max_task_retries if options.max_task_retries is None else options.max_task_retries
        options.check_checkpoints(code.function_name, actor.checkpointed)
        call = MethodCall(self, instance, code, options, retries)
        value = instance.value
        made = self._tasks.run(call, lambda: instance.method(method, code), packed)
        if actor.checkpointed and instance.value is value is not None:
            with call.within():
                self._log(instance, method, packed)
        return made

    @contextlib.contextmanager
    def inside(self, instance: Instance, code: Running) -> Iterator[None]:
        """Run one of an actor's methods, or a part of it."""
        dead = instance.died(code)
        if dead is not None:
            raise dead
        if instance.running is not None:
            raise DeadlockError(
                f"{code.name} is called while {instance.running} of the same actor runs. The serial engine runs a call "
                "at once, and an actor one call at a time: use engine='native' if the two need not wait for each other"
            )
        instance.running = code.name
        try:
            with self._entered(instance, code):
                yield
        finally:
            instance.running = None
            if instance.actor.state == "dead":
                instance.close_loop()

    def _entered(self, instance: Instance, code: Running) -> contextlib.AbstractContextManager[None]:
        return self._tasks.entered(code, instance.surroundings, instance.options.demand, instance.strategy)

    def _log(self, instance: Instance, method: str, packed: Packed) -> None:
        """A call has run: note it, and take a checkpoint if it is time."""
        log = instance.log
        log.ran(b"", (method, packed), in_doubt=False)
        if len(log.entries) < (instance.options.checkpoint_every or 0):
            return
        try:
            state = self._objects.pack(getattr(instance.value, CHECKPOINT)())
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:  # of the user's method, or of pickling; the log goes on, so nothing is lost yet
            tell_exception(f"{CHECKPOINT} failed; it is called again after the next call\n")
        else:
            log.checkpointed(state)

    def exit_actor(self) -> NoReturn:
        """Leave the call; the actor ends with it, also if that catches this."""
        code = running.get()
        assert code is not None
        assert code.host is not None
        self._instances[code.host.actor.id].leaving = True
        raise ActorExit(0)

    def left(self, instance: Instance, code: Running, request: SystemExit) -> ShoalError:
        """End the actor that a call has asked to end; a code that is not 0 counts as a crash."""
        reason, restarts = how_it_left(code.name, request), instance.actor.restarts
        on_purpose = request.code in {None, 0}
        if on_purpose:
            self._table.exiting(instance.info.id, reason)
        self._end_process(instance, reason, on_purpose)
        if instance.actor.restarts > restarts:
            return ActorUnavailableError(f"{code.function_name}: the actor ended before it answered: {reason}")
        dead = instance.died(code)
        assert dead is not None
        return dead

    # Questions --------------------------------------------------------------------------------------------------

    def state(self, actor: ActorId) -> ActorState:
        """Return how an actor is; one that restarts is made again at once."""
        return "dead" if self._instances[actor.id].actor.state == "dead" else "alive"

    def find(self, name: str, namespace: str | None) -> ActorId | None:
        self._objects.collect()
        key = self._table.find(namespace or self._namespace, name)
        return None if key is None else self._instances[key].info

    def names(self) -> list[tuple[str, str]]:
        self._objects.collect()
        return self._table.named()

    def report(self) -> list[rows.ActorState]:
        """Return a row for each actor."""
        return [
            rows.ActorState(
                actor_id=instance.info.id.hex(),
                class_name=instance.info.class_name,
                state="DEAD" if instance.actor.state == "dead" else "ALIVE",
                name=instance.options.name or "",
                reason=instance.actor.reason,
                node_id=ME.hex()[: rows.NODE_DIGITS],
                worker_id=ME.hex(),
                owner_id=ME.hex(),
                num_restarts=instance.actor.restarts,
                max_restarts=instance.options.max_restarts,
                required_resources=in_amounts(instance.options.demand),
            )
            for instance in self._instances.values()
        ]

    def end_all(self) -> None:
        """End all actors: the runtime ends."""
        for instance in list(self._instances.values()):
            self._table.exiting(instance.info.id, "the runtime has ended")
            self._end_process(instance, "", gracefully=True)
        self._instances.clear()


class MethodCall(SerialCall):
    """A call of an actor, which may end that."""

    def __init__(
        self, actors: SerialActors, instance: Instance, code: Running, options: MethodOptions, retries: int
    ) -> None:
        within = partial(actors.inside, instance, code)
        super().__init__(code, options, retries=retries, within=within, loop=instance.loop)
        self._actors, self._instance = actors, instance

    def check_left(self) -> None:
        if self._instance.leaving:
            raise ActorExit(0)

    def left(self, request: SystemExit) -> ShoalError:
        """End the actor."""
        return self._actors.left(self._instance, self.running, request)


def _shut_down(instance: Any) -> None:
    try:
        shut_down(instance)
    except KeyboardInterrupt:  # the user's Ctrl-C
        raise
    except BaseException:  # the actor ends, whatever it says
        tell_exception()
