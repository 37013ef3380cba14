"""Pre-training: causal language modelling (Radford et al., 2018, "Improving Language Understanding by Generative
Pre-Training", equation 1), with AdamW, warm-up and a falling step size (Brown et al., 2020, arXiv 2005.14165, appendix
B).

    for iteration = 1, 2, …
        lay out texts in rows of the model's context, packed                                (driver)
        gradient_steps times: descend on −log π(token | those before it in its text)        (learner)

A text longer than the context is cut into several. Texts that lie in a row see nothing of each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..rl import (
    Batch,
    Clock,
    Learner,
    PackedAlgorithm,
    Rollout,
    Text,
    TextConfig,
    documents_of,
    losses,
    number,
    plain_texts,
    rows_of_dataset,
    take_text_steps,
    torch,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TextConfig):
    """Hyperparameters of pre-training, those of `TextConfig` included.

    Raises:
        InputError: a value that cannot work.
    """

    weight_decay: float = number(0.1, at_least=0)
    """How much matrices are drawn to 0, in parts of the step size; not norms and embeddings."""


class Pretrain(PackedAlgorithm[PretrainConfig]):
    """Pre-training on a `dataset` of texts: files (each a text), or rows with the column `text`. Arguments as in
    `TextAlgorithm`, hyperparameters as in `PretrainConfig`."""

    name = "pretrain"
    config_class = PretrainConfig
    presets_path: ClassVar[Path | None] = None

    def examples(self) -> Iterator[str]:
        """Texts."""
        dataset = self.config.dataset
        return documents_of(rows_of_dataset(dataset), f"dataset {dataset!r}")

    def texts_of(self, example: str) -> str:
        """The text itself."""
        return example

    def encode(self, examples: Iterable[str]) -> Iterator[Text]:
        """Each in as many pieces as it takes."""
        tokens, context, seed = self.tokens, self.context, self.run.seed
        for index, document in enumerate(examples):
            yield from plain_texts(document, index, tokens, context, seed)

    @staticmethod
    def update(learner: Learner, rollout: Rollout, config: PretrainConfig, clock: Clock) -> dict[str, float]:
        """`gradient_steps` minibatches."""
        return learn_next_tokens(learner, rollout, config, clock)


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
