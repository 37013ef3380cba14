"""Ids, as processes tell them each other: bytes that begin with those of whoever made the thing."""

from __future__ import annotations

NodeId = bytes
ProcessId = bytes  # begins with its node's
ObjectId = bytes  # begins with its owner's, as do those of tasks and actors
ActorKey = bytes
GroupId = bytes

_NODE_BYTES = 4
PROCESS_BYTES = 8


def owner_of(object_id: ObjectId) -> ProcessId:
    """Return the process that owns an object."""
    return object_id[:PROCESS_BYTES]


def node_of(process: ProcessId) -> NodeId:
    """Return the node of a process; of an object's id: that of its owner."""
    return process[:_NODE_BYTES]
