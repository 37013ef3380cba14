"""A causal model of the library `transformers`, as one of ours: the same interface as `LanguageModel`.

Its tokens are ours but for the special ones: BEGIN and END are its own beginning and end of a text, ANSWER is the end
of a line. So it is asked "a prompt, a line end", which a model that has seen texts knows how to go on with.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
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
from .cache import Cache, TokenCache
from .inference import NEVER
from .library_cache import kept_by, library_cache
from .pretrained import check_targets
from .tokens import ANSWER, BEGIN, END, PAD, SPECIAL, read_tokenizer, tokens_between
from .transformer import packed_places

logger = logging.getLogger("shoal")


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
        self.network, self._adds_masks = _made(AutoModelForCausalLM, config)
        self._config = config.get_text_config()
        self._numbers = self._own_numbers()
        self.block = in_tiles(self.context + 1)  # the library's attention goes over all places at once
        self.state_size = self.tokens.size
        self._trial()
        if chosen.lora:
            self.trained = self._add_adapters(chosen.lora)
        if chosen.value_head:
            self.value = nn.Linear(self._config.hidden_size, 1)
            nn.init.zeros_(self.value.weight)
            nn.init.zeros_(self.value.bias)
            self.trained = self.trained and (*self.trained, "value")

    @torch.no_grad()
    def _trial(self) -> None:
        """Find out whether the model can be led through our cache and over packed rows: it can if the numbers are those
        of a plain forward pass of the library, also where its attention sees a window only."""
        window = next((size for name in _WINDOWS if (size := getattr(self._config, name, None))), 0)
        length = min(self.context, max(12, window + 8))
        tokens = SPECIAL + torch.arange(2 * length).view(2, -1) * 7 % (self.tokens.size - SPECIAL - 1)
        tokens[:, 0] = BEGIN
        wanted = self.forward(tokens)
        self._layers: tuple[tuple[int, int, int], ...] = ()
        self._packs = True
        try:
            self._layers = tuple(kept_by(self.network, self._own(tokens)))
            cache, zero = (
                Cache.empty(2, self.context + 1, self._layers, tokens.device),
                torch.zeros(2, dtype=torch.long),
            )
            self.extend(cache, tokens[:, :-1], zero, zero, in_tiles(length))
            found = self.extend(cache, tokens[:, -1:], zero + length - 1, zero, in_tiles(length))
            self._layers = self._layers if _alike(found, wanted[:, -1]) else ()
        except Exception as error:  # the library's, of any kind: a model that keeps something else
            logger.debug("the cache of a %s is not ours", self._config.model_type, exc_info=error)
            self._layers = ()
        try:
            self._packs = _alike(self.forward(tokens.view(1, -1), packed=True)[:, length:], wanted[1:])
        except Exception as error:  # as above: one that takes no mask of its own, say
            logger.debug("a %s does not read packed rows", self._config.model_type, exc_info=error)
            self._packs = False
        if not self._layers:
            logger.info(
                "a %s does not keep keys and values of all tokens, so it reads a text anew for each token of an answer",
                self._config.model_type,
            )

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
        if packed and not self._packs:
            return self._apart(tokens)
        where: dict[str, Tensor] = {}
        if packed:
            where["position_ids"], seen = packed_places(tokens)
            where["attention_mask"] = self._mask(seen)
        return self._logits(self.network(input_ids=self._own(tokens), use_cache=False, **where).logits)

    def _apart(self, tokens: Tensor) -> Tensor:
        """`forward` of packed rows, each text in a row of its own."""
        flat = tokens.flatten()
        rows = torch.arange(0, len(flat), tokens.shape[1], device=flat.device)
        starts = torch.cat([rows, (flat == BEGIN).nonzero()[:, 0]]).unique()
        lengths = torch.cat([starts[1:], starts.new_tensor([len(flat)])]) - starts
        at = starts[:, None] + torch.arange(int(lengths.max()), device=flat.device)
        own = at < (starts + lengths)[:, None]
        logits = self.forward(flat[at.clamp(max=len(flat) - 1)])
        found = torch.zeros((len(flat), logits.shape[-1]), dtype=torch.float32, device=flat.device)
        return found.index_put((at[own],), logits[own]).view(*tokens.shape, -1)

    def _mask(self, seen: Tensor) -> Tensor:
        """What is seen, as the model's attention takes it."""
        return torch.where(seen, 0.0, torch.finfo(torch.float32).min) if self._adds_masks else seen

    def evaluate(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """As `LanguageModel.evaluate`."""
        found = self.network(input_ids=self._own(tokens), use_cache=False, output_hidden_states=True)
        return self._logits(found.logits), self.value(found.hidden_states[-1])[..., 0]

    def cache(self, rows: int, places: int | None = None) -> Any:
        """As `LanguageModel.cache`."""
        room = (places or self.context) + 1
        if not self._layers:
            return TokenCache.empty(rows, room, self.flat.device)
        return Cache.empty(rows, room, self._layers, self.flat.device)

    def extend(self, cache: Any, tokens: Tensor, begins: Tensor, places: Tensor, reach: int) -> Tensor:
        """As `LanguageModel.extend`; the states are logits."""
        following = begins[:, None] + torch.arange(tokens.shape[1], device=tokens.device)
        positions = following.clamp(max=min(self.context, cache.capacity - 1))
        rows = torch.arange(len(tokens), device=tokens.device)
        if isinstance(cache, TokenCache):
            cache.tokens[rows[:, None], positions] = tokens
            last = positions[rows, places].clamp(max=reach - 1)
            read = self.network(input_ids=self._own(cache.tokens[:, :reach]), use_cache=False)
            return self._logits(read.logits[rows, last])
        seen = torch.arange(reach, device=tokens.device) <= positions[:, :, None]
        found = self.network(
            input_ids=self._own(tokens),
            position_ids=positions.clamp(max=self.context - 1),  # what lies beyond is nobody's
            attention_mask=self._mask(seen[:, None]),
            cache=library_cache(cache, positions, reach),
        )
        return self._logits(found.logits[rows, places])

    def ahead(self, cache: Any, begins: Tensor, steps: int) -> Iterator[Any]:
        """As `LanguageModel.ahead`."""
        longest = int(begins.max())
        for step in range(steps):
            yield cache, begins + step, in_tiles(min(longest + step, self.context) + 1)

    def follow(self, tokens: Tensor, places: Any) -> Tensor:
        """As `LanguageModel.follow`."""
        cache, begins, reach = places
        return self.extend(cache, tokens[:, None], begins, torch.zeros_like(begins), reach)

    def predict(self, states: Tensor) -> Tensor:
        """As `LanguageModel.predict`."""
        return states

    def begin_with(self, named: Mapping[str, np.ndarray]) -> None:
        """Take over parameters by their names here, or by those of files of the library; InputError if some are missing
        or unknown."""
        if not named or any(name.startswith("network.") for name in named):
            return super().begin_with(named)
        from transformers.utils import logging as told

        given = {name: torch.tensor(values) for name, values in named.items() if not name.endswith(_OLD_BUFFERS)}
        verbosity = told.get_verbosity()
        told.set_verbosity_error()  # it tells what is missing by itself
        told.disable_progress_bar()
        try:
            loaded, report = type(self.network).from_pretrained(
                None, config=self.network.config, state_dict=given, output_loading_info=True
            )
        except RuntimeError as error:  # shapes that are others
            raise InputError(f"the weights are not those of a {self._config.model_type}: {error}") from None
        finally:
            told.set_verbosity(verbosity)
            told.enable_progress_bar()
        for problem, keys in (("have tensors that it has not", "unexpected_keys"), ("lack", "missing_keys")):
            if report[keys]:
                names = ", ".join(sorted(report[keys])[:5])
                raise InputError(f"the weights of a {self._config.model_type} {problem}: {names}")
        own = {f"network.{name}": parameter.numpy() for name, parameter in loaded.state_dict().items()}
        return super().begin_with({name: own[name] for name in self.parameters_layout.shapes if name in own})

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
        names = {name.rpartition(".")[2] for name in layers} - {"lm_head", "embed_out"}
        check_targets(lora["targets"], names)
        self.adapters = nn.ModuleDict()
        for name, layer in layers.items():
            if name.rpartition(".")[2] in (lora["targets"] or names):
                weight: Any = layer.weight
                outputs, inputs = weight.shape if isinstance(layer, nn.Linear) else weight.shape[::-1]
                adapter = Adapter(inputs, outputs, lora["rank"], lora["alpha"])
                self.adapters[name.replace(".", "_")] = adapter
                layer.register_forward_hook(_adding(adapter))
        return ("adapters",)


_WINDOWS = ("sliding_window", "attention_chunk_size")
"""Settings of models whose attention sees so many tokens only."""
_OLD_BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")
"""What files of earlier versions hold beside parameters."""


def _adding(adapter: Adapter) -> Any:
    def add(layer: nn.Module, given: tuple[Tensor, ...], found: Tensor) -> Tensor:
        return found + adapter(given[0])

    return add


def _first(numbers: Any) -> Any:
    return numbers[0] if isinstance(numbers, list) else numbers


def _made(kind: Any, config: Any) -> tuple[Any, bool]:
    """A model with weights of its own, and whether its attention adds masks: sdpa, where a model has that, does not."""
    try:
        made, adds = kind.from_config(config, attn_implementation="sdpa", dtype=torch.float32), False
    except ValueError:
        made, adds = kind.from_config(config, attn_implementation="eager", dtype=torch.float32), True
    return made.eval(), adds  # no dropout: what is learned from is what was sampled


def _alike(found: Tensor, wanted: Tensor) -> bool:
    """Whether logits [..., V] are the same but for rounding."""
    said = wanted > NEVER / 2
    return bool((found - wanted)[said].abs().max() <= 2e-5 * wanted[said].std())
