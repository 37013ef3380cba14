"""What the runtime's settings, options and placement groups are in Ray, and what Ray's errors are here."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import ray
from ray import exceptions as theirs
from ray.util import scheduling_strategies
from ray.util.placement_group import PlacementGroup as TheirGroup

from .. import exceptions
from ..exceptions import InputError, TaskError
from ..failure import hints
from ..options import STREAMING, ActorOptions, MethodOptions, TaskOptions
from ..resources import visible_gpus
from ..results import object_gone
from ..scheduling import NodeAffinitySchedulingStrategy, PlacementGroup, PlacementGroupSchedulingStrategy
from ..settings import Settings

# What `init` knows and Ray is told elsewhere. (`max_lineage_bytes` is no promise but a limit; Ray has its own.)
_INSTEAD = {
    "log_directory": "Ray keeps its logs under its own folder: set RAY_TMPDIR, or `ray start --temp-dir`",
    "memory_usage_threshold": "set RAY_memory_usage_threshold where Ray is started",
    "record_call_sites": "set RAY_record_ref_creation_sites=1 and use `ray memory`",
    "metrics_port": "Ray serves its metrics itself: `ray start --metrics-export-port`",
}
# What belongs to those who start a cluster.
_OF_CLUSTER = ("num_cpus", "num_gpus", "memory", "resources", "object_store_memory", "object_spilling_directory")
# Our names of options that Ray calls otherwise.
_RENAMED = {"generator_backpressure": "_generator_backpressure_num_objects"}
# Options that are given otherwise, or that Ray does not know.
_ELSEWHERE = {"name", "runtime_env", "max_calls", "concurrency_groups", "checkpoint_every"}
# Most errors have Ray's names.
_OTHERWISE = {
    "LocalRayletDiedError": "WorkerCrashedError",
    "OutOfDiskError": "ObjectStoreFullError",
    "TaskPlacementGroupRemoved": "PlacementGroupRemovedError",
    "ActorPlacementGroupRemoved": "PlacementGroupRemovedError",
    "TaskUnschedulableError": "PlacementGroupRemovedError",
    "ActorUnschedulableError": "PlacementGroupRemovedError",
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
_TASKS = re.compile(r"ray::(.+?)\(\) \(pid=(\d+), ip=([^,)]+)")
_COLOURS = re.compile(r"\x1b\[\d+m")


def init_arguments(settings: Settings) -> dict[str, Any]:
    """Return the arguments of `ray.init`.

    Raises:
        InputError: a setting that has no counterpart there, or that belongs to whoever started the cluster.
    """
    defaults = {field.name: field.default for field in fields(Settings)}
    for name, instead in _INSTEAD.items():
        if getattr(settings, name) != defaults[name]:
            raise InputError(f"init({name}={getattr(settings, name)!r}) has no effect on engine='ray': {instead}")
    given = {name: getattr(settings, name) for name in _OF_CLUSTER if getattr(settings, name) not in (None, {})}
    address = settings.address or os.environ.get("SHOAL_ADDRESS") or os.environ.get("RAY_ADDRESS") or "local"
    if address != "local" and given:
        name, value = next(iter(given.items()))
        raise InputError(
            f"init({name}={value!r}) does not go with address={address!r}: what the cluster has is said where "
            "it is started, by `ray start`. Leave it out"
        )
    if address == "local":
        visible_gpus(settings.num_gpus)  # Ray's own check leaves processes behind
        given["include_dashboard"] = False
    if "memory" in given:
        given["_memory"] = given.pop("memory")
    if settings.runtime_env:
        given["runtime_env"] = dict(settings.runtime_env)
    return given | {"address": address, "log_to_driver": settings.log_to_driver, "namespace": settings.namespace}


def option_arguments(options: TaskOptions | ActorOptions | MethodOptions, name: str) -> dict[str, Any]:
    """Return the arguments of `.options` of one of Ray's tasks, actors or methods, which are ours but for a few.

    Raises:
        InputError: an option that Ray has no counterpart of.
    """
    given: dict[str, Any] = {}
    for field in fields(options):
        value = getattr(options, field.name)
        # What is left out is Ray's default, too. It has other ones for CPUs, and for functions that yield.
        if field.name in {"num_cpus", "num_returns"} or value not in (field.default, {}, None):
            given[_RENAMED.get(field.name, field.name)] = value
    if given.get("num_returns") == STREAMING:
        given["num_returns"] = "streaming"
    if "scheduling_strategy" in given:
        given["scheduling_strategy"] = _strategy(given["scheduling_strategy"])
    given = {key: value for key, value in given.items() if key not in _ELSEWHERE}
    if isinstance(options, ActorOptions):
        if options.checkpoint_every:
            raise InputError(
                f"{name}: __checkpoint__ and __restore__ need engine='native': Ray brings actors back without their "
                "state. Pass checkpoint_every=0, and save and load the state in the actor yourself"
            )
        return given | _environment(options) | ({"name": options.name} if options.name else {})
    if isinstance(options, TaskOptions):
        given |= _environment(options)
    return given | {"name": options.name or name}


def _environment(options: TaskOptions | ActorOptions) -> dict[str, Any]:
    for key in ("working_dir", "py_modules"):
        if key in (options.runtime_env or {}):
            raise InputError(
                f"runtime_env: {key!r} of one task or actor is not supported on engine='ray', which copies local "
                "folders only for a whole job: give it to init(runtime_env=…)"
            )
    return {"runtime_env": dict(options.runtime_env)} if options.runtime_env else {}


def _strategy(strategy: Any) -> Any:
    if isinstance(strategy, PlacementGroupSchedulingStrategy):
        return scheduling_strategies.PlacementGroupSchedulingStrategy(
            their_group(strategy.placement_group),
            strategy.placement_group_bundle_index,
            strategy.placement_group_capture_child_tasks,
        )
    if isinstance(strategy, NodeAffinitySchedulingStrategy):
        return scheduling_strategies.NodeAffinitySchedulingStrategy(strategy.node_id, strategy.soft)
    return strategy


def their_group(group: PlacementGroup) -> TheirGroup:
    """Return Ray's handle of a placement group."""
    return TheirGroup(ray.PlacementGroupID(group.id), [dict(bundle) for bundle in group.bundle_specs])


