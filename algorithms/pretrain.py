"""Pre-training: causal language modelling (Radford et al., 2018, "Improving Language Understanding by Generative
Pre-Training", equation 1), with AdamW, warm-up and a falling step size (Brown et al., 2020, arXiv 2005.14165, appendix
B).

    for iteration = 1, 2, …
        lay out texts in rows of the model's context, packed                                (driver)
        gradient_steps times: descend on −log π(token | those before it in its text)        (learner)

A text longer than the context is cut into several. Texts that lie in a row see nothing of each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..rl import (
    Clock,
    Learner,
    PackedAlgorithm,
    Rollout,
    Text,
    TextConfig,
    documents_of,
    learn_next_tokens,
    plain_texts,
    rows_of_dataset,
)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TextConfig):
    """Hyperparameters of pre-training, those of `TextConfig` included.

    Raises:
        InputError: a value that cannot work.
    """


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

    def encode(self, examples: Sequence[str]) -> list[Text]:
        """Each in as many pieces as it takes."""
        tokens, context, seed = self.tokens, self.context, self.run.seed
        return [
            text
            for number, document in enumerate(examples)
            for text in plain_texts(document, number, tokens, context, seed)
        ]

    @staticmethod
    def prepare(learner: Learner, config: PretrainConfig) -> None:
        """AdamW."""
        learner.adamw(weight_decay=config.weight_decay, beta2=config.beta2)

    @staticmethod
    def update(learner: Learner, rollout: Rollout, config: PretrainConfig, clock: Clock) -> dict[str, float]:
        """`gradient_steps` minibatches."""
        return learn_next_tokens(learner, rollout, config, clock)
