"""What language models learn, most from random weights: rows of a table, one a task, some seeds each.

    python benchmarks/language/run.py copy-4 [--seeds 0 1 2 3 4] [--workers 1]

A seed trains with the task's preset for as many iterations as its row says, then answers 256 prompts of its own
greedily. Written to rows/NAME.json: for each seed the share that is exactly right (and that before reinforcement, where
it began with supervised steps), mean return, seconds here, CPU seconds, weights_sha256, and the curve of mean rewards;
and their interquartile mean with interval.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from shoal import GRPO, SFT, TokenPPO, evaluate, runtime
from shoal.rl import Callback, bootstrap_interval, interquartile_mean, load_policy

SPARSE = {"sparse": True}
ROWS: dict[str, dict[str, Any]] = {
    "copy-4": {"env": "copy-4", "iterations": 60, "goal": 0.99},
    "copy-4-ppo": {"env": "copy-4", "algorithm": "TokenPPO", "iterations": 60, "goal": 0.99},
    "sort-4": {"env": "sort-4", "iterations": 320, "goal": 0.98},
    "recall-3": {"env": "recall-3", "iterations": 60, "goal": 0.95},
    "copy-4-sparse": {"env": "copy-4", "iterations": 20, "env_kwargs": SPARSE, "goal": 0.0},
    "copy-4-warm": {
        "env": "copy-4",
        "iterations": 30,
        "env_kwargs": SPARSE,
        "supervised": 60,
        "settings": {"samples": 8, "scale": "none"},
        "goal": 0.99,
    },
}
"""`supervised`: gradient steps of supervised fine-tuning on the task's right answers before; `settings`: those that are
not the task's preset's."""
ALGORITHMS_OF_ROWS: dict[str, Any] = {"GRPO": GRPO, "TokenPPO": TokenPPO}
PROMPTS = 256
FOLDER = Path(__file__).parent / "rows"


class Curve(Callback):
    """Keeps the mean reward of each iteration, and how many had a group with any variance."""

    def __init__(self) -> None:
        self.rewards: list[float] = []
        self.dead = 0

    def on_iteration_end(self, training: Any, report: Any) -> None:
        """Note an iteration."""
        self.rewards.append(round(report.metrics["rollout/reward_mean"], 4))
        self.dead += report.metrics.get("rollout/dead_groups", 0) == 1


def cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def begin_supervised(row: dict[str, Any], seed: int, folder: str) -> dict[str, Any]:
    """Learn the task's right answers for a while; the setting with which another training begins there."""
    if "supervised" not in row:
        return {}
    network = {"tokenizer": "characters", "context": 16}
    with SFT(row["env"], seed=seed, policy_kwargs=network, learning_rate=2e-3, schedule="constant") as sft:
        sft.train(row["supervised"])
        sft.save(folder)
    return {"initial": folder}


def answers(policy: Any, row: dict[str, Any]) -> Any:
    """What a policy's greedy answers to a row's prompts are worth."""
    return evaluate(policy, row["env"], episodes=PROMPTS, env_kwargs=row.get("env_kwargs"))


def train(row: dict[str, Any], seed: int, workers: int) -> dict[str, Any]:
    """Train a seed of a row, and evaluate it."""
    began, cpu, curve = time.perf_counter(), cpu_seconds(), Curve()
    algorithm = ALGORITHMS_OF_ROWS[row.get("algorithm", "GRPO")]
    with (
        tempfile.TemporaryDirectory() as folder,
        algorithm(
            row["env"],
            seed=seed,
            workers=workers,
            env_kwargs=row.get("env_kwargs"),
            **row.get("settings", {}),
            **begin_supervised(row, seed, folder),
        ) as grpo,
    ):
        result = grpo.train(row["iterations"] * grpo.run.n_envs, callbacks=[curve])
        seconds, used = time.perf_counter() - began, cpu_seconds() - cpu
        found = answers(grpo.policy, row)
        before = {"exact_before": answers(load_policy(folder), row).pass_at[1]} if "supervised" in row else {}
    return {
        "seed": seed,
        "exact": found.pass_at[1],
        **before,
        "mean_return": found.episode_return_mean,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used, 1),
        "iterations_without_variance": curve.dead,
        "weights_sha256": result.weights_sha256,
        "rewards": curve.rewards,
    }


def main() -> None:
    """Train the seeds of a row, one after another, and write it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    row = ROWS[given.row]
    runtime.init(engine="serial" if given.workers == 1 else None)
    seeds = []
    for seed in given.seeds:
        seeds.append(train(row, seed, given.workers))
        shown = {name: value for name, value in seeds[-1].items() if name != "rewards"}
        print(given.row, shown, f"load {os.getloadavg()[0]:.1f}", flush=True)
        write(given.row, seeds)
    runtime.shutdown()


def write(name: str, seeds: list[dict[str, Any]]) -> None:
    """Write a row with the seeds that are there."""
    row, exact = ROWS[name], [found["exact"] for found in seeds]
    document = {
        "row": name,
        **row,
        "reached": sum(value >= row["goal"] for value in exact),
        "interquartile_mean": interquartile_mean(exact),
        "interval": list(bootstrap_interval(exact)) if len(exact) > 1 else None,
        "seeds": seeds,
    }
    (FOLDER / f"{name}.json").write_text(json.dumps(document) + "\n")


if __name__ == "__main__":
    main()