def our_group(group: TheirGroup | None) -> PlacementGroup | None:
    """Return our handle of a placement group."""
    return None if group is None else PlacementGroup(group.id.binary(), tuple(group.bundle_specs))


def group_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of our table of placement groups, from one of Ray's."""
    kept = ("placement_group_id", "name", "strategy", "state", "bundles", "bundles_to_node_id")
    return {key: row.get(key) for key in kept} | {"creator": "", "reason": ""}


def asked_for(resources: Mapping[str, float]) -> dict[str, float]:
    """Return the resources that can be asked for, without those that Ray has for itself."""
    own = ("node:", "object_store_memory", "bundle")
    return {name: amount for name, amount in resources.items() if not name.startswith(own) and "_group_" not in name}


def translated(error: BaseException, object_id: bytes) -> BaseException:
    """Return what the other engines would raise where Ray has raised `error` for an object."""
    if not isinstance(error, theirs.RayError):
        outlived = isinstance(error, ValueError) and "owner is unknown" in str(error)
        return object_gone(object_id) if outlived else error
    if isinstance(error, theirs.RayTaskError) and not isinstance(error, theirs.TaskCancelledError):
        return _of_task(error)
    text = _COLOURS.sub("", str(error))
    if isinstance(error, theirs.UnserializableException):
        return TaskError("a task", text, "on Ray")
    if isinstance(error, theirs.RayActorError):
        return _of_actor(error, text)
    for kind in type(error).__mro__:
        name = _OTHERWISE.get(kind.__name__, kind.__name__)
        if hasattr(exceptions, name):
            return getattr(exceptions, name)(text)
    return exceptions.ShoalError(f"Ray: {text}")


def _of_task(error: theirs.RayTaskError) -> BaseException:
    text = _COLOURS.sub("", str(error))
    task, pid, node = [("a task", "?", "?"), *_TASKS.findall(text)][-1]  # the last one is where it began
    where = f"node {node}, pid {pid}"
    report = TaskError(task, text, where)
    if isinstance(error.cause, theirs.RayError):  # it could not be pickled
        return report
    for note in (*hints(error.cause), f"Raised in {task} ({where})."):
        error.cause.add_note(note)
    error.cause.__cause__ = report
    return error.cause


def _of_actor(error: theirs.RayActorError, text: str) -> exceptions.ShoalError:
    why = next((ours for part, ours in _DEATHS.items() if part in text.lower()), "its process has died")
    if isinstance(error, theirs.ActorUnavailableError):
        return exceptions.ActorUnavailableError(f"the actor crashed during the call. Ray: {text}")
    if "placement group" in text.lower():
        return exceptions.PlacementGroupRemovedError(f"the actor is dead: {why}. Ray: {text}")
    cure = "Create it again, or give it max_restarts to have it come back by itself"
    return exceptions.ActorDiedError(f"the actor is dead: {why}. {cure}. Ray: {text}")
