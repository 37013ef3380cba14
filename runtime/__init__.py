"""Tasks, actors and objects: Ray's core API on one small engine interface.

from shoal import runtime

@runtime.remote
def square(x):
    return x * x

runtime.get([square.remote(i) for i in range(4)])       # [0, 1, 4, 9]
"""

from . import exceptions, state, util
from .api import cancel, engine_name, get, get_actor, init, is_initialized, kill, put, remote, shutdown, wait
from .cluster_api import (
    available_resources,
    become_node,
    cluster_address,
    cluster_resources,
    cluster_token,
    empty,
    lookup,
    nodes,
    preload,
    publish,
)
from .exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    InfeasibleError,
    InputError,
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
from .generators import ObjectRefGenerator
from .refs import ObjectRef
from .remote import ActorClass, ActorHandle, RemoteFunction, method
from .runtime_context import exit_actor, get_gpu_ids, get_runtime_context
from .runtime_env import RuntimeEnv
from .scheduling import NodeAffinitySchedulingStrategy, PlacementGroup, PlacementGroupSchedulingStrategy
from .story import story
from .timeline import profile, timeline

__all__ = [
    "ActorClass",
    "ActorDiedError",
    "ActorHandle",
    "ActorUnavailableError",
    "GetTimeoutError",
    "InfeasibleError",
    "InputError",
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
    "ShoalError",
    "TaskCancelledError",
    "TaskError",
    "WorkerCrashedError",
    "available_resources",
    "become_node",
    "cancel",
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
    "init",
    "is_initialized",
    "kill",
    "lookup",
    "method",
    "nearest",
    "nodes",
    "preload",
    "profile",
    "publish",
    "put",
    "remote",
    "shutdown",
    "state",
    "story",
    "timeline",
    "util",
    "wait",
]
