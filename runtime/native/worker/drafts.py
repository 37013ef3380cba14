"""The values of one call that returns several, while they are made."""

from __future__ import annotations

from typing import Any

from ...refs import ObjectRef
from ..process.client import Client
from ..process.objects import spans_of
from ..protocol import messages as m


class Drafts:
    """Values for a caller that does not know of them yet: until it does, they are objects of this process.

    So those that are done can move to disk while the store has no room for the others, as any object can.
    """

    def __init__(self, client: Client, caller: bytes) -> None:
        self._client, self._caller = client, caller
        self._kept: list[tuple[m.Value, list[ObjectRef]] | ObjectRef] = []

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, value: Any) -> None:
        """Serialise the next value."""
        client = self._client
        packed, inner = client.store.pack(value, client.me)
        if not spans_of(packed):
            self._kept.append((packed, inner))
            return
        with client.lock:
            ref = client.new_ref(client.new_ids(1)[0])
            client.objects.fulfil(ref.id, packed, inner)
        self._kept.append(ref)

    def hand_over(self) -> list[m.Value]:
        """Return all values, which are the caller's from here on, as are the references inside them."""
        client, values = self._client, []
        with client.lock:
            for kept in self._kept:
                value = self._take(kept) if isinstance(kept, ObjectRef) else kept[0]
                client.lend_all(value, self._caller)
                values.append(value)
        self._kept.clear()
        return values

    def _take(self, ref: ObjectRef) -> m.Value:
        record = self._client.objects.records[ref.id]
        value, record.value = record.value, None
        assert value is not None, "this process holds it"
        self._client.store.give(value, self._caller)
        return value
