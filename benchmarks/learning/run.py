"""Train the rows of docs/learning.md and write down what came out, one file for each row and seed.

    python benchmarks/learning/run.py [ROW ...] [--seeds 0 1 2] [--again]

A row is an entry of settings.toml. The policy of the last update, never the best of several, plays 50 episodes without
exploration, on evaluation seeds that no training has seen. rows/ROW-SEED.json holds the settings, the returns, the
curve of the training and the hash of the weights; one that is there is kept, unless its settings are others now, or
with --again. `table.py` makes the document and its picture of them. Ctrl-C ends it; what is finished is written.
"""

import argparse
import contextlib
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shoal import ALGORITHMS, Callback, evaluate
from shoal.rl import Algorithm, RunSettings

HERE = Path(__file__).parent
EPISODES = 50
FIRST_EVALUATION_SEED = 10_000
sys.path.insert(0, str(HERE))  # environments of ours are named module:Class
dataset = importlib.import_module("recorded").dataset


class Curve(Callback):
    """Keeps the mean return of the last 100 training episodes, about a hundred times in a training."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float]] = []

    def on_iteration_end(self, training, report):
        mean = report.episode_return_mean
        since = report.timesteps - (self.points[-1][0] if self.points else 0)
        if mean is not None and since >= report.total_timesteps / 100:
            self.points.append((report.timesteps, round(mean, 2)))


def environment(name):
    """An environment's id, or the class that module:Class names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute) if attribute else name


def prepare(settings: dict, seed: int) -> Algorithm:
    """The training of a row, not yet started."""
    recorded = {"dataset": dataset(settings["dataset"])} if "dataset" in settings else {}
    return ALGORITHMS[settings["algorithm"]](
        environment(settings["env"]),
        env_kwargs=settings.get("env_kwargs", {}),
        preset="auto" if settings.get("preset") else "none",
        seed=seed,
        device="cpu",
        engine="serial",
        **recorded,
        **settings.get("hyperparameters", {}),
    )


@contextlib.contextmanager
def simulator(settings: dict, training: Algorithm, seed: int) -> Iterator[None]:
    """Run the row's simulator outside, if it has one, until the block ends."""
    words = settings.get("simulator")
    if words is None:
        yield
        return
    endpoint = training.endpoint
    known = {"python": sys.executable, "address": endpoint.address, "seed": seed}
    process = subprocess.Popen(
        [word.format(**known) for word in words],
        cwd=HERE.parent.parent,
        env=os.environ | {"SHOAL_SIMULATOR_TOKEN": endpoint.token},
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def decisive(settings: dict, run: Any, config: Any) -> dict:
    """What decides the result of a training, as JSON holds it."""
    document = {name: settings.get(name, {}) for name in ("algorithm", "env", "env_kwargs", "steps")}
    document |= {name: settings[name] for name in ("simulator", "against", "counts", "episodes") if name in settings}
    return json.loads(json.dumps(document | {"run": asdict(run), "hyperparameters": asdict(config)}))


def result_of(score: float) -> str:
    """What a match came to: its return in a row's table is what `counts` says of that."""
    return {1.0: "won", 0.5: "drawn", 0.0: "lost"}[score]


def train(row: str, settings: dict, seed: int) -> dict:
    """One training and the evaluation of what it led to."""
    curve, started = Curve(), time.perf_counter()
    with prepare(settings, seed) as training, simulator(settings, training, seed):
        result = training.train(settings["steps"], callbacks=curve)
        seconds = time.perf_counter() - started
        played = evaluate(
            training.policy,
            environment(settings["env"]),
            env_kwargs=settings.get("env_kwargs", {}),
            episodes=settings.get("episodes", EPISODES),
            seed=FIRST_EVALUATION_SEED + seed,
            against=settings.get("against"),
        )
        used = decisive(settings, training.run, training.config)
    returns = [settings["counts"][result_of(score)] for score in played.scores] or list(played.returns)
    return {
        "row": row,
        "seed": seed,
        "timesteps": result.timesteps,
        "mean_return": round(sum(returns) / len(returns), 3),
        "returns": [round(value, 3) for value in returns],
        "training_mean_return": result.episode_return_mean,
        "curve": curve.points,
        "seconds": round(seconds, 1),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "weights_sha256": result.weights_sha256,
        **used,
    }


def is_done(path: Path, settings: dict, seed: int) -> bool:
    """Whether `path` holds the result of a row with these settings. A setting that it does not name is newer than the
    file, so it had the default."""
    if not path.exists():
        return False
    written = json.loads(path.read_text(encoding="utf-8"))
    with prepare(settings, seed) as training:
        plain = decisive(settings, RunSettings(), type(training.config)())
        now = decisive(settings, training.run, training.config)
    for part in ("run", "hyperparameters"):
        written[part] = plain[part] | written[part]
    return all(written[name] == value for name, value in now.items())


def write(path: Path, document: dict) -> None:
    """Write JSON whole or not at all; a list of numbers takes one line."""
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(value)}" for name, value in document.items())
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
        file.write(f"{{\n{lines}\n}}\n")
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)


def main() -> None:
    """Train the rows that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    table = tomllib.loads((HERE / "settings.toml").read_text(encoding="utf-8"))
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(table)}; all by default")
    parser.add_argument("--seeds", type=int, nargs="+", help="0 1 2 by default, or what the row says")
    parser.add_argument("--again", action="store_true", help="also where there is a result already")
    flags = parser.parse_args()
    unknown = [row for row in flags.rows if row not in table]
    if unknown:
        parser.error(f"no row {unknown[0]!r}; there are {', '.join(table)}")
    (HERE / "rows").mkdir(exist_ok=True)
    for row in flags.rows or table:
        settings = table[row]
        for seed in flags.seeds or settings.get("seeds", [0, 1, 2]):
            path = HERE / "rows" / f"{row}-{seed}.json"
            if not flags.again and is_done(path, settings, seed):
                continue
            found = train(row, settings, seed)
            write(path, found)
            print(
                f"{row} seed {seed}: {found['mean_return']:g} (goal {settings['goal']}), {found['seconds']:g} s",
                flush=True,
            )


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
