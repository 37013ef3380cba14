"""`learning_curve.png`: the picture of a run, drawn from its `metrics.jsonl` alone."""

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from .files import understood
from .metrics import read_evaluations, read_metrics
from .picture import dress, empty_picture, write_picture

_WINDOW = 100
_MOST_DOTS = 20_000


def episode_curve(metrics_path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the episodes of a run as a curve.

    Returns:
        steps [E]: environment steps at which each episode ended. A line of `metrics.jsonl` tells in which iteration
            that was; within one, its episodes are spread evenly.
        returns [E]: their returns.
        means [E]: mean of the last 100 returns at each of them (of all so far, while there are fewer).
    """
    steps: list[np.ndarray] = []
    returns: list[float] = []
    before = 0
    for record in read_metrics(metrics_path):
        with understood(metrics_path):
            ended = [float("nan") if value is None else float(value) for value in record["episode_returns"]]
            steps.append(np.linspace(before, float(record["timesteps"]), len(ended) + 1)[1:])
        returns += ended
        before = record["timesteps"]
    window: deque[float] = deque(maxlen=_WINDOW)
    means = np.empty(len(returns))
    for index, value in enumerate(returns):
        window.append(value)
        means[index] = sum(window) / len(window)
    return np.concatenate([*steps, np.empty(0)]), np.asarray(returns), means


def draw_learning_curve(
    metrics_path: Path, picture_path: Path, *, title: str, threshold: float | None = None, threshold_name: str = "goal"
) -> bool:
    """Draw episode returns (faint) and the mean of the last 100 (bold) over environment steps, and the evaluations
    during training that lie beside the metrics.

    Args:
        metrics_path: the run's `metrics.jsonl`.
        picture_path: the PNG to write; it appears under its name only when complete.
        title: text above the picture.
        threshold: return that counts as solved, drawn as a line; None draws none.
        threshold_name: what the line is called.

    Returns:
        Whether there was an episode or an evaluation to draw; without one no file is written.
    """
    steps, returns, means = episode_curve(metrics_path)
    evaluations = read_evaluations(metrics_path.with_name("evaluations.jsonl"))
    if not len(returns) and not evaluations:
        return _draw_fit(metrics_path, picture_path, title)
    figure, axes = empty_picture()
    if len(returns):
        _draw_episodes(axes, steps, returns, means)
    furthest = [float(end) for end in steps[-1:]]
    if evaluations:
        at, found = [record["timesteps"] for record in evaluations], [record["mean_return"] for record in evaluations]
        axes.plot(at, found, "o-", color="#e1812c", linewidth=1.8, markersize=4, label="evaluation's mean")
        furthest.append(at[-1])
    if threshold is not None:
        label = f"{threshold_name}: {threshold:g}"
        axes.axhline(threshold, color="#c44e52", linestyle=(0, (5, 3)), linewidth=1.3, label=label)
    dress(axes, max(furthest), title, "environment steps" if len(returns) else "gradient steps")
    write_picture(figure, picture_path)
    return True


def _draw_fit(metrics_path: Path, picture_path: Path, title: str) -> bool:
    """Draw the first metric that is told of what a fit learned from (train/…) and of what was held out (eval/…)."""
    records = list(read_metrics(metrics_path))
    told = [tag.removeprefix("eval/") for tag in (records[0] if records else {}) if tag.startswith("eval/")]
    both = [name for name in told if f"train/{name}" in records[0]]
    of_texts = bool(records) and "train/tokens" in records[0]
    if not both and not of_texts:
        return False
    name = both[0] if both else "loss"
    figure, axes = empty_picture()
    steps = [record["timesteps"] for record in records]
    for part, colour, label in (("train", "#4c78a8", "learned from"), ("eval", "#e1812c", "held out")):
        values = [np.nan if (found := record.get(f"{part}/{name}")) is None else found for record in records]
        if np.isnan(values).all():
            continue
        axes.plot(steps, values, "o-", color=colour, linewidth=1.8, markersize=4, label=label)
    dress(axes, steps[-1], title, "gradient steps" if of_texts else "rounds", name)
    write_picture(figure, picture_path)
    return True


def _draw_episodes(axes: Any, steps: np.ndarray, returns: np.ndarray, means: np.ndarray) -> None:
    every = max(1, len(returns) // _MOST_DOTS)
    faint = min(0.5, max(0.12, 500 / len(returns)))  # the more dots, the fainter each
    axes.plot(steps[::every], returns[::every], "o", color="#4c78a8", alpha=faint, markersize=3, markeredgewidth=0)
    axes.plot([], [], "o", color="#4c78a8", alpha=0.6, markersize=4, markeredgewidth=0, label="one episode")
    axes.plot(steps, means, color="#1f3b66", linewidth=2.2, label=f"mean of the last {_WINDOW} episodes")
