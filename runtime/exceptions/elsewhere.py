"""What Ray calls things, or has, and what there is for it here: sentences that errors end with, by names.

A test holds that no name here hides one of ours.
"""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

_SETTINGS = {
    "include_dashboard dashboard_host dashboard_port": "`shoal status` shows what runs; metrics_port is for Prometheus",
    "local_mode": "engine='serial' runs everything in this process",
    "logging_level logging_format logging_config configure_logging": "Python's logging is left as it is; "
    "log_to_driver=False hides what workers print",
    "_memory": "memory",
    "_temp_dir": "log_directory and object_spilling_directory",
    "_system_config _object_spilling_config object_spilling_config": "object_spilling_directory says where objects go "
    "that have no room",
    "labels": "resources={'name': 1}, which tasks ask for by resources=",
    "job_config": "runtime_env and namespace are arguments of init",
}
_NAMES = {
    "data": "from shoal import data",
    "serve": "shoal.serve(…), which serves policies and language models",
    "train tune rllib air": "shoal.algorithms and `shoal train`; trainings of several seeds by --seeds",
    "actor": "runtime.ActorHandle, runtime.ActorClass and runtime.exit_actor",
    "worker _private": "runtime.get_runtime_context()",
    "ObjectID": "runtime.ObjectRef",
    "cloudpickle": "import cloudpickle",
    "jobs": "runtime.state, and `shoal status`",
    "get_dashboard_url": "`shoal status`",
    "client ClientBuilder": "init(engine='ray', address=…)",
    "__version__": "shoal.__version__",
}
_IN_UTIL = (
    "ActorPool Empty Full Queue as_completed deregister_serializer get_current_placement_group get_placement_group "
    "inspect_serializability list_named_actors map_unordered metrics placement_group placement_group_table "
    "register_serializer remove_placement_group"
)
"""Of `runtime.util`, whose names are looked for beside it."""
_TOOLS = {
    "state": "runtime.state",
    "multiprocessing iter": "util.ActorPool and util.map_unordered",
    "scheduling_strategies": "runtime.PlacementGroupSchedulingStrategy and runtime.NodeAffinitySchedulingStrategy",
    "joblib": "with runtime.joblib(): …",
    "collective": "torch.distributed, with an actor for each rank",
    "get_node_ip_address get_node_instance_id": "runtime.nodes(), with NodeName and node_id",
    "pdb rpdb ray_debugpy": "init(engine='serial') and pdb",
}
_EXCEPTIONS = {
    "RayError": "ShoalError",
    "RayTaskError": "the type that the task raised, whose __cause__ is a TaskError",
    "RayActorError": "ActorError",
    "RaySystemError": "InternalError",
    "LocalRayletDiedError": "WorkerCrashedError",
    "OutOfDiskError": "ObjectStoreFullError",
    "ObjectFetchTimedOutError ObjectFreedError": "ObjectLostError",
    "TaskPlacementGroupRemoved ActorPlacementGroupRemoved": "PlacementGroupRemovedError",
    "TaskUnschedulableError ActorUnschedulableError": "InfeasibleError, which the call itself raises",
    "ActorAlreadyExistsError": "InputError, a ValueError",
}


def by_name(*tables: Mapping[str, str]) -> dict[str, str]:
    """Return tables whose keys are names in one text, separated by spaces, as one of single names."""
    return {name: answer for table in tables for names, answer in table.items() for name in names.split()}


def sentences(*tables: Mapping[str, str]) -> dict[str, str]:
    """As `by_name`, with each answer as the sentence that an error ends with."""
    return {name: f"Here it is: {answer}" for name, answer in by_name(*tables).items()}


SETTINGS, TOOLS, EXCEPTIONS = (sentences(table) for table in (_SETTINGS, _TOOLS, _EXCEPTIONS))
NAMES = sentences(_NAMES, {name: f"runtime.util.{name}" for name in _IN_UTIL.split()})


class TeachesNames:
    """Whose attributes have other names elsewhere: a missing one's error says what there is instead."""

    names_elsewhere: ClassVar[Mapping[str, str]]
    """What to say of each, as a sentence."""

    if not TYPE_CHECKING:  # a type checker is to find what is missing before the program runs

        def __getattr__(self, name: str) -> Any:
            if hasattr(type(self), name):  # a property, in which an AttributeError was raised: that one counts
                return object.__getattribute__(self, name)
            message = f"{type(self).__name__!r} object has no attribute {name!r}"
            if name in self.names_elsewhere:
                raise AttributeError(f"{message}. {self.names_elsewhere[name]}")
            raise AttributeError(message, name=name, obj=self)  # with the object, Python adds the nearest name


def missing(module: str, name: str, table: Mapping[str, str]) -> AttributeError:
    """Return the error of a name that a module has not; `table` has sentences on what there is instead."""
    message = f"module {module!r} has no attribute {name!r}"
    if name in table:
        return AttributeError(f"{message}. {table[name]}")
    return AttributeError(message, name=name, obj=sys.modules[module])  # with the module, Python adds the nearest name
