"""`shoal plot`: one picture of several runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..rl import draw_comparison, read_group
from ..runtime import InputError
from .flags import parse
from .output import note


@dataclass(frozen=True, kw_only=True)
class PlotFlags:
    """What to draw."""

    x: str = field(default="steps", metadata={"choices": ("steps", "time")})
    """Over environment steps, or over seconds of training."""
    out: str = field(default="comparison.png", metadata={"metavar": "FILE"})
    """The picture, .png or .svg."""
    title: str = ""
    """Text above it."""


def run(arguments: Sequence[str]) -> int:
    """Run `shoal plot` and return the exit code."""
    beginning = list(arguments)
    folders = []
    while beginning and not beginning[0].startswith("-"):
        folders.append(beginning.pop(0))
    about = "Draw runs, or folders of seeds (their mean and its interval), into one picture: shoal plot RUN… [flags]"
    flags: PlotFlags = parse("shoal plot", about, {"picture": PlotFlags}, beginning).build(PlotFlags)
    if not folders or not all(folders):
        raise InputError("no run is given. Runs come first: shoal plot runs/a runs/b --out comparison.png")
    draw_comparison([read_group(folder, flags.x) for folder in folders], flags.out, x=flags.x, title=flags.title)
    note(f"picture: {flags.out}")
    return 0
