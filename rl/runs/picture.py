"""What all pictures of runs share: their size and looks, and how they are written."""

import io
from pathlib import Path
from typing import Any

from .files import write_whole


def load_matplotlib() -> tuple[Any, Any]:
    """Import it, which takes a third of a second; return the classes of a canvas and a figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    return FigureCanvasAgg, Figure


def empty_picture() -> tuple[Any, Any]:
    """A figure and its axes, of the size that all pictures of runs have."""
    canvas, figure_class = load_matplotlib()
    figure = figure_class(figsize=(8, 4.5), dpi=150, layout="constrained")
    canvas(figure)
    return figure, figure.add_subplot()


def write_picture(figure: Any, path: Path) -> None:
    """Write a .png or .svg file, as its name says; it appears under its name only when complete."""
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix.lower()[1:])
    write_whole(path, picture.getvalue())


def dress(
    axes: Any, furthest: float, title: str, x_label: str, y_label: str = "episode return (sum of rewards)"
) -> None:
    """Give axes their looks."""
    from matplotlib.ticker import FuncFormatter

    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color="#222222")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.set_xlim(0, furthest * 1.01)
    axes.margins(y=0.06)
    axes.grid(axis="y", color="#e3e3e3", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#999999")
    axes.tick_params(colors="#444444", labelsize=9)
    axes.legend(loc="best", frameon=True, framealpha=0.9, edgecolor="none", fontsize=9)


def _short(value: float) -> str:
    """Write 120000 as 120k and 1500000 as 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
