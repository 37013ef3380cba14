"""How many answers an asynchronous training needs, against one in which generators and learner take turns.

    python benchmarks/language/lag.py [--seeds 0 1 2] [--iterations 90]

`copy-3` with the settings of `copy-4` but a constant learning rate, two generators, max_lag 0 and 2, until the mean
reward of five iterations is 0.9. Written to rows/lag.json: for each seed how many answers that took, their ratio, the
lags that there were, and of the first whether `shoal verify` repeats the asynchronous run to the same weights.
"""

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from shoal import GRPO, RunFolder, runtime
from shoal.rl import Callback, verify

GOAL, WINDOW, LAG = 0.9, 5, 2


class Watch(Callback):
    """Keeps the mean reward of each iteration, and the shares of lags."""

    def __init__(self) -> None:
        self.rewards: list[float] = []
        self.lags: Counter[str] = Counter()

    def on_iteration_end(self, training: Any, report: Any) -> bool:
        """Note an iteration; go on until the goal is reached."""
        self.rewards.append(round(report.metrics["rollout/reward_mean"], 4))
        self.lags.update({name: value for name, value in report.metrics.items() if name.startswith("lag/")})
        return len(self.rewards) < WINDOW or float(np.mean(self.rewards[-WINDOW:])) < GOAL


def train(seed: int, max_lag: int, iterations: int, repeat: bool) -> dict[str, Any]:
    """One training, and its repetition."""
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        with (
            GRPO("copy-3", preset="copy-4", learning_rate=1e-3, seed=seed, workers=2, max_lag=max_lag) as grpo,
            RunFolder(Path(folder) / "run") as run,
        ):
            size = grpo.run.n_envs
            result = grpo.train(iterations * size, callbacks=[watch, run])
        followed = verify(GRPO, Path(folder) / "run", workers=1).followed_sha256 if max_lag and repeat else None
    reached = float(np.mean(watch.rewards[-WINDOW:])) >= GOAL
    return {
        "answers": len(watch.rewards) * size if reached else None,
        "rewards": watch.rewards,
        "lags": {name: round(value / len(watch.rewards), 3) for name, value in sorted(watch.lags.items())},
        "weights_sha256": result.weights_sha256,
        "repeated": None if followed is None else followed == result.weights_sha256,
    }


def main() -> None:
    """Train all, in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=90)
    flags = parser.parse_args()
    runtime.init(num_cpus=3)
    path = Path(__file__).parent / "rows" / "lag.json"
    found = {each["seed"]: each for each in json.loads(path.read_text())["trainings"]} if path.exists() else {}
    for seed in flags.seeds:
        each = {lag: train(seed, lag, flags.iterations, seed == flags.seeds[0]) for lag in (0, LAG)}
        ratio = each[LAG]["answers"] / each[0]["answers"] if each[LAG]["answers"] and each[0]["answers"] else None
        found[seed] = {"seed": seed, "ratio": ratio, "in_turns": each[0], "ahead": each[LAG]}
        shown = {name: each[LAG][name] for name in ("answers", "lags", "repeated")}
        print(f"seed {seed}: in turns {each[0]['answers']} answers; max_lag {LAG}: {shown}; ratio {ratio}", flush=True)
        trainings = [found[seed] for seed in sorted(found)]
        path.write_text(json.dumps({"env": "copy-3", "goal": GOAL, "max_lag": LAG, "trainings": trainings}) + "\n")
    runtime.shutdown()


if __name__ == "__main__":
    main()
