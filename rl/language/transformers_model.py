"""A causal model of the library `transformers`, as one of ours: the same interface as `LanguageModel`.

Its tokens are ours but for the special ones: BEGIN and END are its own beginning and end of a text, ANSWER is the end
of a line. So it is asked "a prompt, a line end", which a model that has seen texts knows how to go on with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...runtime import InputError
from ..models.flat_module import FlatModule
from ..models.spec import ModelSpec
from .adapters import Adapter
from .attention import in_tiles
from .tokens import ANSWER, BEGIN, END, PAD, SPECIAL, read_tokenizer, tokens_between
from .transformer import NEVER, Cache, packed_places


class PretrainedModel(FlatModule):
    """Predicts tokens from those before them. `tokens` encodes and decodes."""

    memory, encoder = None, None
    constant_buffers = True  # frequencies of positions, which follow from the spec

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModelForCausalLM

        chosen = spec.architecture
        self.spec, self.context = spec, chosen.context
        tokens = tokens_between(read_tokenizer(chosen.tokenizer), spec.observation_space, spec.action_space)
        self.tokens = copy(tokens)  # other models may share it
        described = json.loads(chosen.transformers)
        kind = described.pop("model_type")
        described.pop("architectures", None)
        config = AutoConfig.for_model(kind, **described)
        made = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
        self.network = made.eval()  # no dropout: what is learned from is what was sampled
        self._config = config.get_text_config()
        self._numbers = self._own_numbers()
        self.block = in_tiles(self.context + 1)  # the library's attention goes over all places at once
        self.state_size = self.tokens.size
        if chosen.lora:
            self.trained = self._add_adapters(chosen.lora)
        if chosen.value_head:
            self.value = nn.Linear(self._config.hidden_size, 1)
            nn.init.zeros_(self.value.weight)
            nn.init.zeros_(self.value.bias)
            self.trained = self.trained and (*self.trained, "value")

    def _own_numbers(self) -> Tensor:
        """The library's number of each of our tokens."""
        size, end = int(self._config.vocab_size), _first(self._config.eos_token_id)
        if self.tokens.size - SPECIAL > size:
            raise InputError(
                f"the tokenizer has {self.tokens.size - SPECIAL} tokens, but the model {size}: it is another model's"
            )
        self.tokens.size = SPECIAL + size
        try:
            line_end = self.tokens.encode("\n")[-1:]
        except ValueError:  # an alphabet without it
            line_end = []
        begin = _first(self._config.bos_token_id)
        special = {PAD: end, BEGIN: end if begin is None else begin, END: end}
        special[ANSWER] = line_end[0] - SPECIAL if line_end else end
        return torch.tensor([special[number] for number in range(SPECIAL)] + list(range(size)))

    def forward(self, tokens: Tensor, packed: bool = False) -> Tensor:
        """As `LanguageModel.forward`."""
        where: dict[str, Tensor] = {}
        if packed:
            where["position_ids"], where["attention_mask"] = packed_places(tokens)
        return self._logits(self.network(input_ids=self._own(tokens), use_cache=False, **where).logits)

    def evaluate(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """As `LanguageModel.evaluate`."""
        found = self.network(input_ids=self._own(tokens), use_cache=False, output_hidden_states=True)
        return self._logits(found.logits), self.value(found.hidden_states[-1])[..., 0]

    def cache(self, rows: int) -> Cache:
        """As `LanguageModel.cache`."""
        config = self._config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return Cache.empty(config.num_hidden_layers, rows, heads, self.context, head, device=self.flat.device)

    def extend(self, cache: Cache, tokens: Tensor, begins: Tensor, places: Tensor, reach: int) -> Tensor:
        """As `LanguageModel.extend`; the states are logits."""
        following = begins[:, None] + torch.arange(tokens.shape[1], device=tokens.device)
        positions = following.clamp(max=self.context)
        seen = torch.arange(reach, device=tokens.device) <= positions[:, :, None]
        found = self.network(
            input_ids=self._own(tokens),
            position_ids=positions.clamp(max=self.context - 1),  # what lies beyond is nobody's
            attention_mask=seen[:, None],
            cache=_library_cache(cache, positions, reach),
        )
        rows = torch.arange(len(tokens), device=tokens.device)
        return self._logits(found.logits[rows, places])

    def predict(self, states: Tensor) -> Tensor:
        """As `LanguageModel.predict`."""
        return states

    def begin_with(self, named: Mapping[str, np.ndarray]) -> None:
        """Take over parameters by their names here, or by the library's; InputError if some are missing or unknown."""
        shapes, prefix = self.parameters_layout.shapes, f"{self.network.base_model_prefix}."
        known = {name for name, _ in self.named_parameters(remove_duplicate=False)}
        given, buffers = {}, {name for name, _ in self.named_buffers()}
        for name, values in named.items():
            own = next((n for n in (name, f"network.{name}", f"network.{prefix}{name}") if n in known), None)
            if own in shapes:
                given[own] = values
            elif own is None and f"network.{name}" not in buffers and not name.endswith(_OLD_BUFFERS):
                raise InputError(f"the weights have a tensor {name!r}, which a {self._config.model_type} has not")
        missing = [name for name in shapes if name not in given and not name.startswith(("adapters.", "value."))]
        if named and missing:
            raise InputError(f"the weights lack {', '.join(missing[:5])}, which a {self._config.model_type} has")
        super().begin_with({str(name): values for name, values in given.items()})

    def _own(self, tokens: Tensor) -> Tensor:
        self._numbers = self._numbers.to(tokens.device)
        return self._numbers[tokens]

    def _logits(self, logits: Tensor) -> Tensor:
        """Ours [..., SPECIAL + V] of the library's [..., V]: those of the end of a text are END's."""
        end = int(self._numbers[END])
        never = torch.full_like(logits[..., :1], NEVER)
        return torch.cat(
            [never, never, never, logits[..., end : end + 1], logits[..., :end], never, logits[..., end + 1 :]], -1
        )

    def _add_adapters(self, lora: Mapping[str, Any]) -> tuple[str, ...]:
        """As `adapters.add_adapters`; `targets` are the last parts of layers' names, by default all but the head."""
        self.network.requires_grad_(False)
        layers = {
            name: module
            for name, module in self.network.named_modules()
            if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
        }
        names = {name.rpartition(".")[2] for name in layers} - {"lm_head"}
        for target in lora["targets"]:
            if target not in names:
                raise InputError(
                    f"policy_kwargs['lora']['targets'] holds {target!r}, but must be of {', '.join(sorted(names))}"
                )
        self.adapters = nn.ModuleDict()
        for name, layer in layers.items():
            if name.rpartition(".")[2] in (lora["targets"] or names):
                weight: Any = layer.weight
                outputs, inputs = weight.shape if isinstance(layer, nn.Linear) else weight.shape[::-1]
                adapter = Adapter(inputs, outputs, lora["rank"], lora["alpha"])
                self.adapters[name.replace(".", "_")] = adapter
                layer.register_forward_hook(_adding(adapter))
        return ("adapters",)


_OLD_BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")
"""What files of earlier versions hold beside parameters."""


def _adding(adapter: Adapter) -> Any:
    def add(layer: nn.Module, given: tuple[Tensor, ...], found: Tensor) -> Tensor:
        return found + adapter(given[0])

    return add


def _first(numbers: Any) -> Any:
    return numbers[0] if isinstance(numbers, list) else numbers


def _library_cache(cache: Cache, positions: Tensor, end: int) -> Any:
    """The cache as the library asks for it: each layer writes at the `positions` [B, M] of its rows, and reads the
    places before `end`."""
    from transformers.cache_utils import Cache as LibraryCache
    from transformers.cache_utils import CacheLayerMixin

    each = torch.arange(len(positions), device=positions.device)[:, None]

    class Layer(CacheLayerMixin):
        """Keys and values of a layer."""

        def __init__(self, index: int) -> None:
            super().__init__()
            self._keys, self._values, self.is_initialized = cache.keys[index], cache.values[index], True

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

    return LibraryCache(layers=[Layer(index) for index in range(len(cache.keys))])
