"""What all messages are made of: values, blocks of shared memory; see `messages` for the protocol."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Generic, TypeVar, get_args

import msgspec

from ...core.ids import GroupId, NodeId, ObjectId, ProcessId
from ...core.options import MOST_RETURNS, STREAMING

Count = Annotated[int, msgspec.Meta(ge=0)]
Returns = Annotated[int, msgspec.Meta(ge=STREAMING, le=MOST_RETURNS)]
Units = dict[str, Count]  # of resources, by name
Demand = dict[str, Annotated[int, msgspec.Meta(ge=1)]]
T = TypeVar("T")


class Message(msgspec.Struct, array_like=True, tag=True, gc=False):
    """Base of all messages."""


class Question(Message, Generic[T], kw_only=True):
    """Base of what a process asks its node, which answers with a T. `number`: the asker's, to know the answer by."""

    number: int = 0

    @classmethod
    def type_of_answer(cls) -> Any:
        """Return T."""
        return get_args(cls.__orig_bases__[0])[0]  # type: ignore[attr-defined]  # of Question[T]


class Answer(Message):
    """The node's answer to the question of that number, packed."""

    number: int
    value: bytes

    @classmethod
    def to(cls, question: Question[T], value: T) -> Answer:
        """Return the answer to a question."""
        return cls(question.number, msgspec.msgpack.encode(value))


class Job(msgspec.Struct, array_like=True, frozen=True):
    """What a driver has set going: its tasks, actors and theirs. Names of actors belong to its namespace."""

    driver: ProcessId = b""
    namespace: str = ""


class Span(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A block of shared memory: `size` bytes at `offset` of the maker's arena, which the node holds as file `arena`.

    `on_disk`: the arena is a file, and the block takes no memory.
    """

    maker: ProcessId
    arena: int
    offset: Count
    size: Count
    generation: int
    on_disk: bool = False


class Value(msgspec.Struct, array_like=True, gc=False):
    """A serialised value: pickle, out-of-band buffers, ids of the references inside; or a failure's exception."""

    stream: bytes | Span
    buffers: tuple[bytes | Span, ...] = ()
    refs: tuple[ObjectId, ...] = ()
    failed: bool = False

    @property
    def parts(self) -> tuple[bytes | Span, ...]:
        """The pickle, and the buffers."""
        return self.stream, *self.buffers

    def moved(self, parts: Iterable[bytes | Span]) -> Value:
        """Return the same value with its parts in other places."""
        stream, *buffers = parts
        return Value(stream, tuple(buffers), self.refs, self.failed)


class Placement(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Run in that bundle of a placement group (-1: in any); `captures`: and so do the tasks that are started there."""

    group: GroupId
    bundle: int = -1
    captures: bool = False


class Awaited(msgspec.Struct, array_like=True, gc=False):
    """An object that a process waits for. It can't come while one of its makers waits. `name`: its call."""

    makers: list[ProcessId]
    name: str


class Environment(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Surroundings of a worker, ready to be used: variables, the folder to run in, where to import from first."""

    id: bytes
    env_vars: dict[str, str]
    working_dir: str | None
    paths: list[str]


class NodeInfo(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A node: where it runs and what it has."""

    id: NodeId
    host: str
    pid: int
    resources: Units
