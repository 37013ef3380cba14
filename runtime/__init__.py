"""Tasks, actors and objects: Ray's core API on one small engine interface.

A call returns a reference at once, while it runs in another process; `get` waits for its value:

    from shoal import runtime

    @runtime.remote
    def square(x):
        return x * x

    runtime.get([square.remote(i) for i in range(4)])       # [0, 1, 4, 9]
"""

from typing import TYPE_CHECKING

from . import exceptions
from .api.cluster import (
    available_resources,
    become_node,
    cluster_address,
    cluster_resources,
    cluster_token,
    empty,
    lookup,
    nodes,
    object_store_memory,
    preload,
    publish,
)
from .api.lifecycle import (
    RuntimeInfo,
    close_before_shutdown,
    engine_name,
    guard_signals,
    init,
    is_initialized,
    shutdown,
)
from .api.remote import ActorClass, RemoteFunction, remote
from .api.runtime_context import exit_actor, get_gpu_ids, get_runtime_context
from .api.verbs import cancel, get, get_actor, kill, put, wait
from .core.arguments import as_bool, as_int, as_number, in_plain_numbers, refuse_unknown
from .core.generators import ObjectRefGenerator
from .core.handles import ActorHandle
from .core.held_signals import import_whole, signals_held
from .core.lazy_exports import lazy_exports
from .core.methods import method
from .core.refs import ObjectRef
from .core.resources.machine_memory import human_bytes, machine_memory
from .core.runtime_env import RuntimeEnv
from .core.scheduling import NodeAffinitySchedulingStrategy, PlacementGroup, PlacementGroupSchedulingStrategy
from .exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    InfeasibleError,
    InputError,
    InputTypeError,
    ObjectLostError,
    ObjectReconstructionFailedError,
    OutOfMemoryError,
    OwnerDiedError,
    PendingCallsLimitExceeded,
    PlacementGroupRemovedError,
    RuntimeEnvSetupError,
    ShoalError,
    TaskCancelledError,
    TaskError,
    WorkerCrashedError,
    nearest,
)
from .exceptions.elsewhere import NAMES, TeachesNames, by_name, sentences

# Imported when somebody asks for it: tools, and what shows a running program. They take as long to import as half of
# the rest, and whoever starts a runtime would wait for it twice: its daemon imports this package, too.
if TYPE_CHECKING:
    from . import state, util
    from .api.joblib_backend import joblib
    from .state.story import story
    from .state.timeline import profile, timeline

__all__ = [
    "ActorClass",
    "ActorDiedError",
    "ActorHandle",
    "ActorUnavailableError",
    "GetTimeoutError",
    "InfeasibleError",
    "InputError",
    "InputTypeError",
    "NodeAffinitySchedulingStrategy",
    "ObjectLostError",
    "ObjectReconstructionFailedError",
    "ObjectRef",
    "ObjectRefGenerator",
    "OutOfMemoryError",
    "OwnerDiedError",
    "PendingCallsLimitExceeded",
    "PlacementGroup",
    "PlacementGroupRemovedError",
    "PlacementGroupSchedulingStrategy",
    "RemoteFunction",
    "RuntimeEnv",
    "RuntimeEnvSetupError",
    "RuntimeInfo",
    "ShoalError",
    "TaskCancelledError",
    "TaskError",
    "TeachesNames",
    "WorkerCrashedError",
    "as_bool",
    "as_int",
    "as_number",
    "available_resources",
    "become_node",
    "by_name",
    "cancel",
    "close_before_shutdown",
    "cluster_address",
    "cluster_resources",
    "cluster_token",
    "empty",
    "engine_name",
    "exceptions",
    "exit_actor",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "guard_signals",
    "human_bytes",
    "import_whole",
    "in_plain_numbers",
    "init",
    "is_initialized",
    "joblib",
    "kill",
    "lazy_exports",
    "lookup",
    "machine_memory",
    "method",
    "nearest",
    "nodes",
    "object_store_memory",
    "preload",
    "profile",
    "publish",
    "put",
    "refuse_unknown",
    "remote",
    "sentences",
    "shutdown",
    "signals_held",
    "state",
    "story",
    "timeline",
    "util",
    "wait",
]

__getattr__, __dir__ = lazy_exports(__name__, NAMES)
