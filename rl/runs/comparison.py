"""One picture of several runs: each run, or group of seeds, a curve; of a group the mean and its bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...runtime import InputError
from ..statistics import bootstrap_interval
from .files import understood
from .learning_curve import episode_curve
from .metrics import read_evaluations, read_metrics
from .picture import dress, empty_picture, write_picture
from .run_place import file_problem

FORMATS = (".png", ".svg")
AXES = {"steps": "environment steps", "time": "seconds of training"}
_POINTS = 200
_COLORS = ("#4c78a8", "#e1812c", "#3a923a", "#c03d3e", "#9372b2", "#845b53", "#d684bd", "#7f7f7f")


@dataclass(frozen=True)
class Curve:
    """Mean of the last 100 returns over steps or seconds, of one run; of evaluations where no episode ended."""

    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Group:
    """Curves of one setting: one run, or several that differ by their seed."""

    name: str
    curves: tuple[Curve, ...]


def read_group(folder: str | Path, x: str = "steps") -> Group:
    """The curve of a run folder, or those of the runs `seed-…` in a folder of seeds. InputError if there is none."""
    path = Path(folder)
    runs = [path] if (path / "metrics.jsonl").exists() else sorted(path.glob("seed-*"), key=_number)
    curves = [curve for run in runs if len((curve := _read(run / "metrics.jsonl", x)).x)]
    if not curves:
        what = "it holds no metrics.jsonl, and no runs seed-0, seed-1, …. Name the folder of a run"
        if runs:
            what = "no episode has ended in it, and nothing was evaluated: losses are in metrics.jsonl"
        raise InputError(f"there is nothing to draw of {str(path)!r}: {what}")
    return Group(path.resolve().name, tuple(curves))


def _number(path: Path) -> tuple[int, str]:
    digits = path.name.rpartition("-")[2]
    return (int(digits) if digits.isdigit() else 0, path.name)


def _read(metrics: Path, x: str) -> Curve:
    steps, _, means = episode_curve(metrics)
    if not len(steps):  # what learns from a dataset plays no episodes but those of evaluations
        evaluations = read_evaluations(metrics.with_name("evaluations.jsonl"))
        steps, means = (np.array([told[name] for told in evaluations]) for name in ("timesteps", "mean_return"))
    if x == "steps" or not len(steps):
        return Curve(steps, means)
    records = list(read_metrics(metrics))
    with understood(metrics):
        elapsed = np.array([record["elapsed_seconds"] for record in records], np.float64)
    # A resumed run's clock begins anew.
    elapsed = np.cumsum(np.where(np.diff(elapsed, prepend=0) < 0, elapsed, np.diff(elapsed, prepend=0)))
    return Curve(np.interp(steps, [0, *(record["timesteps"] for record in records)], [0, *elapsed]), means)


def mean_and_interval(group: Group) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, mean, and the lower and upper end of the mean's 95 % interval, each [P], where every curve has begun and none
    has ended."""
    first = max(curve.x[0] for curve in group.curves)
    last = max(first, min(curve.x[-1] for curve in group.curves))
    x = np.linspace(first, last, _POINTS)
    values = np.array([np.interp(x, curve.x, curve.y) for curve in group.curves])
    if len(values) == 1:
        return x, values[0], values[0], values[0]
    ends = [bootstrap_interval(column, lambda drawn: float(drawn.mean()), resamples=500) for column in values.T]
    low, high = np.array(ends).T
    return x, values.mean(axis=0), low, high


def draw_comparison(groups: Sequence[Group], picture: str | Path, *, x: str = "steps", title: str = "") -> None:
    """Draw all groups into one .png or .svg file: faint curves of runs, the bold mean, its interval shaded."""
    path = Path(picture)
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"the picture is {str(picture)!r}, but must end in {' or '.join(FORMATS)}")
    problem = file_problem(path)
    if problem is not None:
        raise InputError(f"the picture {str(picture)!r} cannot be written: {problem}")
    figure, axes = empty_picture()
    for index, group in enumerate(groups):
        color, count = _COLORS[index % len(_COLORS)], len(group.curves)
        at, mean, low, high = mean_and_interval(group)
        for curve in group.curves if count > 1 else ():
            axes.plot(curve.x, curve.y, color=color, alpha=0.3, linewidth=0.8)
        axes.fill_between(at, low, high, color=color, alpha=0.18, linewidth=0)
        label = f"{group.name} ({count} seeds: mean, 95 % interval)" if count > 1 else group.name
        axes.plot(at, mean, color=color, linewidth=2.2, label=label)
    furthest = max(float(curve.x[-1]) for group in groups for curve in group.curves)
    dress(axes, furthest, title or "Mean return of the last 100 episodes", AXES[x])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(figure, path)
