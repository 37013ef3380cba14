"""From text to sums: pre-train on text that every Python has, fine-tune on sums, reinforce with an exact-match reward.

    python benchmarks/language/pipeline.py [--digits 1 2] [--seeds 0 1 2]

Pre-training reads about 2 million bytes of the standard library's sources. Fine-tuning on right answers stops where 45
% of the held-out sums are answered greedily; GRPO goes on from there, on sums that are not held out, rewarding what is
exactly right. Both seed and digits have a row in rows/sums-N-pipeline.json: seconds of each stage, its losses or shares
of right answers on the held-out sums, and the curve of GRPO's rewards.
"""

import argparse
import json
import os
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

from shoal import GRPO, SFT, Pretrain, evaluate, runtime
from shoal.rl import Callback

BYTES = 2_000_000
NETWORK = {"tokenizer": "bytes", "context": 128, "width": 96, "layers": 3, "heads": 4}
PRETRAIN = {"batch_size": 16, "gradient_steps": 50, "learning_rate": 2e-3, "warmup": 50}
PRETRAIN_STEPS = 1000
SFT_GIVEN: dict[int, dict[str, Any]] = {
    1: {"examples": 1024, "eval_freq": 10, "gradient_steps": 10},
    2: {"examples": 8192, "eval_freq": 40, "gradient_steps": 20},
}
SFT_STEPS = {1: 600, 2: 4000}
ENOUGH = 0.45
GRPO_GIVEN: dict[int, dict[str, Any]] = {
    1: {"max_new_tokens": 3, "learning_rate": "lin_0.0005"},
    2: {"max_new_tokens": 4, "learning_rate": "lin_0.0005"},
}
ITERATIONS = {1: 60, 2: 150}
GOAL = {1: 0.99, 2: 0.97}
EPISODES = 400
FOLDER = Path(__file__).parent / "rows"


class Curve(Callback):
    """Keeps a metric of each iteration."""

    def __init__(self, name: str) -> None:
        self.name, self.values = name, []

    def on_iteration_end(self, training: Any, report: Any) -> None:
        """Note an iteration."""
        if self.name in report.metrics:
            self.values.append(round(report.metrics[self.name], 4))


def write_corpus(folder: Path) -> str:
    """Sources of the standard library, in the order of their names, until there is enough; returns the folder."""
    left = BYTES
    for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text = file.read_text(encoding="utf-8", errors="replace")[:left]
        left -= len(text.encode())
        (folder / f"{file.stem.strip('_')}.txt").write_text(text)
        if left <= 0:
            break
    return str(folder)


def pretrain(folder: Path, seed: int) -> dict[str, Any]:
    """Pre-train into FOLDER/pretrained."""
    texts, began, curve = folder / "texts", time.perf_counter(), Curve("eval/bits_per_byte")
    texts.mkdir()
    with Pretrain(dataset=write_corpus(texts), seed=seed, policy_kwargs=NETWORK, **PRETRAIN) as training:
        training.train(PRETRAIN_STEPS, callbacks=[curve])
        training.save(folder / "pretrained")
        said = training.policy.generate(["def read(self, ", "import "], max_new_tokens=60, seed=0, temperature=0.7)
        tokens = training.facts()["tokens"]
    seconds = round(time.perf_counter() - began, 1)
    return {"tokens": tokens, "seconds": seconds, "bits_per_byte": curve.values, "said": said}


def fine_tune(folder: Path, digits: int, seed: int) -> dict[str, Any]:
    """Fine-tune into FOLDER/tuned-N, until enough is answered rightly."""
    task, began, curve = f"sums-{digits}", time.perf_counter(), Curve("eval/mean_reward")
    given = {"batch_size": 16, "schedule": "constant", "learning_rate": 1e-3, "eval_episodes": 200, **SFT_GIVEN[digits]}
    initial = str(folder / "pretrained")
    with SFT(task, seed=seed, initial=initial, eval_stop_return=ENOUGH, held_out=0, **given) as training:
        result = training.train(SFT_STEPS[digits], callbacks=[curve])
        training.save(folder / f"tuned-{digits}")
        right = evaluate(training.policy, task, episodes=EPISODES).pass_at[1]
    seconds = round(time.perf_counter() - began, 1)
    return {"gradient_steps": result.timesteps, "seconds": seconds, "right": right, "curve": curve.values}


def reinforce(folder: Path, digits: int, seed: int) -> dict[str, Any]:
    """GRPO on from FOLDER/tuned-N."""
    task, began, curve = f"sums-{digits}", time.perf_counter(), Curve("rollout/reward_mean")
    rows = {"n_envs": 512, "group_size": 128, "samples": 16, "batch_size": 256, "clip_high": 0.28, "preset": "none"}
    with GRPO(task, seed=seed, initial=str(folder / f"tuned-{digits}"), **rows, **GRPO_GIVEN[digits]) as training:
        result = training.train(ITERATIONS[digits] * 512, callbacks=[curve])
        right = evaluate(training.policy, task, episodes=EPISODES).pass_at[1]
    seconds = round(time.perf_counter() - began, 1)
    return {"right": right, "seconds": seconds, "rewards": curve.values, "weights_sha256": result.weights_sha256}


def main() -> None:
    """Train all stages of each seed, and write the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--digits", type=int, nargs="+", default=[1, 2], choices=[1, 2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    runtime.init(engine="serial")
    found: dict[int, list[dict[str, Any]]] = {digits: [] for digits in given.digits}
    for seed in given.seeds:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            first = pretrain(folder, seed)
            print("pretrain", {**first, "load": os.getloadavg()[0]}, flush=True)
            for digits in given.digits:
                tuned = fine_tune(folder, digits, seed)
                print("sft", digits, tuned, flush=True)
                learned = reinforce(folder, digits, seed)
                print("grpo", digits, learned, flush=True)
                seconds = first["seconds"] + tuned["seconds"] + learned["seconds"]
                row = {"seed": seed, "seconds": seconds, "pretrain": first, "sft": tuned, "grpo": learned}
                found[digits].append(row)
                write(digits, found[digits])
    runtime.shutdown()


def write(digits: int, seeds: list[dict[str, Any]]) -> None:
    """Write a row with the seeds that are there."""
    reached = sum(seed["grpo"]["right"] >= GOAL[digits] for seed in seeds)
    document = {"row": f"sums-{digits}-pipeline", "goal": GOAL[digits], "reached": reached, "seeds": seeds}
    (FOLDER / f"sums-{digits}-pipeline.json").write_text(json.dumps(document) + "\n")


if __name__ == "__main__":
    main()
