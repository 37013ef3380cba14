"""What all actors that add rounds to a model share."""

from __future__ import annotations

from ...runtime import ObjectRef, put
from .table import Table

History = dict[str, dict[str, list[float]]]
"""A list over rounds for each set ("train", "eval") and metric, all of which are better the lower they are."""
ATTEMPTS = 10
"""How often rounds are boosted again whose actor died: data that ends every process must not be tried for ever."""


def put_rows(train: Table, held_out: Table | None) -> list[ObjectRef]:
    """Features and labels to learn from, then those that are held out, if any, in the object store."""
    sets = [train] if held_out is None else [train, held_out]
    return [put(array) for table in sets for array in (table.features, table.labels)]
