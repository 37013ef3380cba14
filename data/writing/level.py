"""The stage that writes: a part for each unit that has rows, numbered in their order."""

from __future__ import annotations

import pyarrow as pa

from ... import runtime
from .. import steps
from ..flow import Answer, Unit
from ..levels import Stage
from ..rows import Rows
from .target import Target


@runtime.remote(num_returns=2)
def write_part(target: Target, number: int, block: pa.Table, unit: str) -> steps.Result:
    """Write a block; the new one has a row with what has been written."""
    table = pa.Table.from_pylist([target.write(number, block)])
    return steps.Meta(1, table.nbytes, unit), table


class Written:
    """Units of one row each: `file`, `rows` and `bytes` of a part.

    Args:
        stage: what it belongs to.
        rows: those of the child.
        target: where they are written.
    """

    def __init__(self, stage: Stage, rows: Rows, target: Target) -> None:
        self.stage, self.rows, self.target = stage, rows, target
        self.number = 0

    def pull(self) -> Unit | Answer:
        """Write the next unit, once it is made: whether it has rows must be known for the numbers to have no gaps."""
        head = self.rows.head_with_rows()
        if isinstance(head, Answer):
            return head
        stage, number = self.stage, self.number
        name = f"part {number}"
        stage.run.credits.keep_back(stage.depth, head.size)
        grant = stage.grant(head.size, name)
        if grant is None:
            return Answer.LATER
        self.rows.take()
        self.number += 1
        refs = write_part.remote(self.target, number, head.block, name)
        return stage.launch(grant, refs, name=name, epoch=head.epoch, cursor=None, inputs=[head], finished=[head])

    def close(self) -> None:
        """Let go of the rows ahead."""
        self.rows.close()
