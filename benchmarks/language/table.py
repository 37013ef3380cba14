"""Make the table in docs/language.md, and the picture docs/language.png, of the rows that `run.py` has written.

python benchmarks/language/table.py [--check]
"""

import argparse
import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from shoal.rl import bootstrap_interval, interquartile_mean

HERE = Path(__file__).parent
DOCS = HERE.parent.parent / "docs"
BEGIN, END = "<!-- table: benchmarks/language/table.py -->", "<!-- end of table -->"


def table_line(row: dict) -> str:
    """A row as Markdown."""
    seeds = row["seeds"]
    cpu, exact = ([seed[name] for seed in seeds] for name in ("cpu_seconds", "exact"))
    solved = " ".join(f"{value:.3f}" for value in exact)
    if before := [seed["exact_before"] for seed in seeds if "exact_before" in seed]:
        solved += f" (before: {' '.join(f'{value:.3f}' for value in before)})"
    reached = f"{row['reached']} of {len(seeds)}"
    return f"| `{row['row']}` | {row['iterations']} | {solved} | {row['goal']} | {reached} | {np.median(cpu):.0f} |"


def draw(rows: list[dict], path: Path) -> None:
    """One small picture a row: the interquartile mean of the seeds' mean rewards, with its 95 % interval."""
    figure, axes = plt.subplots(1, len(rows), figsize=(3 * len(rows), 2.4), sharey=True, layout="constrained")
    for axis, row in zip(np.atleast_1d(axes), rows, strict=True):
        curves = np.array([seed["rewards"] for seed in row["seeds"]])
        iterations = np.arange(1, curves.shape[1] + 1)
        means = [interquartile_mean(column) for column in curves.T]
        if len(curves) > 1:
            low, high = zip(*(bootstrap_interval(column, resamples=200) for column in curves.T), strict=True)
            axis.fill_between(iterations, low, high, alpha=0.3, linewidth=0)
        axis.plot(iterations, means)
        axis.set_title(f"{row['row']}, {len(curves)} seed{'s' if len(curves) > 1 else ''}", fontsize=9)
        axis.set_xlabel("iteration", fontsize=8)
        axis.set_ylim(-0.02, 1.02)
    np.atleast_1d(axes)[0].set_ylabel("mean reward", fontsize=8)
    figure.savefig(path, dpi=80)


def document(rows: list[dict], text: str) -> str:
    """The page with its table made anew."""
    head = "| row | iterations | greedy answers that are right, of 256 prompts, seed by seed | wanted | seeds | CPU s |"
    lines = [head, "|---|---:|---|---:|---:|---:|", *map(table_line, rows)]
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "\n".join([before + BEGIN, *lines, END]) + after


def main() -> None:
    """Write both; or, with --check, fail if the table in the document is not of the rows there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the table is not of the rows")
    flags = parser.parse_args()
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((HERE / "rows").glob("*.json"))]
    rows, page = [row for row in rows if "interquartile_mean" in row], DOCS / "language.md"
    text = page.read_text(encoding="utf-8")
    made = document(rows, text)
    if flags.check:
        sys.exit(f"{page} is not of the rows: run benchmarks/language/table.py" if made != text else 0)
    page.write_text(made, encoding="utf-8")
    draw(rows, DOCS / "language.png")


if __name__ == "__main__":
    main()
