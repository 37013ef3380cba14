"""How many answers an asynchronous training needs, against one in which generators and learner take turns.

    python benchmarks/language/lag.py [--seeds 0 1 2 3 4] [--iterations 150]

`copy-4` with half its preset's step size, two generators, until the mean reward of five iterations is 0.9: in turns,
ahead by up to two updates, and that with the decoupled objective. Written to rows/lag.json: for each seed how many
answers that took, and how many until it was 0.5, their ratios to those in turns (none where one of both isn't there
within the iterations), the lags that there were, and of the first whether `shoal verify` repeats the asynchronous runs
to the same weights.
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

PATH = Path(__file__).parent / "rows" / "lag.json"
GOALS, WINDOW = (0.5, 0.9), 5
SETTINGS = {"learning_rate": "lin_0.0005"}
"""What is not the preset's: with twice this step size, runs that are ahead end late or soon by luck."""
WAYS: dict[str, dict[str, Any]] = {
    "in_turns": {},
    "ahead": {"max_lag": 2},
    "decoupled": {"max_lag": 2, "behaviour_cap": 2.0},
}


class Watch(Callback):
    """Keeps the mean reward of each iteration, and the shares of lags."""

    def __init__(self) -> None:
        self.rewards: list[float] = []
        self.lags: Counter[str] = Counter()

    def on_iteration_end(self, training: Any, report: Any) -> bool:
        """Note an iteration; go on until the goal is reached."""
        self.rewards.append(round(report.metrics["rollout/reward_mean"], 4))
        self.lags.update({name: value for name, value in report.metrics.items() if name.startswith("lag/")})
        return reached(self.rewards, GOALS[-1]) is None


def reached(rewards: list[float], goal: float) -> int | None:
    """After how many iterations the mean of the last ones was as much; None: it never was."""
    ends = range(WINDOW, len(rewards) + 1)
    return next((end for end in ends if float(np.mean(rewards[end - WINDOW : end])) >= goal), None)


def answers_until(rewards: list[float], size: int) -> dict[str, int | None]:
    """Answers until each goal was reached, of iterations of so many."""
    found = {str(goal): reached(rewards, goal) for goal in GOALS}
    return {goal: iterations and iterations * size for goal, iterations in found.items()}


def ratios_of(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Of each way that runs ahead: answers over those in turns, by goal."""
    plain = found["in_turns"]["answers"]
    return {
        name: {goal: each["answers"][goal] and plain[goal] and each["answers"][goal] / plain[goal] for goal in plain}
        for name, each in found.items()
        if name != "in_turns"
    }


def train(seed: int, way: dict[str, Any], iterations: int, repeat: bool) -> dict[str, Any]:
    """One training, and its repetition."""
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        with (
            GRPO("copy-4", seed=seed, workers=2, **SETTINGS, **way) as grpo,
            RunFolder(Path(folder) / "run") as run,
        ):
            size = grpo.run.n_envs
            result = grpo.train(iterations * size, callbacks=[watch, run])
        followed = verify(GRPO, Path(folder) / "run", workers=1).followed_sha256 if way and repeat else None
    return {
        "answers": answers_until(watch.rewards, size),
        "rewards": watch.rewards,
        "lags": {name: round(value / len(watch.rewards), 3) for name, value in sorted(watch.lags.items())},
        "weights_sha256": result.weights_sha256,
        "repeated": None if followed is None else followed == result.weights_sha256,
    }


def main() -> None:
    """Train all, in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--iterations", type=int, default=150)
    flags = parser.parse_args()
    runtime.init(num_cpus=3)
    trainings: list[dict[str, Any]] = []
    for seed in flags.seeds:
        found = {name: train(seed, way, flags.iterations, seed == flags.seeds[0]) for name, way in WAYS.items()}
        trainings.append({"seed": seed, "ratios": ratios_of(found), **found})
        print(f"seed {seed}: ratios {trainings[-1]['ratios']}", {n: each["repeated"] for n, each in found.items()})
        print({name: each["lags"] for name, each in found.items()}, flush=True)
        PATH.write_text(
            json.dumps({"env": "copy-4", "settings": SETTINGS, "goals": GOALS, "ways": WAYS, "trainings": trainings})
            + "\n"
        )
    runtime.shutdown()


if __name__ == "__main__":
    main()
