"""What a node's daemon is told by who starts it, as one line of JSON."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from ...core.resources.amounts import Demand
from ..protocol.local_sockets import SocketNames
from .transport import Secrets


class NodeSettings(msgspec.Struct, kw_only=True):
    """What a daemon is to be; attributes without a word here are those of `shoal.runtime.init`.

    Attributes:
        names: those of the session's sockets.
        folder: the session's.
        resources: what the node has, in units; `gpus`: the ids of its GPUs.
        sys_path: where workers import from.
        listen: where other nodes may join; `join`: the head's address, for a node that joins; `secrets`: for both.
    """

    names: SocketNames
    folder: str
    resources: Demand
    gpus: list[str]
    store_memory: int
    spill_directory: str
    memory_usage_threshold: float
    infeasible: str
    max_lineage_bytes: int
    preload: list[str]
    sys_path: list[str]
    record_call_sites: bool
    metrics_port: int | None
    listen: str | None = None
    join: str | None = None
    secrets: Secrets = msgspec.field(default_factory=lambda: Secrets(""))

    def line(self) -> bytes:
        """Return them as a daemon reads them, also where a path is no text: msgspec's JSON would refuse that."""
        return json.dumps(msgspec.to_builtins(self)).encode() + b"\n"

    @classmethod
    def read(cls, line: str) -> NodeSettings:
        """Return what `line` has made a line of."""
        return msgspec.convert(json.loads(line), cls)

    def shared(self) -> dict[str, Any]:
        """Return those that nodes which join take over from the head."""
        return {name: getattr(self, name) for name in ("sys_path", "preload", "max_lineage_bytes", "infeasible")}
