"""What can be sent to another process: which member of a value cannot, and how instances of a class are."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TextIO

from ..core.engine import running_engine
from ..core.refs import ObjectRef
from ..core.values import serialization
from ..exceptions import InputError, InputTypeError

# The pickler writes these itself, without asking anybody.
_BUILT_IN = frozenset({
    type(None), bool, int, float, complex, str, bytes, bytearray, tuple, list, dict, set, frozenset, type, ObjectRef,
})  # fmt: skip
# So much of a member is shown, characters.
_MOST_SHOWN = 60


def register_serializer(cls: type, *, serializer: Callable[[Any], Any], deserializer: Callable[[Any], Any]) -> None:
    """Register how instances of a class are sent to other processes: by these functions.

    The deserializer travels with each value, so receivers need no registration. A worker that makes such values itself
    and returns them registers the class, too, for instance where its module is imported.

    Args:
        cls: the class; its subclasses are not concerned.
        serializer: takes an instance and returns something that can be pickled.
        deserializer: takes what `serializer` returned and returns an instance; must itself be picklable.

    Raises:
        InputError: `cls` is not a class, or one of the built-in ones, which always travel as they are.
        TypeError: one of the functions cannot be called.
    """
    if not isinstance(cls, type):
        raise InputError(f"register_serializer({cls!r:.80}): want a class, not a {type(cls).__name__}")
    if cls in _BUILT_IN:
        raise InputError(
            f"register_serializer({cls.__name__}): built-in types always travel as they are; use a subclass"
        )
    for name, function in (("serializer", serializer), ("deserializer", deserializer)):
        if not callable(function):
            raise InputTypeError(f"register_serializer({cls.__name__}): {name}={function!r:.80} cannot be called")
    running_engine()  # one with a pickler of its own is to hear of it
    serialization.register(cls, serializer, deserializer)


def deregister_serializer(cls: type) -> None:
    """Forget what `register_serializer` was told about a class; does nothing if that is nothing."""
    serialization.deregister(cls)


class Failure(NamedTuple):
    """Something that cannot be serialised.

    Attributes:
        obj: the thing itself.
        path: how to reach it from the value, such as ``value.model.lock``.
        parent: what directly holds it; None for the value itself.
        reason: the pickler's message.
    """

    obj: Any
    path: str
    parent: Any
    reason: str


def inspect_serializability(
    value: Any, name: str | None = None, depth: int = 10, print_file: TextIO | None = None
) -> tuple[bool, list[Failure]]:
    """Find out whether a value can be sent to another process and, if not, which of its members are to blame.

    Looks into attributes, containers, and what functions capture. Prints a tree of the offending members.

    Args:
        value: anything: an object, function or class.
        name: what to call it in the output; default: its own name or type.
        depth: how many levels of members to look into.
        print_file: where to print; default: standard output.

    Returns:
        whether it can be sent, and the innermost things that cannot.
    """
    label = name or getattr(value, "__qualname__", None) or type(value).__qualname__
    out = print_file or sys.stdout
    reason = _reason(value)
    if reason is None:
        print(f"{label}: can be sent", file=out)
        return True, []
    print(f"{label}: cannot be sent: {reason}", file=out)
    search = _Search(out)
    search.look_into(Failure(value, label, None, reason), "", depth)
    return False, search.innermost


def _reason(value: Any) -> str | None:
    try:
        serialization.dump(value)
    except Exception as error:  # whatever any __reduce__ raises is the answer
        cause = error.__cause__ or error
        return f"{type(cause).__name__}: {cause}"
    return None


class _Search:
    """The way down from a value to the members that cannot be sent, printed as it goes."""

    def __init__(self, out: TextIO) -> None:
        self.innermost: list[Failure] = []
        self._out = out
        self._seen: set[int] = set()

    def look_into(self, failed: Failure, indent: str, depth: int) -> None:
        """Look for members that fail, too; if there are none, the thing itself is to blame."""
        self._seen.add(id(failed.obj))
        guilty = list(self._guilty(failed)) if depth > 0 else []
        if not guilty:
            self.innermost.append(failed)
        for number, (step, member) in enumerate(guilty, 1):
            branch, below = ("└── ", "    ") if number == len(guilty) else ("├── ", "│   ")
            print(f"{indent}{branch}{step.strip()}  {_brief(member.obj)}: {member.reason}", file=self._out)
            self.look_into(member, indent + below, depth - 1)

    def _guilty(self, failed: Failure) -> Iterator[tuple[str, Failure]]:
        for step, member in _members(failed.obj):
            if id(member) not in self._seen:
                self._seen.add(id(member))
                reason = _reason(member)
                if reason is not None:
                    yield step, Failure(member, failed.path + step, failed.obj, reason)


def _brief(value: Any) -> str:
    text = f"({type(value).__qualname__}) {value!r}"
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 1]}…"


def _captured(function: Any) -> dict[str, Any]:
    try:
        variables = inspect.getclosurevars(function)
    except ValueError:  # a variable that has no value yet
        return {}
    return {**variables.nonlocals, **variables.globals}


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    """Return what the pickler looks into when it meets a value, and how one would write it."""
    if isinstance(value, ObjectRef | str | bytes):
        return
    if inspect.isfunction(value):
        yield from ((f" captures {name}", member) for name, member in _captured(value).items())
        yield from ((f" default {index}", member) for index, member in enumerate(value.__defaults__ or ()))
    elif inspect.ismethod(value):
        yield ".__self__", value.__self__
    elif inspect.isclass(value):
        yield from ((f".{n}", m) for n, m in vars(value).items() if not n.startswith("__") or inspect.isfunction(m))
    else:
        yield from _items(value)
        yield from ((f".{name}", member) for name, member in getattr(value, "__dict__", {}).items())
        yield from ((f".{name}", getattr(value, name)) for name in _slots(type(value)) if hasattr(value, name))


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((f"[key {key!r}]", key) for key in value)
        yield from ((f"[{key!r}]", member) for key, member in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{index}]", member) for index, member in enumerate(value))


def _slots(cls: type) -> Iterator[str]:
    for base in cls.__mro__:
        slots = vars(base).get("__slots__", ())
        yield from (name for name in ((slots,) if isinstance(slots, str) else slots) if not name.startswith("__"))
