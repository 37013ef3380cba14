"""`shoal node`: this machine as a further node of a running cluster, until the head ends or Ctrl-C."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..runtime import InputError, become_node
from .flags import parse
from .tokens import read_token


@dataclass(frozen=True, kw_only=True)
class NodeFlags:
    """Which cluster to join, and what this node has to offer."""

    join: str | None = field(default=None, metadata={"metavar": "HOST:PORT"})
    """The head's address: the Address that runtime.nodes() tells there, after init(listen=...)."""
    token_file: str | None = field(default=None, metadata={"metavar": "FILE"})
    """File with the head's runtime.cluster_token(). Default: the environment variable SHOAL_TOKEN."""
    num_cpus: float | None = None
    """CPUs for tasks and actors. Default: the cores that this process may run on."""
    num_gpus: float | None = None
    """GPUs for tasks and actors. Default: those that CUDA_VISIBLE_DEVICES or the NVIDIA driver shows."""
    memory: float | None = None
    """Bytes of memory that tasks and actors may ask for. Default: seven tenths of the machine's."""
    resources: dict[str, Any] = field(default_factory=dict, metadata={"example": '{"license": 1}'})
    """Further resources by name."""


def run(arguments: Sequence[str]) -> int:
    """Run `shoal node`; returns only if it cannot."""
    about = "Join a running cluster with this machine. The node ends with the head. Ctrl-C ends it, too."
    flags: NodeFlags = parse("shoal node", about, {"node": NodeFlags}, arguments).build(NodeFlags)
    if flags.join is None:
        raise InputError("no address is given. Write for example: SHOAL_TOKEN=... shoal node --join 10.0.0.1:6400")
    become_node(
        flags.join,
        read_token(flags.token_file, "SHOAL_TOKEN") or "",
        num_cpus=flags.num_cpus,
        num_gpus=flags.num_gpus,
        memory=flags.memory,
        resources=flags.resources,
    )
    return 1
