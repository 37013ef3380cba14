"""What one group of rows sampled in one rollout: whole episodes, written by a generator and read by the learner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..data.batch import Batch
from ..data.rollout import Rollout
from .tokens import PAD

REWARD_OF = "reward_of/"
"""With the name of one of several rewards: a column."""


@dataclass(frozen=True, eq=False)
class Samples(Rollout):
    """Episodes of R rows, one each; `steps` has these columns:

    `tokens` [R, L] int32, all that was read and said, filled up with PAD; `mask` [R, L] bool, what the model itself
    sampled; `log_probs` and `sampled_log_probs` [R, L] float32 of these tokens, under the softmax of logits /
    temperature, and under what top-k and top-p left of it; `entropies` [R, L] float32 of the softmax; `rewards` [R]
    float32, the episode's return; `cut` [R] bool, an answer of it was cut off at its limit; `solved` [R] bool, as
    `Played` has it; `prompts` [R] int64, the same for rows of one prompt; `reward_of/NAME` [R] float32, each reward
    that the environment names.
    """

    weights_sha256: str = ""
    """Of the weights that sampled."""

    @staticmethod
    def side_by_side(rollouts: Sequence[Rollout]) -> Rollout:
        """The rows of several groups, in the order given, filled up to the same length."""
        groups = [group for group in rollouts if isinstance(group, Samples)]
        length = max(group.steps["tokens"].shape[1] for group in groups)
        names = {name for group in groups for name in group.steps if name.startswith(REWARD_OF)}
        steps = Batch.end_to_end([_filled(group.steps, length, sorted(names)) for group in groups])
        return replace(groups[0], steps=steps, parts=tuple(groups))


def _filled(steps: Batch, length: int, names: Sequence[str]) -> Batch:
    """Steps filled up on the right, and with zeros for rewards that are named in other groups only."""
    rows, before = steps["tokens"].shape
    missing = {name: np.zeros(rows, np.float32) for name in names if name not in steps}
    if before < length:
        wide = {name: column for name, column in steps.items() if column.ndim == 2}
        fill = {"tokens": PAD}
        missing |= {
            name: np.pad(column, ((0, 0), (0, length - before)), constant_values=fill.get(name, 0))
            for name, column in wide.items()
        }
    return steps.plus(**missing) if missing else steps
