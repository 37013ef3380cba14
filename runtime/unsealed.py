"""Arrays from `empty` on engines whose memory they don't lie in: ordinary ones, until they are put or returned."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from . import serialization

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike


class Unsealed:
    """Knows the arrays again that it has made, by where their memory lies."""

    def __init__(self) -> None:
        self._arrays: dict[int, weakref.ref[np.ndarray]] = {}

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """Return a new array, to be recognised by `seal`."""
        import numpy as np

        array = np.empty(shape, dtype)
        if array.nbytes and not array.dtype.hasobject:
            address = array.__array_interface__["data"][0]
            self._arrays[address] = weakref.ref(array, lambda _: self._arrays.pop(address, None))
        return array

    def seal(self, view: memoryview) -> np.ndarray | None:
        """Make the array read-only whose memory this is, and return it; None if it is none of these."""
        if not self._arrays:
            return None
        address = serialization.address_of(view)
        found = self._arrays.get(address)
        array = None if found is None else found()
        if array is None or array.nbytes != view.nbytes:
            return None
        del self._arrays[address]
        array.flags.writeable = False
        return array
