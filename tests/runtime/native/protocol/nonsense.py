"""Messages that make no sense, for tests: of each type, with right and wrong types of values, and broken bytes."""

import random
import types
import typing
from collections.abc import Collection, Iterator, Sequence

import msgspec

from shoal.runtime.native.protocol import messages as m

TYPES = sorted(m.KINDS, key=lambda kind: kind.__name__)
_DEEPEST = 4
_WHOLE = 6  # the only ones that come past the decoder
_WRONG = [None, 5, -5, 2**63, 1.5, "text", b"bytes", [], [1, "a"], {}, {"CPU": -1}, True, float("nan")]


class Nonsense:
    """Makes messages from one seed.

    Args:
        seed: for all that is random.
        ids: ids that mean something where the messages go; others are made up.
        leave_out: optional fields of these types are empty.
    """

    def __init__(self, seed: int, ids: Sequence[bytes] = (), leave_out: Collection[type] = ()) -> None:
        self._random, self._ids, self._depth, self._leave_out = random.Random(seed), list(ids), 0, leave_out

    def message(self, kind: type) -> m.Message:
        """Return a message whose fields are of the right types, and mean nothing."""
        hints = typing.get_type_hints(kind)
        return kind(**{name: self._value(hints[name]) for name in kind.__struct_fields__})

    def frames(self, kind: type) -> Iterator[bytes]:
        """Yield frames of one type: whole, with a field of a wrong type, without some, cut off, of garbage."""
        for _ in range(_WHOLE):
            whole = self.message(kind)
            yield bytes(m.encode(whole))
        fields = list(msgspec.to_builtins(whole, builtin_types=(bytes,)))
        for i in range(1, len(fields)):
            wrong = [*fields[:i], self._random.choice(_WRONG), *fields[i + 1 :]]
            yield _frame(msgspec.msgpack.encode(wrong))
        yield _frame(msgspec.msgpack.encode(fields[: self._random.randrange(1, len(fields) + 1)]))
        payload = bytearray(msgspec.msgpack.encode(fields))
        yield _frame(payload[: self._random.randrange(len(payload))])
        for _ in range(2):
            payload[self._random.randrange(len(payload))] = self._random.randrange(256)
        yield _frame(payload)
        yield _frame(msgspec.msgpack.encode(["NoSuchMessage", *fields[1:]]))

    def _value(self, hint: typing.Any) -> typing.Any:
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        pick = self._random
        if origin in (typing.Union, types.UnionType):
            return self._value(pick.choice([kind for kind in arguments if kind not in self._leave_out]))
        if origin is list or arguments[1:] == (Ellipsis,):
            self._depth += 1
            made = [self._value(arguments[0]) for _ in range(pick.randrange(3) if self._depth < _DEEPEST else 0)]
            self._depth -= 1
            return origin(made)
        if origin is dict:
            return {self._value(arguments[0]): self._value(arguments[1]) for _ in range(pick.randrange(3))}
        if origin is tuple:
            return tuple(self._value(argument) for argument in arguments)
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            return self.message(hint)
        makers: dict[typing.Any, typing.Callable[[], typing.Any]] = {
            bytes: lambda: pick.choice([*self._ids, b"", pick.randbytes(8), pick.randbytes(16), pick.randbytes(4)]),
            str: lambda: pick.choice(["", "CPU", "GPU", "SPREAD", "no such thing", "\U0001f43b"]),
            int: lambda: pick.choice([0, 1, 2, 10_000, 1 << 40]),
            bool: lambda: pick.random() < 0.5,
            float: lambda: pick.choice([0.0, 0.5, -1.0, float("nan"), float("inf")]),
            types.NoneType: lambda: None,
            typing.Any: lambda: pick.choice(_WRONG),
        }
        return makers[hint]()


def _frame(payload: bytes | bytearray) -> bytes:
    return len(payload).to_bytes(4, "little") + bytes(payload)
