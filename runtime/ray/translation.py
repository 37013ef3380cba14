"""What the runtime's own things are in Ray: references, streams, settings, options, placement groups, errors."""

from __future__ import annotations

import os
import re
import threading
import weakref
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import Any

import ray
from ray import exceptions as theirs
from ray.util import scheduling_strategies
from ray.util.placement_group import PlacementGroup as TheirGroup

from .. import exceptions
from ..core.engine import Arguments, current_engine
from ..core.generators import ObjectRefGenerator
from ..core.options import STREAMING, ActorOptions, MethodOptions, TaskOptions, given
from ..core.refs import ObjectRef, check_runtime, object_gone
from ..core.resources.amounts import HEAD, visible_gpus
from ..core.results import ACTOR_AGAIN
from ..core.scheduling import NodeAffinitySchedulingStrategy, PlacementGroup, PlacementGroupSchedulingStrategy
from ..core.settings import Settings
from ..core.values.packed_exceptions import explained, hints
from ..exceptions import InputError, TaskError

# What belongs to those who start a cluster, and is given only to a Ray of the program's own.
_OF_CLUSTER = {"num_cpus", "num_gpus", "memory", "resources", "object_store_memory", "object_spilling_directory"}
# Options that Ray is given otherwise, or that it does not know.
_ELSEWHERE = {"name", "runtime_env", "max_calls", "concurrency_groups", "checkpoint_every", "lineage"}
# Most errors have Ray's names.
_OTHERWISE = {
    "LocalRayletDiedError": "WorkerCrashedError",
    "OutOfDiskError": "ObjectStoreFullError",
    "TaskPlacementGroupRemoved": "PlacementGroupRemovedError",
    "TaskUnschedulableError": "PlacementGroupRemovedError",
}
# Why an actor is dead, in the runtime's words, by what Ray's have in them.
_DEATHS = {
    "creation task": "its constructor failed",
    "ray.kill": "it was killed by kill()",
    "exit_actor": "exit_actor() was called",
    "owner": "the process that created it is gone",
    "out of scope": "its last handle is gone",
    "placement group": "its placement group was removed",
}
# How long the last streams may take to be closed, seconds.
_CLOSING_SECONDS = 5
_TASKS = re.compile(r"ray::(.+?)\(\) \(pid=(\d+), ip=([^,)]+)")
_COLOURS = re.compile(r"\x1b\[\d+m")


# References -----------------------------------------------------------------------------------------------------------


class _Held:
    """What Ray counts, kept as long as our reference to it; stands where other engines have a callback."""

    def __init__(self, of: Any) -> None:
        self.of = of

    def __call__(self, object_id: bytes) -> None:
        """Do nothing: Ray sees the end of what is held."""


def held(ref: ObjectRef | None) -> Any:
    """Return Ray's reference, or handle of an actor, behind ours."""
    assert ref is not None  # detached actors have a lifetime here, too: Ray knows that it keeps nothing alive
    return ref._dropped.of  # type: ignore[attr-defined]


def wrapped(ref: Any, object_id: bytes | None = None) -> ObjectRef:
    """Return our reference to something of Ray's."""
    return ObjectRef(ref.binary() if object_id is None else object_id, _Held(ref))


def taken_apart(ref: ObjectRef) -> tuple[Any, bytes]:
    """Return what a reference travels as."""
    return held(check_runtime(ref)), ref.id


def put_together(parts: tuple[Any, bytes]) -> ObjectRef:
    """Return the reference that has travelled."""
    current_engine()  # whoever has a reference may send it on, which this process must have been told how to do
    return wrapped(*parts)


def serialize_as(cls: type, functions: tuple[Callable, Callable] | None) -> None:
    """Register with Ray how a class is serialised; None: as it would by itself."""
    if functions is None:
        ray.util.deregister_serializer(cls)
    else:
        ray.util.register_serializer(cls, serializer=functions[0], deserializer=functions[1])


def call(remote: Callable[..., Any], arguments: Arguments) -> Any:
    """Make a call of Ray's with our arguments."""

    def plain(argument: Any) -> Any:
        return held(check_runtime(argument)) if type(argument) is ObjectRef else argument

    args, kwargs = arguments
    return remote(*map(plain, args), **{key: plain(argument) for key, argument in kwargs.items()})


def results(made: Any, num_returns: int, closing: Closing) -> list[Any]:
    """Return our references, or our generator, for what a call of Ray's has returned."""
    if num_returns != STREAMING:
        return [wrapped(ref) for ref in ([made] if num_returns == 1 else made or ())]
    return [closing.stream(_Stream(made))]


