"""The protocol: everything that processes of the native engine say to each other.

A message is one msgpack array, tagged with its class, behind its length as four bytes. Processes are named by eight
bytes (node and number), objects and tasks by sixteen (owning process and number); a task has the id of the first
object that it returns. Four kinds of conversation, each in a file:

    process ↔ process   `peer_messages`     run this, here is the result, I (no longer) hold your object
    process ↔ node      `process_messages`  leases of workers, actors, names, shared memory, who died and why
    node ↔ node         `node_messages`     pass this on, who is there, what is free, what are a block's bytes
    node ↔ fork server  `fork_messages`     make a process, this one ended
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Union

import msgspec

from ...core.ids import ActorKey, GroupId, NodeId, ObjectId, ProcessId  # noqa: F401

# One name for the whole protocol: the others say `m.Push`, wherever it is written.
from .fork_messages import *  # noqa: F403
from .node_messages import *  # noqa: F403
from .peer_messages import *  # noqa: F403
from .process_messages import *  # noqa: F403
from .wire import *  # noqa: F403
from .wire import Message, Question

#: What can be said: all types of messages.
KINDS = [kind for kind in (*Message.__subclasses__(), *Question.__subclasses__()) if kind is not Question]
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Union[tuple(KINDS)])  # noqa: UP007  # made of a list
_encode_into = msgspec.msgpack.Encoder().encode_into


def encode(message: Message) -> bytearray:
    """Return the message as a frame, its length before it."""
    frame = bytearray(4)
    _encode_into(message, frame, 4)
    frame[:4] = (len(frame) - 4).to_bytes(4, "little")
    return frame


#: Returns the message in a frame's payload. The decoder's own method: a function around it would be paid for each time.
decode: Callable[[bytes | memoryview], Message] = _decoder.decode
