"""How arrays and tensors leave their memory out of the pickle, and come back over wherever it lies then.

An array is its shape, type and memory. numpy says so itself for plain contiguous ones, in twice the time; what it lacks
(subclasses, dates, strided views) is here, too, and torch, which does not do it at all. A tensor is pickled as torch
does it, so that strides, `requires_grad`, subclasses and tensors that share a storage come out right; only the bytes of
its storage travel as an out-of-band buffer.
"""

from __future__ import annotations

import ctypes
import pickle
import sys
from typing import Any

_Byte = ctypes.c_char
_NUMBERS = frozenset("biufc")  # kinds of numpy's types

# Blocks of shared memory begin at multiples of it; so vector instructions find what they like, and Ray promises it.
_ALIGNMENT = 64


def aligned(data: Any) -> memoryview:
    """Return a copy of a buffer, writable, that begins at a multiple of 64 bytes."""
    size = len(data)
    memory = bytearray(size + _ALIGNMENT)
    start = -ctypes.addressof(_Byte.from_buffer(memory)) % _ALIGNMENT
    view = memoryview(memory)[start : start + size]
    view[:] = data
    return view


def as_aligned(data: Any) -> Any:
    """Return what was kept of a buffer as one that arrays may be made over: read-only, aligned, not copied in vain."""
    return aligned(data).toreadonly() if isinstance(data, bytes) else data


def reduce_buffer(obj: Any) -> Any:
    """Return the reduction of an array, tensor or storage; None if it is none, or its own pickling does it right."""
    module = type(obj).__module__
    if module in {"torch", "torch.storage"}:
        return _reduce_torch(obj)
    numpy = sys.modules.get("numpy")
    # While another thread is importing numpy, the module is there without its contents.
    if numpy is not None and isinstance(obj, getattr(numpy, "ndarray", ())):
        return _reduce_array(obj, numpy)
    return None


class PlainArray:
    """Stands for an array of numbers in a pickle: there is nothing in it for anybody else to reduce."""

    __slots__ = ("_array",)

    def __init__(self, array: Any) -> None:
        self._array = array

    def __reduce__(self) -> Any:
        return _reduce_plain(self._array)


def is_plain_array(obj: Any) -> bool:
    """Return whether this is an array of numbers, which a `PlainArray` may stand for."""
    numpy = sys.modules.get("numpy")
    return type(obj) is getattr(numpy, "ndarray", None) and obj.dtype.kind in _NUMBERS and obj.flags.forc


def _reduce_plain(array: Any) -> Any:
    dtype, flags = array.dtype, array.flags
    kind = dtype.str if dtype.kind in _NUMBERS and dtype.metadata is None else dtype
    # A buffer would be noted as read-only, and a copy of it could not be written either.
    is_open = flags.writeable and kind is not dtype
    memory = array if is_open else _memory(array.__array_interface__["data"][0], array.nbytes, array)
    order = () if flags.c_contiguous else (0, None, "F")
    return type(array), (array.shape, kind, pickle.PickleBuffer(memory), *order)


def _reduce_array(array: Any, numpy: Any) -> Any:
    kind, plain = type(array), numpy.ndarray
    if array.dtype.hasobject:
        return None
    if kind is not plain:
        ordinary = kind.__reduce__ is plain.__reduce__ and kind.__reduce_ex__ is plain.__reduce_ex__
        return (_rebuild_view, (array.view(plain), kind)) if ordinary else None
    if array.dtype.kind in "mM":  # numpy exports no buffers of dates
        return _rebuild_view, (array.view(numpy.int64), array.dtype)
    return _reduce_plain(array if array.flags.forc else array.copy(order="C"))


def _rebuild_view(array: Any, kind: Any) -> Any:
    return array.view(kind)


def _memory(address: int, size: int, keeps: Any) -> Any:
    """Return a buffer over memory of this process, which keeps its owner alive."""
    if size == 0:
        return bytearray()
    memory: Any = (ctypes.c_char * size).from_address(address)
    memory.keeps = keeps
    return memory


def _reduce_torch(obj: Any) -> Any:
    import torch

    kind = type(obj)
    if kind is torch.UntypedStorage:
        if obj.device.type != "cpu":
            return None
        return _rebuild_storage, (pickle.PickleBuffer(_memory(obj.data_ptr(), obj.nbytes(), obj)),)
    if kind is torch.storage.TypedStorage:
        storage = obj._untyped_storage
        return (_rebuild_typed, (storage, obj.dtype)) if storage.device.type == "cpu" else None
    if kind is not torch.Tensor or obj.device.type != "cpu" or obj.layout is not torch.strided:
        return None
    if obj.element_size() * obj.numel() * 2 < obj.untyped_storage().nbytes():
        # A part of a storage brings all of it along, which keeps tensors that share one together. A small part, as one
        # row of a replay buffer, goes alone.
        obj = obj.detach().clone().requires_grad_(obj.requires_grad)
    reduced = obj.__reduce_ex__(5)
    if reduced[0] is torch._utils._rebuild_tensor_v3:  # the newest types, such as float8, are for torch.save only
        integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[obj.element_size()]
        return _rebuild_tensor, (obj.detach().view(integer), obj.dtype, obj.requires_grad)
    return reduced


def _rebuild_storage(buffer: Any) -> Any:
    """Return a storage over the buffer, or over memory that is written when the storage is."""
    import torch

    view = memoryview(buffer)
    memory: Any = view
    if view.nbytes == 0:
        return torch.UntypedStorage(0)
    if view.readonly:
        # torch knows no read-only memory. A block of shared memory can be mapped so that the kernel copies the pages
        # that this process writes, and only when it does; what else is read-only is copied.
        private = getattr(view.obj, "private", None)
        memory = aligned(view) if private is None else private(view.obj)
    return torch.frombuffer(memory, dtype=torch.uint8).untyped_storage()


def _rebuild_tensor(tensor: Any, dtype: Any, requires_grad: bool) -> Any:
    return tensor.view(dtype).requires_grad_(requires_grad)


def _rebuild_typed(storage: Any, dtype: Any) -> Any:
    import torch

    return torch.storage.TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)
