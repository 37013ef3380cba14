"""The values of one call that returns several, while they are made."""

from __future__ import annotations

from typing import Any

from ...core.refs import ObjectRef
from ..process.objects import spans_of
from ..process.values import Values
from ..protocol import messages as m
from ..store.store import Store


class Drafts:
    """Values for a caller that does not know of them yet: until it does, they are objects of this process.

    So those that are done can move to disk while the store has no room for the others, as any object can.
    """

    def __init__(self, values: Values, store: Store, caller: bytes) -> None:
        self._values, self._store, self._caller = values, store, caller
        self._kept: list[tuple[m.Value, list[ObjectRef]] | ObjectRef] = []

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, value: Any) -> None:
        """Serialise the next value."""
        packed, inner = self._store.pack(value, self._values.me)
        if not spans_of(packed):
            self._kept.append((packed, inner))
            return
        with self._values.lock:
            ref = self._values.new_ref(self._values.new_ids(1)[0])
            self._values.objects.fulfil(ref.id, packed, inner)
        self._kept.append(ref)

    def hand_over(self) -> list[m.Value]:
        """Return all values, which are the caller's from here on, as are the references inside them."""
        values = []
        with self._values.lock:
            for kept in self._kept:
                value = self._take(kept) if isinstance(kept, ObjectRef) else kept[0]
                self._values.lend_all(value, self._caller)
                values.append(value)
        self._kept.clear()
        return values

    def _take(self, ref: ObjectRef) -> m.Value:
        record = self._values.objects.records[ref.id]
        value, record.value = record.value, None
        assert value is not None, "this process holds it"
        self._store.give(value, self._caller)
        return value