def cancel(task: Any, completed: Any, force: bool, recursive: bool) -> None:
    """Cancel a task of Ray's, unless `completed`, a reference to its end, is there."""
    # Ray 2.60 aborts this process if a task is cancelled while Ray is still noting that it has ended.
    if ray.wait([completed], timeout=0, fetch_local=False)[0]:
        return
    try:
        ray.cancel(task, force=force, recursive=recursive)
    except ValueError as error:
        raise InputError(f"cancel: {str(error).rstrip('.')}. Use kill(actor) to end an actor") from error
    except TypeError:  # no task made it: it was put
        return


class _Stream:
    """The values of one of Ray's generators; its exception is the last of them. See `generators.Stream`."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator
        self._lock = threading.Lock()
        self._head: ObjectRef | None = None
        self._ended = False

    def head(self) -> ObjectRef | None:
        with self._lock:
            if self._head is None and not self._ended:
                self._head = wrapped(self._generator._get_next_ref_n(1)[0])
            return self._head

    def take(self, head: ObjectRef) -> bool:
        with self._lock:
            if head is not self._head:
                return False
            self._head = None
            if self._ended:  # it was the exception
                return True
            try:
                taken = next(self._generator)
            except StopIteration:
                self._ended = True
                return False
            if taken.binary() == head.id:
                return True
            self._head, self._ended = wrapped(taken), True
            return False

    def is_finished(self) -> bool:
        with self._lock:
            return self._head is None if self._ended else self._generator.is_finished()

    def completed(self) -> ObjectRef:
        return wrapped(self._generator.completed())

    def cancel(self, force: bool, recursive: bool) -> None:
        cancel(self._generator, self._generator.completed(), force, recursive)

    def close(self) -> None:
        with self._lock:
            ended, self._ended, self._head = self._ended, True, None
        if not ended:
            self.cancel(force=False, recursive=True)


class Closing:
    """A thread that closes one engine's streams once nobody has them any more.

    The last reference may go in any allocation, where a queue may be used, and Ray's lock may not.
    """

    def __init__(self) -> None:
        self._dropped: SimpleQueue[_Stream | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="shoal-streams", daemon=True)
        self._thread.start()

    def stream(self, values: _Stream) -> ObjectRefGenerator:
        """Return the generator of these values."""
        made: ObjectRefGenerator = ObjectRefGenerator(values)
        weakref.finalize(made, self._dropped.put, values).atexit = False
        return made

    def _run(self) -> None:
        while (dropped := self._dropped.get()) is not None:
            try:
                if ray.is_initialized():  # else the program has ended it itself
                    dropped.close()
            except (theirs.RayError, RuntimeError, ValueError):  # its job has ended meanwhile
                continue

    def end(self) -> None:
        """Close no more than those that are dropped by now; before Ray ends: asked later, it would begin once more."""
        self._dropped.put(None)
        self._thread.join(_CLOSING_SECONDS)


# Settings, options, placement -----------------------------------------------------------------------------------------


def init_arguments(settings: Settings) -> dict[str, Any]:
    """Return the arguments of `ray.init`; InputError for what is said to whoever starts a cluster."""
    said = {name: value for name, value in given(settings).items() if name in _OF_CLUSTER}
    address = settings.address or os.environ.get("SHOAL_ADDRESS") or os.environ.get("RAY_ADDRESS") or "local"
    if address != "local" and said:
        name, value = next(iter(said.items()))
        raise InputError(
            f"init({name}={value!r}) does not go with address={address!r}: what the cluster has is said where "
            "it is started, by `ray start`. Leave it out"
        )
    if address == "local":
        visible_gpus(settings.num_gpus)  # Ray's own check leaves processes behind
        said["include_dashboard"] = False
    if "memory" in said:
        said["_memory"] = said.pop("memory")
    if settings.runtime_env:
        said["runtime_env"] = dict(settings.runtime_env)
    return said | {"address": address, "log_to_driver": settings.log_to_driver, "namespace": settings.namespace}


def options(ours: TaskOptions | ActorOptions | MethodOptions, name: str) -> dict[str, Any]:
    """Return the arguments of `.options` of one of Ray's tasks, actors or methods, which are ours but for a few.

    Raises:
        InputError: an option that Ray has no counterpart of.
    """
    said = in_their_names(ours)
    # Where nothing is said, Ray means the same, but for these.
    if isinstance(ours, TaskOptions | ActorOptions):
        said["num_cpus"] = ours.num_cpus
    if isinstance(ours, TaskOptions | MethodOptions):
        said.setdefault("num_returns", 1)
    if isinstance(ours, MethodOptions):  # else what the method says itself
        said["retry_exceptions"] = ours.retry_exceptions
        said.setdefault("_generator_backpressure_num_objects", -1)
    if "scheduling_strategy" in said:
        said["scheduling_strategy"] = strategy(said["scheduling_strategy"])
    if not isinstance(ours, MethodOptions) and ours.runtime_env:
        for key in {"working_dir", "py_modules"} & set(ours.runtime_env):
            raise InputError(
                f"runtime_env: {key!r} of one task or actor is not supported on engine='ray', which copies local "
                "folders only for a whole job: give it to init(runtime_env=…)"
            )
        said["runtime_env"] = dict(ours.runtime_env)
    if not isinstance(ours, ActorOptions):
        return said | {"name": ours.name or name}
    if ours.checkpoint_every:
        raise InputError(
            f"{name}: __checkpoint__ and __restore__ need engine='native': Ray brings actors back without their "
            "state. Pass checkpoint_every=0, and save and load the state in the actor yourself"
        )
    return said | ({"name": ours.name} if ours.name else {})


def in_their_names(ours: TaskOptions | ActorOptions | MethodOptions) -> dict[str, Any]:
    """Return the options that say something else than the defaults, but for those that Ray is given otherwise."""
    said = {name: value for name, value in given(ours).items() if name not in _ELSEWHERE}
    if said.get("num_returns") == STREAMING:
        said["num_returns"] = "streaming"
    if "generator_backpressure" in said:
        said["_generator_backpressure_num_objects"] = said.pop("generator_backpressure")
    return said


def strategy(ours: Any) -> Any:
    """Return one of our scheduling strategies as Ray's."""
    if isinstance(ours, PlacementGroupSchedulingStrategy):
        return scheduling_strategies.PlacementGroupSchedulingStrategy(
            group(ours.placement_group),
            ours.placement_group_bundle_index,
            ours.placement_group_capture_child_tasks,
        )
    if isinstance(ours, NodeAffinitySchedulingStrategy):
        return scheduling_strategies.NodeAffinitySchedulingStrategy(ours.node_id, ours.soft)
    return ours


