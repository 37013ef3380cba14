"""Process ↔ node about workers: who could use how many, whose they are, and in which surroundings they live."""

from __future__ import annotations

import msgspec

from ...ids import ActorKey, NodeId, ProcessId
from .wire import Count, Demand, Job, Message, Placement


class Environment(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Surroundings of a worker, ready to be used: variables, the folder to run in, where to import from first."""

    id: bytes
    env_vars: dict[str, str]
    working_dir: str | None
    paths: list[str]


class WantLeases(Message):
    """I could use so many more workers with these resources; replaces what I said before about `key`.

    `inputs`: bytes that the first of the tasks will read, by the node that they lie on. `spread`: on different nodes.
    """

    key: int
    demand: Demand
    count: Count
    job: Job
    environment: Environment | None = None
    placement: Placement | None = None
    retriable: bool = True
    inputs: dict[NodeId, Count] = msgspec.field(default_factory=dict)
    spread: bool = False


class EnvironmentFailed(Message):
    """The workers that you want for kind `key` cannot be had: their environment fails, for this reason."""

    key: int
    reason: str


class Leased(Message):
    """You may push tasks of kind `key` to that worker, which has these GPUs."""

    key: int
    worker: ProcessId
    gpus: list[str]


class Recall(Message):
    """Others have waited for long: give that worker back when the tasks that you have pushed to it have ended."""

    worker: ProcessId


class ReturnLease(Message):
    """I don't need that worker any more; `reusable`: others may have it."""

    worker: ProcessId
    reusable: bool = True


class KillWorker(Message):
    """Kill the worker that I have leased: the task that it runs was cancelled, and it does not listen."""

    worker: ProcessId


class Blocked(Message):
    """My task waits for others; its CPUs may be used meanwhile."""


class Unblocked(Message):
    """My task goes on."""


class ActorWanted(Message):
    """Between nodes: make a process for that actor as soon as it can have its resources; `owner`: b"" if detached."""

    actor: ActorKey
    owner: ProcessId
    class_name: str
    demand: Demand
    job: Job
    environment: Environment | None = None
    placement: Placement | None = None
    retriable: bool = False
    spread: bool = False
