"""Tables for people: plain columns, no frames, nothing cut off that a pipe could still read."""

import sys
from collections.abc import Collection, Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

_ENDLESS = 10_000


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> Table:
    """Return a table; `right` are the columns that are aligned to the right."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, title in enumerate(titles):
        made.add_column(title, justify="right" if number in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*map(Text, row))
    return made


class _Console(Console):
    """One that tells that nobody reads any more as `print` does, instead of ending the process."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console() -> Console:
    """Return where results are printed; into a pipe, lines are as long as they are."""
    return _Console(width=None if sys.stdout.isatty() else _ENDLESS)


def plain(part: RenderableType) -> RenderableType:
    """Return text that rich shows as it is: what stands in brackets is no markup."""
    return Text(part) if isinstance(part, str) else part
