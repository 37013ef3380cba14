"""From text to sums: pre-train on text that every Python has, fine-tune on sums, reinforce with an exact-match reward.

    python benchmarks/language/pipeline.py [--seeds 0 1 2] [--name sums]

Pre-training passes once over 2 million bytes of the standard library's sources. Fine-tuning on the right answers of
sums of numbers of one digit and of two stops where 70 % of those that are held out are answered greedily; GRPO goes on
from there, on sums that are not held out, rewarding what is exactly right. Written to rows/pipeline/NAME.json: for each
seed what each stage took in seconds here and in CPU seconds, its bits per byte or shares of right answers on held-out
sums of one digit and of two, and the curve of GRPO's rewards.
"""

import argparse
import json
import os
import resource
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from shoal import GRPO, SFT, Pretrain, envs, evaluate, runtime
from shoal.envs.language import Sums
from shoal.rl import Callback, bootstrap_interval, interquartile_mean

BYTES = 2_000_000
TASK = "sums-of-one-and-two-digits"
ONE_DIGIT = 0.35
"""Share of numbers that are drawn below 10; the others are drawn below 100."""
NETWORK = {"tokenizer": "bytes", "context": 128, "width": 64, "layers": 2, "heads": 4}
PRETRAIN = {"batch_size": 16, "gradient_steps": 50, "learning_rate": 4e-3, "warmup": 50}
PRETRAIN_STEPS = 1000
TUNE = {
    "batch_size": 16,
    "gradient_steps": 20,
    "learning_rate": 4e-3,
    "schedule": "constant",
    "weight_decay": 1.0,
    "examples": 20_000,
    "held_out": 0,
    "eval_freq": 20,
    "eval_episodes": 200,
}
TUNE_STEPS = 3000
ENOUGH = 0.7


def rate(remaining: float) -> float:
    """GRPO's step size: it grows over the first twentieth of the training, and falls linearly to 0."""
    return 1e-3 * min(1.0, 20 * (1 - remaining)) * remaining


REINFORCE = {
    "n_envs": 512,
    "group_size": 128,
    "samples": 8,
    "batch_size": 256,
    "learning_rate": rate,
    "clip_high": 0.28,
    "max_new_tokens": 4,
}
ITERATIONS = 1500
GOALS = {1: 0.99, 2: 0.97}
EPISODES = 400
FOLDER = Path(__file__).parent / "rows" / "pipeline"


class OneAndTwo(Sums):
    """Sums of numbers of one digit and of two, each by itself, so nearly half of them have one of either. Where both
    had as many digits at most, one in seven had, and most sums like 24 + 5 were wrong when most others were right."""

    def __init__(self, evaluation: bool = False) -> None:
        super().__init__(2, evaluation=evaluation)

    def numbers(self) -> tuple[int, int]:
        """Draw the two."""
        first, second = self.np_random.integers(np.where(self.np_random.random(2) < ONE_DIGIT, 10, 100))
        return int(first), int(second)


class Curve(Callback):
    """Keeps a metric of each iteration, and says now and then what it is."""

    def __init__(self, name: str) -> None:
        self.name, self.values = name, []

    def on_iteration_end(self, training: Any, report: Any) -> None:
        """Note an iteration."""
        if self.name in report.metrics:
            self.values.append(round(report.metrics[self.name], 4))
            if len(self.values) % 100 == 0:
                print(len(self.values), round(sum(self.values[-100:]) / 100, 4), flush=True)


class Stage:
    """Seconds of a stage, here and of CPU."""

    def __init__(self) -> None:
        self._began, self._cpu = time.perf_counter(), cpu_seconds()

    def told(self) -> dict[str, float]:
        """How many there were."""
        return {
            "seconds": round(time.perf_counter() - self._began, 1),
            "cpu_seconds": round(cpu_seconds() - self._cpu, 1),
        }


def cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def write_corpus(folder: Path) -> str:
    """Sources of the standard library, in the order of their names, until there is enough; returns the folder."""
    folder.mkdir()
    left = BYTES
    for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        content = file.read_bytes()[:left]
        left -= len(content)
        (folder / f"{file.stem.strip('_')}.txt").write_text(content.decode(errors="replace"))
        if left <= 0:
            break
    return str(folder)


def right_answers(policy: Any) -> dict[str, float]:
    """Shares of held-out sums that are answered rightly, greedily, by their digits."""
    return {str(digits): evaluate(policy, f"sums-{digits}", episodes=EPISODES).pass_at[1] for digits in GOALS}


def pretrain(folder: Path, seed: int) -> dict[str, Any]:
    """Pre-train into FOLDER/pretrained."""
    stage, curve = Stage(), Curve("eval/bits_per_byte")
    with Pretrain(dataset=write_corpus(folder / "texts"), seed=seed, policy_kwargs=NETWORK, **PRETRAIN) as training:
        training.train(PRETRAIN_STEPS, callbacks=[curve])
        training.save(folder / "pretrained")
        said = training.policy.generate(["def read(self, ", "import "], max_new_tokens=60, seed=0, temperature=0.7)
        tokens = training.facts()["tokens"]
    return {"tokens": tokens, **stage.told(), "bits_per_byte": curve.values, "said": said}


def fine_tune(folder: Path, seed: int) -> dict[str, Any]:
    """Fine-tune into FOLDER/tuned, until enough is answered rightly."""
    stage, curve = Stage(), Curve("eval/mean_reward")
    initial = str(folder / "pretrained")
    with SFT(TASK, seed=seed, initial=initial, eval_stop_return=ENOUGH, **TUNE) as training:
        result = training.train(TUNE_STEPS, callbacks=[curve])
        training.save(folder / "tuned")
        right = right_answers(training.policy)
    return {"gradient_steps": result.timesteps, **stage.told(), "right": right, "curve": curve.values}


def reinforce(folder: Path, seed: int) -> dict[str, Any]:
    """GRPO on from FOLDER/tuned."""
    stage, curve = Stage(), Curve("rollout/reward_mean")
    with GRPO(TASK, seed=seed, initial=str(folder / "tuned"), **REINFORCE) as training:
        result = training.train(ITERATIONS * REINFORCE["n_envs"], callbacks=[curve])
        right = right_answers(training.policy)
    return {**stage.told(), "right": right, "rewards": curve.values, "weights_sha256": result.weights_sha256}


def main() -> None:
    """Train all stages of each seed, and write the row."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--name", default="sums")
    given = parser.parse_args()
    runtime.init(engine="serial")
    envs.register(TASK, OneAndTwo)
    seeds: list[dict[str, Any]] = []
    for seed in given.seeds:
        with tempfile.TemporaryDirectory() as name:
            found: dict[str, Any] = {"seed": seed}
            for stage in (pretrain, fine_tune, reinforce):
                found[stage.__name__] = stage(Path(name), seed)
                print(stage.__name__, found[stage.__name__], f"load {os.getloadavg()[0]:.1f}", flush=True)
        seeds.append(found)
        write(given.name, seeds)
    runtime.shutdown()


def write(name: str, seeds: list[dict[str, Any]]) -> None:
    """Write the row with the seeds that are there."""
    right = {digits: [seed["reinforce"]["right"][str(digits)] for seed in seeds] for digits in GOALS}
    document = {
        "row": name,
        "goals": {str(digits): goal for digits, goal in GOALS.items()},
        "reached": sum(all(right[digits][i] >= goal for digits, goal in GOALS.items()) for i in range(len(seeds))),
        "interquartile_means": {str(digits): interquartile_mean(values) for digits, values in right.items()},
        "intervals": {
            str(digits): list(bootstrap_interval(values)) if len(values) > 1 else None
            for digits, values in right.items()
        },
        "seeds": seeds,
    }
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(document) + "\n")


if __name__ == "__main__":
    main()
