"""What exact results cost: a training as it is, without the notes that it takes, and with nothing that makes it exact.

    python benchmarks/exactness.py [--rounds 5] [--cases ppo-cartpole,…] [--out FOLDER]

    exact      as it is: hashes and actions are noted, groups and learner can be put back after a death
    unnoted    --record none
    bare       beside that no state of a group, no snapshot of the learner, no generators of their own for a rollout:
               whatever dies is lost, and nothing can be resumed

The three run in turn, each in a process of its own. Counted is the processor time of all processes of a training per
environment step, from the second to the last iteration, so that a busy machine disturbs it little; and steps/s. Printed
are medians of the ratios of each round; raw rows go to FOLDER/exactness.jsonl.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

import shoal.rl.actors as actors
from shoal.algorithms import ALGORITHMS
from shoal.envs import GroupState
from shoal.rl import Callback, RunFolder
from shoal.rl.collect.worker import RolloutWorker
from shoal.rl.learn.log import LearnerLog
from shoal.runtime import method

CASES = {
    "ppo-cartpole": (
        "ppo",
        "CartPole-v1",
        {"n_envs": 16, "n_steps": 128, "batch_size": 512, "n_epochs": 4, "workers": 2},
        30 * 16 * 128,
    ),
    "ppo-halfcheetah": (
        "ppo",
        "HalfCheetah-v5",
        {"n_envs": 2, "n_steps": 1024, "batch_size": 64, "n_epochs": 10, "workers": 2},
        6 * 2 * 1024,
    ),
    "a2c-cartpole": ("a2c", "CartPole-v1", {"n_envs": 8, "n_steps": 16, "workers": 2}, 150 * 8 * 16),
    "dqn-cartpole": (
        "dqn",
        "CartPole-v1",
        {"n_envs": 8, "train_freq": 16, "learning_starts": 1000, "gradient_steps": 32, "workers": 2},
        60 * 8 * 16,
    ),
}
MODES = ("exact", "unnoted", "bare")
NOTHING = np.zeros(0, np.int64)
NO_STATE = GroupState("", 0, 0, 0, 0, "restart", False, *[NOTHING] * 6)


class BareWorker(RolloutWorker):
    """A worker whose groups cannot be put back, and whose rollouts share the process's generators."""

    @method(num_returns=3)
    def collect(self, group, progress, weights, version, clock, *, death=None):
        """As `RolloutWorker.collect`."""
        rollout, stats = self.play(group, progress, weights, version, clock)
        return rollout, NO_STATE, stats


def strip() -> None:
    """Take out of this driver what brings anything back."""
    actors.RolloutWorker = BareWorker
    actors.snapshot_is_due = lambda log, timesteps: False
    LearnerLog.after = lambda self, given: self


def processor_seconds() -> float:
    """Processor time of this process and all that it has started and that are there."""
    me = psutil.Process()
    total = 0.0
    for process in [me, *me.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.Error:  # it has just ended
            continue
        total += times.user + times.system
    return total


class Watch(Callback):
    """Notes processor time, steps and wall time after the second iteration, and after the last."""

    def __init__(self) -> None:
        self.marks = []

    def on_iteration_end(self, training, report) -> None:
        """Take the first mark."""
        if report.iteration == 2:
            self.mark(report.timesteps)

    def on_training_end(self, training, result) -> None:
        """Take the last one."""
        self.mark(result.timesteps)

    def mark(self, timesteps: int) -> None:
        """Take a mark."""
        self.marks.append((processor_seconds(), timesteps, time.perf_counter()))


def one(case: str, mode: str) -> dict:
    """Train once; what it took."""
    name, env, settings, steps = CASES[case]
    if mode == "bare":
        strip()
    record = "auto" if mode == "exact" else "none"
    watch = Watch()
    with (
        tempfile.TemporaryDirectory() as folder,
        RunFolder(Path(folder) / "run", checkpoint_seconds=1e9) as run,
        ALGORITHMS[name](env, preset="none", record=record, device="cpu", **settings) as training,
    ):
        run.save = lambda training: None  # the last checkpoint is not what is measured, and bare cannot write it
        training.train(steps, callbacks=[watch, run])
    (cpu, first, began), (cpu_after, last, ended) = watch.marks
    return {
        "case": case,
        "mode": mode,
        "cpu_us_per_step": 1e6 * (cpu_after - cpu) / (last - first),
        "steps_per_second": (last - first) / (ended - began),
    }


def main() -> None:
    """Run the modes in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--one", nargs=2, metavar=("CASE", "MODE"), help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.one:
        print(json.dumps(one(*flags.one)))
        return
    flags.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict] = []
    for turn in range(flags.rounds):
        for case in flags.cases.split(","):
            for mode in MODES if turn % 2 == 0 else MODES[::-1]:
                command = [sys.executable, __file__, "--one", case, mode]
                done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
                rows.append({"round": turn, **json.loads(done.stdout.splitlines()[-1])})
                with (flags.out / "exactness.jsonl").open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print("| training | CPU µs a step, bare | exact ÷ bare | exact ÷ unnoted | steps/s, exact ÷ bare |")
    print("|---|---:|---:|---:|---:|")
    for case in flags.cases.split(","):
        of = {mode: [row for row in rows if (row["case"], row["mode"]) == (case, mode)] for mode in MODES}

        def ratio(one: str, other: str, key: str, of: dict = of) -> float:
            return statistics.median(a[key] / b[key] for a, b in zip(of[one], of[other], strict=True))

        bare = statistics.median(row["cpu_us_per_step"] for row in of["bare"])
        print(
            f"| {case} | {bare:.1f} | {ratio('exact', 'bare', 'cpu_us_per_step'):.3f} "
            f"| {ratio('exact', 'unnoted', 'cpu_us_per_step'):.3f} | {ratio('exact', 'bare', 'steps_per_second'):.3f} |"
        )


if __name__ == "__main__":
    main()
