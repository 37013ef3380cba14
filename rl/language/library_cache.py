"""Our cache as the library `transformers` asks for one, and what a model of it would keep there."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from .cache import Cache


def library_cache(cache: Cache, positions: Tensor, end: int) -> Any:
    """The cache as the library asks for it: each layer writes at the `positions` [B, M] of its rows, and reads the
    places before `end`."""
    from transformers.cache_utils import Cache as LibraryCache
    from transformers.cache_utils import CacheLayerMixin

    each = torch.arange(len(positions), device=positions.device)[:, None]

    class Layer(CacheLayerMixin):
        """Keys and values of a layer."""

        def __init__(self, keys: Tensor, values: Tensor) -> None:
            super().__init__()
            self._keys, self._values, self.is_initialized = keys, values, True

        def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
            """Nothing: they are there."""

        def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            """Write what is new, and return what there is."""
            self._keys[each, :, positions] = key_states.transpose(1, 2)
            self._values[each, :, positions] = value_states.transpose(1, 2)
            return self._keys[:, :, :end], self._values[:, :, :end]

        def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
            """Of what is read."""
            return end, 0

        def get_seq_length(self) -> int:
            """Places that are read and not new."""
            return end - positions.shape[1]

        def get_max_length(self) -> int:
            """Of a whole context, and one more."""
            return int(self._keys.shape[2])

    return LibraryCache(layers=[Layer(*each) for each in cache.layers()])


def kept_by(network: Any, tokens: Tensor) -> list[tuple[int, int, int]]:
    """Of each layer the number of heads, and the sizes of a key and a value, that a model keeps when it reads `tokens`
    [B, M]. Raises whatever the library does where a model keeps something else."""
    from transformers.cache_utils import DynamicCache

    kept = DynamicCache(config=network.config)
    network(input_ids=tokens, cache=kept, use_cache=True)
    layers: list[Any] = [(layer.keys, layer.values) for layer in cast("list[Any]", kept.layers)]
    return [(int(keys.shape[1]), int(keys.shape[3]), int(values.shape[3])) for keys, values in layers]
