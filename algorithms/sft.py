"""Supervised fine-tuning: the answers to prompts are learned as they are (Ouyang et al., 2022, arXiv 2203.02155,
step 1).

    for iteration = 1, 2, …
        lay out prompts and answers in rows of the model's context, packed                  (driver)
        gradient_steps times: descend on −log π(token of an answer | what comes before it)  (learner)

Prompts are read, never learned; of a conversation all answers are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
    Turns,
    conversation,
    conversations_of,
    number,
    right_answers,
    rows_of_dataset,
)
from .pretrain import learn_next_tokens


@dataclass(frozen=True, kw_only=True)
class SFTConfig(TextConfig):
    """Hyperparameters of supervised fine-tuning, those of `TextConfig` included.

    Raises:
        InputError: a value that cannot work.
    """

    examples: int = number(4096, whole=True, at_least=1)
    """Without a dataset: episodes of the task whose right answers are learned."""


class SFT(PackedAlgorithm[SFTConfig]):
    """Supervised fine-tuning on a `dataset` of rows with prompt and answer (or completion), or messages; or, without
    one, on the right answers of `env`, which says them in `info["right"]`. Arguments as in `TextAlgorithm`,
    hyperparameters as in `SFTConfig`."""

    name = "sft"
    config_class = SFTConfig
    presets_path: ClassVar[Path | None] = None

    def check(self) -> None:
        """Raise InputError if there are neither dataset nor task."""
        super().check()
        given = bool(self.config.dataset) or self._env_is_given
        self.require(given, "dataset", self.config.dataset, "given, or a task (ENV) that says its right answers")

    def examples(self) -> Iterator[Turns]:
        """Prompts and answers."""
        config, run = self.config, self.run
        if config.dataset:
            return conversations_of(rows_of_dataset(config.dataset), f"dataset {config.dataset!r}")
        return right_answers(self.spec, config.examples, run.seed, run.step_timeout)

    def texts_of(self, example: Turns) -> str:
        """All that is said."""
        return "".join(prompt + answer for prompt, answer in example)

    def encode(self, examples: Iterable[Turns]) -> Iterator[Text]:
        """One text each."""
        tokens = self.tokens
        return (conversation(turns, index, tokens) for index, turns in enumerate(examples))

    @staticmethod
    def update(learner: Learner, rollout: Rollout, config: SFTConfig, clock: Clock) -> dict[str, float]:
        """`gradient_steps` minibatches."""
        return learn_next_tokens(learner, rollout, config, clock)
