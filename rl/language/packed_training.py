"""Learning the next token of texts that are packed into rows: what pre-training and supervised fine-tuning share."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from ...runtime import InputError
from ..clock import Clock
from ..data.batch import Batch
from ..data.rollout import Rollout
from ..lazy import losses, torch
from ..learn.learner import Learner
from .packing import Corpus, RowOrder, Text
from .text_training import TextAlgorithm, TextConfig, take_text_steps

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger("shoal")
_MEASURED = 64
"""Rows that are held out, at most: what is measured after each iteration."""

Config = TypeVar("Config", bound=TextConfig)


class PackedAlgorithm(TextAlgorithm[Config], Generic[Config]):
    """Texts in rows of the model's context, packed; an algorithm says what they are."""

    def encode(self, examples: Sequence[Any]) -> list[Text]:
        """The texts of all examples; ValueError for characters that there are no tokens for."""
        raise NotImplementedError

    @property
    def context(self) -> int:
        """Tokens of a row."""
        return int(self.language_spec.architecture.context)

    @cached_property
    def corpus(self) -> Corpus:
        """All texts that fit into a row; InputError if none does. How many do not is logged."""
        texts = self.encode(self._read)
        fitting = [text for text in texts if len(text.ids) <= self.context]
        longest = max(len(text.ids) for text in texts)
        if not fitting:
            raise InputError(
                f"all texts have more tokens ({min(len(text.ids) for text in texts)} to {longest}) than "
                f"policy_kwargs['context'] = {self.context}: choose a larger one"
            )
        if len(fitting) < len(texts):
            logger.warning(
                "%d of %d texts are left out: they have up to %d tokens, more than policy_kwargs['context'] = %d",
                len(texts) - len(fitting),
                len(texts),
                longest,
                self.context,
            )
        return Corpus(tuple(fitting), self.context, self.run.seed)

    @cached_property
    def _divided(self) -> tuple[Corpus, Corpus]:
        return self.corpus.divide(self.config.held_out)

    @cached_property
    def _order(self) -> RowOrder:
        return RowOrder(self._divided[0])

    def rows(self, start: int, count: int) -> dict[str, np.ndarray]:
        """As `Corpus.laid_out`."""
        return self._divided[0].laid_out(self._order.of(start, count))

    def held_out_rows(self) -> dict[str, np.ndarray] | None:
        """As `Corpus.laid_out`, the first rows of what is held out."""
        held_out = self._divided[1]
        return held_out.laid_out(held_out.epoch(0)[:_MEASURED]) if held_out.texts else None

    def facts(self) -> dict[str, Any]:
        """Name, numbers, SHA-256 of what is learned."""
        corpus = self.corpus
        return {
            "name": self.config.dataset or self.spec.id,
            "texts": len(corpus.texts),
            "tokens": corpus.tokens,
            "sha256": corpus.sha256,
        }


def packed_batch(learner: Learner, rows: Batch) -> dict[str, Tensor]:
    """A minibatch: `tokens` [B, T] int64, `mask` [B, T] bool, and `weights` [B, T] float32, with which the mean over
    rows is that over all learned tokens of the minibatch."""
    batch = learner.tensors({"tokens": rows["tokens"].astype(np.int64), "mask": rows["mask"]})
    return batch | {"weights": losses.token_weights(batch["mask"], "token", 0)}


def _tokens(rows: Batch) -> int:
    return int(np.count_nonzero(rows["mask"]))


def next_token_loss(model: Any, rows: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """−log π(token | those before it in its text), averaged over the learned tokens of the minibatch; and how many of
    them were the most likely ones."""
    logits, tokens, mask = model(rows["tokens"], packed=True), rows["tokens"], rows["mask"]
    loss = losses.mean_over_rows(-losses.log_probs_of(logits, tokens), mask, rows["weights"])
    with torch.no_grad():
        right = torch.nn.functional.pad(logits[:, :-1].argmax(-1) == tokens[:, 1:], (1, 0)).float()
        return loss, {"loss": loss.detach(), "accuracy": losses.mean_over_rows(right, mask, rows["weights"])}


def learn_next_tokens(learner: Learner, rollout: Rollout, config: Any, clock: Clock) -> dict[str, float]:
    """Gradient steps on the rows of an iteration; metrics of these, and of the rows that are held out: loss in nats per
    token, its exponential, and bits per byte of UTF-8 (an END costs, but stands for none)."""

    def loss_of(rows: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return next_token_loss(learner.model, rows)

    metrics = take_text_steps(learner, rollout, config, clock, batch_of=packed_batch, loss_of=loss_of, counted=_tokens)
    if "eval/loss" in metrics:
        steps = rollout.parts[1].steps
        bits = metrics["eval/loss"] * np.count_nonzero(steps["mask"]) / math.log(2)
        metrics["eval/perplexity"] = math.exp(min(metrics["eval/loss"], 700.0))
        metrics["eval/bits_per_byte"] = float(bits / max(1.0, steps["nbytes"].sum()))
    return metrics
