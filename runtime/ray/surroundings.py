"""What a process of Ray is part of, and what runs in it, as the runtime's context tells it."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass, replace

import ray
from ray.util import get_current_placement_group

from ..context import in_rays_worker
from ..engine import Holding, Host, Whereabouts
from . import translation as their
from .callables import draft_of_this_actor

#: Stands for this actor's lifetime, for `borrow`.
MYSELF = b"this actor"


@dataclass(frozen=True)
class Running:
    """What runs here, for `get_runtime_context`."""

    task_id: bytes | None
    name: str
    function_name: str
    host: Host | None


class Surroundings:
    """Part of the Ray engine; see `shoal.runtime.engine.Engine` for the methods."""

    def __init__(self) -> None:
        self._is_worker = in_rays_worker()

    @property
    def whereabouts(self) -> Whereabouts:
        """What this process is part of."""
        here = ray.get_runtime_context()
        return Whereabouts(here.get_job_id(), here.namespace, here.get_node_id(), here.get_worker_id())

    def host(self) -> Host | None:
        """Return the actor that this process is."""
        draft = draft_of_this_actor()
        if draft is None:
            return None
        here = ray.get_runtime_context()
        actor = replace(draft, id=bytes.fromhex(here.get_actor_id()))
        return Host(actor, MYSELF, here.get_actor_name() or None, here.namespace, self._restarts)

    @functools.cached_property
    def _restarts(self) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of what Ray itself calls there
            return int(ray.get_runtime_context().was_current_actor_reconstructed)

    def running(self) -> Running | None:
        """Return the task or call that runs in this thread or asyncio task."""
        here = ray.get_runtime_context()
        task = here.get_task_id() if self._is_worker else None
        if task is None:
            return None
        name = here.get_task_name()
        if name.endswith(".__init__"):  # which Ray puts the actor's name before
            return Running(None, name.rpartition(":")[2], here.get_task_function_name(), self.host())
        # The id of the first object that it returns, as on the other engines.
        task_id = bytes.fromhex(task) + (1).to_bytes(4, "little")
        return Running(task_id, name, here.get_task_function_name(), self.host())

    def holding(self) -> Holding:
        """Return what the running task or this actor holds."""
        if not self._is_worker:
            return Holding({}, [], None)
        resources = ray.get_runtime_context().get_assigned_resources()
        group = their.our_group(get_current_placement_group())
        return Holding(resources, [str(gpu) for gpu in ray.get_gpu_ids()], group)
