"""Direct preference optimization: Rafailov et al., 2023 (arXiv 2305.18290), equation 7; with the loss of IPO: Azar et
al., 2023 (arXiv 2310.12036), equation 17.

    π_ref ← the initial policy
    for iteration = 1, 2, …
        gradient_steps times, on pairs of answers to a prompt, y_w preferred to y_l:        (learner)
            h ← log π(y_w|x) / π_ref(y_w|x) − log π(y_l|x) / π_ref(y_l|x)
            descend on −log σ(β h),   or (h − 1 / (2 β))²

Log-probabilities are sums over an answer's tokens, its END included; IPO's here are means over them, as its authors use
it, so that β does not depend on lengths.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..rl import (
    Batch,
    Clock,
    Learner,
    Pairs,
    Rollout,
    TextAlgorithm,
    TextConfig,
    choice,
    log_probs_of,
    losses,
    number,
    pairs_of,
    rows_of_dataset,
    take_text_steps,
    torch,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class DPOConfig(TextConfig):
    """Hyperparameters of DPO, those of `TextConfig` included.

    Raises:
        InputError: a value that cannot work.
    """

    learning_rate: float = number(1e-4, above=0)
    """Largest step size of AdamW."""
    beta: float = number(0.1, above=0)
    """How much the distance to the initial policy counts (β)."""
    loss: str = choice("sigmoid", "sigmoid", "ipo")
    """sigmoid: DPO's own; ipo: squares, which have an optimum also where the same answer is always preferred."""
    label_smoothing: float = number(0.0, at_least=0, at_most=0.5)
    """How likely a preference is the wrong way round (conservative DPO); with sigmoid."""


class DPO(TextAlgorithm[DPOConfig]):
    """DPO on a `dataset` of rows with prompt, chosen and rejected, from the policy that `initial` names. Arguments as
    in `TextAlgorithm`, hyperparameters as in `DPOConfig`."""

    name = "dpo"
    config_class = DPOConfig
    presets_path: ClassVar[Path | None] = None

    def check(self) -> None:
        """Raise InputError for smoothing that the loss does not know."""
        super().check()
        config = self.config
        smooth = config.loss == "sigmoid" or not config.label_smoothing
        self.require(smooth, "label_smoothing", config.label_smoothing, f"0 with loss {config.loss!r}")

    def examples(self) -> Iterator[tuple[str, str, str]]:
        """Prompts, chosen and rejected answers."""
        dataset = self.config.dataset
        return pairs_of(rows_of_dataset(dataset), f"dataset {dataset!r}")

    def texts_of(self, example: tuple[str, str, str]) -> str:
        """All three."""
        return "".join(example)

    @cached_property
    def pairs(self) -> Pairs:
        """The pairs, encoded."""
        context = self.language_spec.architecture.context
        pairs = Pairs.of(self.examples(), self.tokens, context, self.run.seed, self.config.held_out)
        if pairs is None:
            raise self.nothing_there()
        return pairs

    def rows(self, start: int, count: int) -> dict[str, np.ndarray]:
        """As `Pairs.rows`."""
        return self.pairs.rows(start, count)

    def held_out_rows(self) -> dict[str, np.ndarray] | None:
        """As `Pairs.held_out_rows`."""
        return self.pairs.held_out_rows()

    def facts(self) -> dict[str, Any]:
        """Name, number of pairs, SHA-256 of them."""
        return {"name": self.config.dataset, "pairs": len(self.pairs), "sha256": self.pairs.sha256}

    @staticmethod
    def prepare(learner: Learner, config: DPOConfig) -> None:
        """AdamW, and the initial policy as reference."""
        TextAlgorithm.prepare(learner, config)
        learner.add_target()

    @staticmethod
    def update(learner: Learner, rollout: Rollout, config: DPOConfig, clock: Clock) -> dict[str, float]:
        """`gradient_steps` minibatches."""

        def loss_of(rows: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            answers = answer_log_probs(learner.model, rows, config.loss)
            return dpo_loss(answers, rows["reference"], config)

        def batch_of(learner: Learner, batch: Batch) -> dict[str, Tensor]:
            rows = learner.tensors({"tokens": batch["tokens"].astype(np.int64), "mask": batch["mask"]})
            with torch.no_grad(), learner.in_precision(rows["tokens"].device):  # as the loss has them
                return rows | {"reference": answer_log_probs(learner.target, rows, config.loss)}

        def counted(batch: Batch) -> int:
            return batch.rows

        return take_text_steps(learner, rollout, config, clock, batch_of=batch_of, loss_of=loss_of, counted=counted)


def answer_log_probs(model: Any, rows: dict[str, Tensor], loss: str) -> Tensor:
    """log π(y|x) [B, 2] of the chosen and the rejected answer of pairs, `tokens` and `mask` [B, 2, T]; with ipo the
    mean of an answer's tokens."""
    tokens, mask = rows["tokens"].flatten(0, 1), rows["mask"].flatten(0, 1)
    each = log_probs_of(model, tokens, 1.0)
    found = losses.masked_mean(each, mask) if loss == "ipo" else losses.masked_sum(each, mask)
    return found.view(-1, 2)


def dpo_loss(answers: Tensor, reference: Tensor, config: DPOConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of pairs, of log π and log π_ref [B, 2] of chosen and rejected answers, and what there is to say:
    implicit rewards β log π / π_ref, their margin, and how often it is positive."""
    rewards = config.beta * (answers - reference)
    margins = rewards[:, 0] - rewards[:, 1]
    if config.loss == "ipo":
        each = (margins / config.beta - 1 / (2 * config.beta)) ** 2
    else:
        log_sigmoid = torch.nn.functional.logsigmoid
        each = -(1 - config.label_smoothing) * log_sigmoid(margins) - config.label_smoothing * log_sigmoid(-margins)
    loss = each.mean()
    with torch.no_grad():
        told = {
            "loss": loss,
            "accuracy": (margins > 0).float().mean(),
            "reward_margin": margins.mean(),
            "reward_chosen": rewards[:, 0].mean(),
            "reward_rejected": rewards[:, 1].mean(),
            "log_prob_chosen": answers[:, 0].mean(),
            "log_prob_rejected": answers[:, 1].mean(),
        }
        return loss, {name: value.detach() for name, value in told.items()}
