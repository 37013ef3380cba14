"""Values to bytes and back: pickle protocol 5 with large buffers out of band, functions and classes by cloudpickle.

Buffers (arrays, tensors, `pickle.PickleBuffer`) are never copied into the pickle: the caller of `dump` decides where
they go (a frame, shared memory), and `loads` builds arrays over wherever they lie, read-only. Large `bytes` and
`bytearray`s are not copied either: a large pickle is a list of pieces, and they are pieces of it.
"""

import pickle
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

import cloudpickle

from ..engine import current_engine
from ..refs import ObjectRef, check_runtime
from .buffers import PlainArray, is_plain_array, reduce_buffer
from .shipped_classes import reduce_class

# Pickled by reference or by value without looking at anything else, so the C pickler alone does them right.
_NUMBERS = frozenset({type(None), bool, int, float, complex})
_TEXTS = frozenset({str, bytes})
_NOT_PLAIN = object()
_NO_ARGUMENTS = pickle.dumps(((), {}), 5)


# A pickle of more bytes than this stays in pieces.
_LARGE = 100_000

_Way = tuple[Callable[[Any], Any], Callable[[Any], Any]]
#: How objects of some classes travel: what makes something of them that can be pickled, and the way back. What
#: `util.register_serializer` was told, and handles of actors, which are pickled otherwise by hand.
custom_serializers: dict[type, _Way] = {}
#: Engines with a pickler of their own hear of each class that is registered here, and of its end (None).
listeners: set[Callable[[type, _Way | None], None]] = set()

Stream = bytes | list[bytes | bytearray]


def register(cls: type, serializer: Callable[[Any], Any], deserializer: Callable[[Any], Any]) -> None:
    """Register what instances of a class are sent as: what `serializer` returns."""
    custom_serializers[cls] = (serializer, deserializer)
    for listener in listeners:
        listener(cls, custom_serializers[cls])


def deregister(cls: type) -> None:
    """Forget what `register` was told about a class."""
    if custom_serializers.pop(cls, None) is not None:
        for listener in listeners:
            listener(cls, None)


def listen(listener: Callable[[type, _Way | None], None]) -> None:
    """Tell a listener of the classes that are registered now, and from now on."""
    for cls, way in custom_serializers.items():
        listener(cls, way)
    listeners.add(listener)


def _rebuild_ref(object_id: bytes) -> ObjectRef:
    return current_engine().values.adopt(object_id)


class _Pieces(list[bytes | bytearray]):
    """A file that keeps what is written as it is. The pickler passes large bytes through without a copy."""

    write = list.append


class _Pickler(cloudpickle.Pickler):
    """Collects the references that it meets, since whoever receives the value will hold them too.

    Args:
        file: takes the pickle.
        buffers: takes the buffers; None: they are a part of the pickle.
        refs: takes the references.
        reduce: says how an object is to travel; None: it has no opinion.
        is_code: whether this is what is to be run, and not a value.
    """

    def __init__(
        self,
        file: _Pieces,
        buffers: list[pickle.PickleBuffer] | None,
        refs: list[ObjectRef],
        reduce: Callable[[Any], Any] = reduce_buffer,
        is_code: bool = False,
    ) -> None:
        super().__init__(file, protocol=5, buffer_callback=None if buffers is None else buffers.append)
        self._refs, self._reduce, self._is_code = refs, reduce, is_code

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is ObjectRef:
            self._refs.append(check_runtime(obj))
            return _rebuild_ref, (obj.id,)
        if kind in custom_serializers:
            serializer, deserializer = custom_serializers[kind]
            return deserializer, (serializer(obj),)
        reduced = self._reduce(obj)
        if reduced is not None:
            return reduced
        reduced = super().reducer_override(obj)
        return reduce_class(obj, reduced, self._is_code) if isinstance(obj, type) else reduced


def _as_plain(value: Any) -> Any:
    """Return what is pickled as well, and 10 µs sooner, without a pickler of our own; `_NOT_PLAIN` if there is none."""
    kind = type(value)
    if kind in _NUMBERS or (kind in _TEXTS and len(value) <= _LARGE):
        return value
    return PlainArray(value) if is_plain_array(value) and kind not in custom_serializers else _NOT_PLAIN


def _culprit(value: Any, depth: int = 4) -> Any:
    """Return what of a value cannot be pickled: itself, or an item of the lists, tuples and dictionaries in it."""
    items = value.values() if type(value) is dict else value if type(value) in (list, tuple) else ()
    for item in items if depth else ():
        try:
            _Pickler(_Pieces(), [], []).dump(item)
        except Exception:  # whatever it is, it is told of
            return _culprit(item, depth - 1)
    return value


