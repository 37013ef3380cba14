"""Make docs/learning.md and docs/learning.png of the rows that `run.py` has written.

python benchmarks/learning/table.py [--check]
"""

import argparse
import json
import sys
import tomllib
from pathlib import Path

import numpy as np

from shoal.rl.statistics import interquartile_mean

HERE = Path(__file__).parent
DOCS = HERE.parent.parent / "docs"
RESAMPLINGS = 2000
COLUMNS = 4
BEGIN, END = "<!-- table: benchmarks/learning/table.py -->", "<!-- end of table -->"


def bootstrap_interval(returns: np.ndarray) -> tuple[float, float]:
    """95 % interval of the interquartile mean of `returns` [seeds, episodes].

    Seeds are drawn with replacement, and of each its episodes: the table has to say how uncertain three trainings are,
    not only their episodes."""
    generator = np.random.default_rng(0)
    seeds, episodes = returns.shape
    means = []
    for _ in range(RESAMPLINGS):
        chosen = returns[generator.integers(seeds, size=seeds)]
        drawn = np.take_along_axis(chosen, generator.integers(episodes, size=(seeds, episodes)), axis=1)
        means.append(interquartile_mean(drawn))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def read_rows() -> dict[str, list[dict]]:
    """The finished seeds of each row, in the order of settings.toml."""
    rows = tomllib.loads((HERE / "settings.toml").read_text(encoding="utf-8"))
    found = {row: sorted((HERE / "rows").glob(f"{row}-[0-9].json")) for row in rows}
    return {row: [json.loads(path.read_text(encoding="utf-8")) for path in paths] for row, paths in found.items()}


def number(value: float, goal: float) -> str:
    """A return as the table shows it: a decimal where it matters."""
    return f"{value:,.0f}" if abs(goal) >= 1000 else f"{value:.1f}"


def table_line(row: str, settings: dict, seeds: list[dict]) -> str:
    """A row as Markdown."""
    name = settings["title"], settings.get("env_title", settings["env"])
    steps, goal = f"{settings['steps']:,}".replace(",", " "), settings["goal"]
    if not seeds:
        return f"| {' | '.join(name)} | {steps} | {goal:,} | – | | | | | `{row}` |"
    returns = np.array([seed["returns"] for seed in seeds])
    low, high = bootstrap_interval(returns)
    iqm, mean = interquartile_mean(returns), returns.mean()
    reached = "**yes**" if mean >= goal else "no"
    each = ", ".join(number(value, goal) for value in returns.mean(1))
    seconds = np.median([seed["seconds"] for seed in seeds])
    interval = f"{number(iqm, goal)} [{number(low, goal)}, {number(high, goal)}]"
    return (
        f"| {' | '.join(name)} | {steps} | {goal:,} | {number(mean, goal)} | {reached} | {each} | {interval} "
        f"| {seconds:,.0f} | `{row}` |"
    )


def document(rows: dict[str, list[dict]], text: str) -> str:
    """`text` with its table made anew."""
    settings = tomllib.loads((HERE / "settings.toml").read_text(encoding="utf-8"))
    head = (
        "| algorithm | environment | steps | goal | mean return | reached | of each seed | IQM [95 %] | s | row |\n"
        "|---|---|--:|--:|--:|---|---|---|--:|---|"
    )
    lines = [table_line(row, settings[row], seeds) for row, seeds in rows.items()]
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{head}\n" + "\n".join(lines) + f"\n{END}{rest.split(END)[1]}"


def draw(rows: dict[str, list[dict]], path: Path) -> None:
    """One small picture for each row: the curves of the trainings, a dot for each final policy, the goal."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    table = tomllib.loads((HERE / "settings.toml").read_text(encoding="utf-8"))
    drawn = {row: seeds for row, seeds in rows.items() if seeds}
    lines = -(-len(drawn) // COLUMNS)
    figure = Figure(figsize=(3.3 * COLUMNS, 2.5 * lines), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    grid = list(figure.subplots(lines, COLUMNS, squeeze=False).flat)
    for axes, (row, seeds) in zip(grid, drawn.items(), strict=False):
        axes.axhline(table[row]["goal"], color="#c44e52", linestyle=(0, (5, 3)), linewidth=1.1)
        for color, seed in zip(("#1f77b4", "#2ca02c", "#9467bd"), seeds, strict=False):
            axes.plot(*np.array(seed["curve"]).T, color=color, linewidth=1.3)
            axes.plot(seed["timesteps"], seed["mean_return"], "o", color=color, markersize=4)
        title = f"{table[row]['title']}, {table[row].get('env_title', table[row]['env'])}"
        axes.set_title(title, loc="left", fontsize=9)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k")
        axes.tick_params(labelsize=8, colors="#444444")
        axes.grid(axis="y", color="#e3e3e3", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[len(drawn) :]:
        axes.set_visible(False)
    figure.savefig(path, metadata={"Software": None})


def main() -> None:
    """Write both files; or, with --check, fail if the table in the document is not of the rows there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the table is not of the rows")
    flags = parser.parse_args()
    rows, path = read_rows(), DOCS / "learning.md"
    text = path.read_text(encoding="utf-8")
    made = document(rows, text)
    if flags.check:
        sys.exit(f"{path} is not of the rows: run benchmarks/learning/table.py" if made != text else 0)
    path.write_text(made, encoding="utf-8")
    draw(rows, DOCS / "learning.png")


if __name__ == "__main__":
    main()