def group(ours: PlacementGroup) -> TheirGroup:
    """Return Ray's handle of a placement group."""
    return TheirGroup(ray.PlacementGroupID(ours.id), [dict(bundle) for bundle in ours.bundle_specs])


def asked_for(resources: Mapping[str, float]) -> dict[str, float]:
    """Return the resources that can be asked for, without those that Ray has for itself."""
    own = ("node:", "object_store_memory", "bundle")
    return {
        name: amount
        for name, amount in resources.items()
        if name == HEAD or (not name.startswith(own) and "_group_" not in name)
    }


# Errors ---------------------------------------------------------------------------------------------------------------


def error(raised: BaseException, object_id: bytes) -> BaseException:
    """Return what the other engines would raise where Ray has raised something for an object."""
    if not isinstance(raised, theirs.RayError):
        outlived = isinstance(raised, ValueError) and "owner is unknown" in str(raised)
        return object_gone(object_id) if outlived else raised
    text = _COLOURS.sub("", str(raised))
    if isinstance(raised, theirs.RayTaskError) and not isinstance(raised, theirs.TaskCancelledError):
        task, pid, node = [("a task", "?", "?"), *_TASKS.findall(text)][-1]  # the last one is where it began
        report = TaskError(task, text, f"node {node}, pid {pid}")
        could_travel = not isinstance(raised.cause, theirs.RayError)
        return explained(raised.cause, report, hints(raised.cause)) if could_travel else report
    if isinstance(raised, theirs.UnserializableException):
        return TaskError("a task", text, "on Ray")
    if isinstance(raised, theirs.RayActorError):
        return _of_actor(raised, text)
    for kind in type(raised).__mro__:
        name = _OTHERWISE.get(kind.__name__, kind.__name__)
        if hasattr(exceptions, name):
            return getattr(exceptions, name)(text)
    return exceptions.ShoalError(f"Ray: {text}")


def _of_actor(raised: theirs.RayActorError, text: str) -> exceptions.ShoalError:
    why = next((ours for part, ours in _DEATHS.items() if part in text.lower()), "its process has died")
    if isinstance(raised, theirs.ActorUnavailableError):
        return exceptions.ActorUnavailableError(f"the actor crashed during the call. Ray: {text}")
    if "placement group" in text.lower():
        return exceptions.PlacementGroupRemovedError(f"the actor is dead: {why}. Ray: {text}")
    error = exceptions.ActorDiedError(f"the actor is dead: {why}. {ACTOR_AGAIN}. Ray: {text}")
    error.actor_id = raised.actor_id
    return error
