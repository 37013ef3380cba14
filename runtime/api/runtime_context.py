"""What runs here: the task or call that this code is part of, its actor, its job; and how an actor ends itself."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from ..core.engine import Host, current_engine
from ..core.handles import ActorHandle
from ..core.runtime_env import RuntimeEnv
from ..exceptions import ShoalError


class RuntimeContext:
    """Where this code runs; each question is about the moment at which it is asked.

    Ids are hexadecimal text. In a driver there is no task and no actor.
    """

    def get_job_id(self) -> str:
        """Return the id of the job: a driver and all that it has set going."""
        return current_engine().whereabouts.job

    @property
    def namespace(self) -> str:
        """The namespace in which this job looks for the names of actors."""
        return current_engine().whereabouts.namespace

    def get_node_id(self) -> str:
        """Return the id of the node that this process runs on."""
        return current_engine().whereabouts.node

    def get_worker_id(self) -> str:
        """Return the id of this process, driver or worker."""
        return current_engine().whereabouts.worker

    def get_task_id(self) -> str | None:
        """Return the id of the task or call that runs; None in a driver, a constructor and threads of the user's."""
        call = current_engine().running()
        return None if call is None or call.task_id is None else call.task_id.hex()

    def get_task_name(self) -> str | None:
        """Return the name of the task or call that runs: its ``name`` option, or that of its function."""
        call = current_engine().running()
        return None if call is None else call.name

    def get_task_function_name(self) -> str | None:
        """Return the name of the function that runs: ``function`` or ``Class.method``."""
        call = current_engine().running()
        return None if call is None else call.function_name

    def get_actor_id(self) -> str | None:
        """Return the id of the actor that this code belongs to, if any."""
        host = _host()
        return None if host is None else host.actor.id.hex()

    def get_actor_name(self) -> str | None:
        """Return the name of the actor that this code belongs to; None if it has none."""
        host = _host()
        return None if host is None else host.name

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether this actor was made again after a crash.

        Raises:
            ShoalError: this code belongs to no actor.
        """
        return _required_host("was_current_actor_reconstructed").restarts > 0

    @property
    def current_actor(self) -> ActorHandle:
        """A weak handle of the actor that this code belongs to: it does not keep the actor alive.

        Raises:
            ShoalError: this code belongs to no actor.
        """
        return ActorHandle(_required_host("current_actor").actor)

    def get_assigned_resources(self) -> dict[str, float]:
        """Return the resources that the running task or this actor holds, by name; {} in a driver."""
        return current_engine().holding().resources

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """Return the accelerators that the running task or this actor holds, by kind: ``{"GPU": […]}``."""
        return {"GPU": current_engine().holding().gpus}

    def is_canceled(self) -> bool:
        """Return whether `cancel` was called for the task or call that runs.

        So notices a method of an actor, in which nothing is raised, that it should end; in a task that catches the
        KeyboardInterrupt it says that this was why. What the call returns then is its value.
        """
        return current_engine().is_cancelled()

    @property
    def runtime_env(self) -> RuntimeEnv:
        """The surroundings of this code; folders and modules are the copies that this process uses."""
        return current_engine().runtime_env

    def get_runtime_env_string(self) -> str:
        """Return `runtime_env` as JSON."""
        return json.dumps(self.runtime_env, sort_keys=True)

    def get_placement_group_id(self) -> str | None:
        """Return the id of the placement group that the running task or this actor is in; None if it is in none."""
        group = current_engine().holding().group
        return None if group is None else group.id.hex()

    @property
    def should_capture_child_tasks_in_placement_group(self) -> bool:
        """Whether what this code starts runs in the same placement group, unless it says otherwise."""
        return current_engine().holding().captures

    def get(self) -> dict[str, Any]:
        """Return the ids as one dictionary, those that there are."""
        ids = {
            "job_id": self.get_job_id(),
            "node_id": self.get_node_id(),
            "worker_id": self.get_worker_id(),
            "namespace": self.namespace,
            "task_id": self.get_task_id(),
            "actor_id": self.get_actor_id(),
        }
        return {name: value for name, value in ids.items() if value is not None}


_CONTEXT = RuntimeContext()


def get_runtime_context() -> RuntimeContext:
    """Return what tells this code where it runs: its task, actor, node, job."""
    return _CONTEXT


def get_gpu_ids() -> list[int] | list[str]:
    """Return the GPUs that the running task or this actor holds: numbers, or names if the machine's have such."""
    visible = current_engine().holding().gpus
    return [int(gpu) for gpu in visible] if all(gpu.isdecimal() for gpu in visible) else visible


def _host() -> Host | None:
    call = current_engine().running()
    return current_engine().host() if call is None else call.host


def _required_host(what: str) -> Host:
    host = _host()
    if host is None:
        raise ShoalError(f"{what}: this code belongs to no actor; ask inside an actor's method")
    return host


def exit_actor() -> NoReturn:
    """End the actor whose method this is, on purpose: it is not started again, whatever its `max_restarts`.

    Calls that run beside it may finish: coroutines for a second, before they are cancelled, others for a few. What does
    not, what has not begun, and the call that called this raise ActorDiedError at their callers. The call is left by a
    SystemExit; whoever catches it only delays the end.

    Raises:
        TypeError: this code belongs to no actor.
    """
    if _host() is None:
        raise TypeError("exit_actor() ends the actor that calls it; this code belongs to none. To end another: kill()")
    current_engine().exit_actor()
