"""The runtime's settings and options as Ray's keyword arguments; what Ray has no counterpart of is refused here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import ray
from ray.util import scheduling_strategies as theirs
from ray.util.placement_group import PlacementGroup as TheirGroup

from ..exceptions import InputError
from ..options import STREAMING, ActorOptions, MethodOptions, TaskOptions
from ..scheduling import (
    NodeAffinitySchedulingStrategy,
    PlacementGroup,
    PlacementGroupSchedulingStrategy,
    SchedulingStrategy,
)
from ..settings import Settings
from .errors import Retry

# What `init` knows and Ray is told elsewhere. (`max_lineage_bytes` is no promise but a limit; Ray has its own.)
_INSTEAD = {
    "log_directory": "Ray keeps its logs under its own folder: set RAY_TMPDIR, or `ray start --temp-dir`",
    "memory_usage_threshold": "set RAY_memory_usage_threshold where Ray is started",
    "record_call_sites": "set RAY_record_ref_creation_sites=1 and use `ray memory`",
    "metrics_port": "Ray serves its metrics itself: `ray start --metrics-export-port`",
}
# What belongs to those who start a cluster.
_OF_CLUSTER = ("num_cpus", "num_gpus", "memory", "resources", "object_store_memory", "object_spilling_directory")


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
        given["include_dashboard"] = False
    if "memory" in given:
        given["_memory"] = given.pop("memory")
    if settings.runtime_env:
        given["runtime_env"] = dict(settings.runtime_env)
    return given | {"address": address, "log_to_driver": settings.log_to_driver, "namespace": settings.namespace}


def _common(options: TaskOptions | ActorOptions) -> dict[str, Any]:
    given: dict[str, Any] = {
        "num_cpus": options.num_cpus,
        "num_gpus": options.num_gpus,
        "resources": dict(options.resources),
    }
    if options.memory:
        given["memory"] = options.memory
    if options.scheduling_strategy is not None:
        given["scheduling_strategy"] = _strategy(options.scheduling_strategy)
    if options.runtime_env:
        for key in ("working_dir", "py_modules"):
            if key in options.runtime_env:
                raise InputError(
                    f"runtime_env: {key!r} of one task or actor is not supported on engine='ray', which copies local "
                    "folders only for a whole job: give it to init(runtime_env=…)"
                )
        given["runtime_env"] = dict(options.runtime_env)
    return given


def _strategy(strategy: SchedulingStrategy) -> Any:
    if isinstance(strategy, PlacementGroupSchedulingStrategy):
        return theirs.PlacementGroupSchedulingStrategy(
            their_group(strategy.placement_group),
            strategy.placement_group_bundle_index,
            strategy.placement_group_capture_child_tasks,
        )
    if isinstance(strategy, NodeAffinitySchedulingStrategy):
        return theirs.NodeAffinitySchedulingStrategy(strategy.node_id, strategy.soft)
    return strategy


def their_group(group: PlacementGroup) -> TheirGroup:
    """Return Ray's handle of a placement group."""
    return TheirGroup(ray.PlacementGroupID(group.id), [dict(bundle) for bundle in group.bundle_specs])


def our_group(group: TheirGroup, name: str = "") -> PlacementGroup:
    """Return our handle of a placement group."""
    return PlacementGroup(group.id.binary(), tuple(group.bundle_specs), name)


def _outcome(options: TaskOptions | MethodOptions) -> dict[str, Any]:
    given: dict[str, Any] = {"num_returns": "streaming" if options.num_returns == STREAMING else options.num_returns}
    if options.generator_backpressure:
        given["_generator_backpressure_num_objects"] = options.generator_backpressure
    if options.retry is not None:
        given["retry_exceptions"] = [Retry]
    return given


def task_arguments(options: TaskOptions, name: str) -> dict[str, Any]:
    """Return the options of one of Ray's tasks."""
    return {"name": options.name or name, "max_retries": options.max_retries, **_common(options), **_outcome(options)}


def actor_arguments(options: ActorOptions, class_name: str) -> dict[str, Any]:
    """Return the options of one of Ray's actors.

    Raises:
        InputError: `checkpoint_every`, or another option that Ray has no counterpart of.
    """
    if options.checkpoint_every:
        raise InputError(
            f"{class_name}: __checkpoint__ and __restore__ need engine='native': Ray brings actors back without their "
            "state. Pass checkpoint_every=0, and save and load the state in the actor yourself"
        )
    given: dict[str, Any] = {
        "max_restarts": options.max_restarts,
        "max_task_retries": options.max_task_retries,
        "max_pending_calls": options.max_pending_calls,
        **_common(options),
    }
    for name in ("name", "namespace", "lifetime", "max_concurrency"):
        if getattr(options, name) is not None:
            given[name] = getattr(options, name)
    if options.get_if_exists:
        given["get_if_exists"] = True
    return given


def method_arguments(options: MethodOptions, name: str, max_task_retries: int) -> dict[str, Any]:
    """Return the options of a call of one of Ray's actors."""
    given = {"name": name, "max_task_retries": max_task_retries, **_outcome(options)}
    if options.concurrency_group is not None:
        given["concurrency_group"] = options.concurrency_group
    return given


def group_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of our table of placement groups, from one of Ray's."""
    kept = ("placement_group_id", "name", "strategy", "state", "bundles", "bundles_to_node_id")
    return {key: row.get(key) for key in kept} | {"creator": "", "reason": ""}
