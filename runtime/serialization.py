"""Values to bytes and back: pickle protocol 5 with large buffers out of band, functions and classes by cloudpickle.

Buffers (numpy arrays, bytearrays, …) are never copied into the pickle: the caller of `dumps` decides where they go
(a frame, shared memory), and `loads` builds arrays over wherever they lie, read-only.
"""

import io
import pickle
from collections.abc import Iterable
from typing import Any

import cloudpickle

from .context import current_engine
from .refs import ObjectRef

# Pickled by reference or by value without looking at anything else, so the C pickler alone does them right.
_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes})


def _rebuild_ref(object_id: bytes) -> ObjectRef:
    return current_engine().adopt(object_id)


class _Pickler(cloudpickle.Pickler):
    """Collects the references that it meets, since whoever receives the value will hold them too."""

    def __init__(self, file: io.BytesIO, buffers: list[pickle.PickleBuffer], refs: list[ObjectRef]) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffers.append)
        self._refs = refs

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is ObjectRef:
            self._refs.append(obj)
            return _rebuild_ref, (obj.id,)
        if kind.__module__ == "numpy" and kind.__name__ == "ndarray" and not obj.flags.forc:
            # numpy pickles a strided view in band, and it would come out writable, unlike every other array.
            return obj.copy(order="C").__reduce_ex__(5)
        return super().reducer_override(obj)


def dumps(value: Any) -> tuple[bytes, list[pickle.PickleBuffer], list[ObjectRef]]:
    """Serialise a value.

    Returns:
        the pickle, its out-of-band buffers in order, and the references found inside the value.

    Raises:
        TypeError: the value cannot be pickled; the message names its type.
    """
    buffers: list[pickle.PickleBuffer] = []
    refs: list[ObjectRef] = []
    if type(value) in _ATOMS:
        return pickle.dumps(value, 5), buffers, refs
    file = io.BytesIO()
    try:
        _Pickler(file, buffers, refs).dump(value)
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
        kind = type(value)
        raise TypeError(
            f"a {kind.__module__}.{kind.__qualname__} cannot be sent to another process: {error}. "
            "Leave the offending member out (__getstate__), or create it inside the task or actor"
        ) from error
    return file.getvalue(), buffers, refs


def dumps_arguments(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[bytes, list[pickle.PickleBuffer], list[ObjectRef]]:
    """Serialise the arguments of a call; as `dumps`, quicker for short tuples of plain values."""
    if not kwargs and all(type(arg) in _ATOMS for arg in args):
        return pickle.dumps((args, kwargs), 5), [], []
    return dumps((args, kwargs))


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
        refs.append(value)
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