def dump(value: Any, is_code: bool = False) -> tuple[Stream, list[pickle.PickleBuffer], list[ObjectRef]]:
    """Serialise a value; `is_code`: a function or class that is to be run.

    Returns:
        the pickle, in pieces if it is large, its out-of-band buffers in order, and the references found inside the
        value. Pieces and buffers may be the value's own memory: they are to be copied before it changes.

    Raises:
        TypeError: the value cannot be pickled; the message names its type.
    """
    buffers: list[pickle.PickleBuffer] = []
    refs: list[ObjectRef] = []
    plain = _as_plain(value)
    if plain is not _NOT_PLAIN:
        return pickle.dumps(plain, 5, buffer_callback=buffers.append), buffers, refs
    pieces = _Pieces()
    try:
        _Pickler(pieces, buffers, refs, is_code=is_code).dump(value)
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
        culprit = _culprit(value)
        kind = type(culprit)
        name = f" ({culprit.__qualname__})" if isinstance(culprit, FunctionType | type) else ""
        raise TypeError(
            f"a {kind.__module__}.{kind.__qualname__}{name} cannot be sent to another process: {error}. "
            "runtime.util.inspect_serializability(value) shows which member it is. Leave it out (__getstate__), create "
            "it inside the task or actor, or register a serializer (runtime.util.register_serializer)"
        ) from error
    if len(pieces) == 1 and type(pieces[0]) is bytes:
        return pieces[0], buffers, refs
    stream = b"".join(pieces) if sum(map(len, pieces)) <= _LARGE else pieces
    return stream, buffers, refs


def dumps(value: Any, is_code: bool = False) -> tuple[bytes, list[pickle.PickleBuffer], list[ObjectRef]]:
    """Serialise a value; as `dump`, with the pickle in one piece."""
    stream, buffers, refs = dump(value, is_code)
    return stream if type(stream) is bytes else b"".join(stream), buffers, refs  # type: ignore[arg-type]


def dump_whole(value: Any, reduce: Callable[[Any], Any]) -> tuple[bytes, list[ObjectRef]]:
    """Serialise a value with its buffers inside the pickle; return it beside the references inside the value.

    Args:
        value: what to serialise.
        reduce: returns how an object is to travel, in the form of `__reduce__`; None: as ever.

    Raises:
        BaseException: whatever the pickling of what the value holds raises.
    """
    pieces = _Pieces()
    refs: list[ObjectRef] = []
    _Pickler(pieces, None, refs, lambda obj: reduce(obj) or reduce_buffer(obj)).dump(value)
    return b"".join(pieces), refs


def dump_arguments(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Stream, list[pickle.PickleBuffer], list[ObjectRef]]:
    """Serialise the arguments of a call; as `dump`, quicker for plain values."""
    if not args and not kwargs:
        return _NO_ARGUMENTS, [], []
    # By identity, so that what is given twice travels once.
    plain = {id(value): _as_plain(value) for value in (*args, *kwargs.values())}
    if _NOT_PLAIN in plain.values():
        return dump((args, kwargs))
    whole = tuple([plain[id(value)] for value in args]), {key: plain[id(value)] for key, value in kwargs.items()}
    buffers: list[pickle.PickleBuffer] = []
    return pickle.dumps(whole, 5, buffer_callback=buffers.append), buffers, []


def loads(stream: bytes | memoryview, buffers: Iterable[Any] = ()) -> Any:
    """Rebuild a value; arrays are views of `buffers`."""
    return pickle.loads(stream, buffers=buffers)


def address_of(view: memoryview) -> int:
    """Return where a buffer lies in this process's memory; 0 if it is empty."""
    import numpy as np  # whoever asks has numpy loaded: the buffer is an array's

    return np.frombuffer(view, np.uint8).__array_interface__["data"][0] if view.nbytes else 0


class Slot:
    """Stands in a call's arguments where a reference stood that is replaced by its value before the call."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index

    def __reduce__(self) -> Any:
        return Slot, (self.index,)


def take_out_refs(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], list[ObjectRef]]:
    """Replace references that are arguments of their own by slots; return them beside the new arguments."""
    refs: list[ObjectRef] = []

    def slot(value: Any) -> Any:
        if type(value) is not ObjectRef:
            return value
        refs.append(check_runtime(value))
        return Slot(len(refs) - 1)

    new_args = tuple(map(slot, args))
    new_kwargs = {key: slot(value) for key, value in kwargs.items()} if kwargs else kwargs
    return (new_args, new_kwargs, refs) if refs else (args, kwargs, refs)


def fill_slots(
    args: tuple[Any, ...], kwargs: dict[str, Any], values: list[Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Put the values where `take_out_refs` took the references out."""

    def fill(value: Any) -> Any:
        return values[value.index] if type(value) is Slot else value

    return tuple(map(fill, args)), {key: fill(value) for key, value in kwargs.items()}
