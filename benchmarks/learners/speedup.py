"""Updates by two learners against one, where a shard's gradient takes 20 ms or more, in turn: PPO with wide layers, or
a network that is fitted to a table.

    python benchmarks/learners/speedup.py [--fit] [--learners 2] [--width 640] [--rounds 7]

Both trainings have the same settings but for the number of learners, and end with the same weights; so they do the same
work. Wants a free core for each learner; where others take the cores, the learners' processor time tells what it would
be.
"""

import argparse
import statistics

import numpy as np
import psutil

from shoal import Supervised, runtime
from shoal.algorithms import PPO
from shoal.rl import Callback

STEPS, SHARDS, EPOCHS = 2048, 4, 4
GRADIENTS = 8
"""Gradient steps of an update of a fit."""


class UpdateSeconds(Callback):
    """Notes how long updates take in the learner."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_iteration_end(self, training, report):
        """Note one."""
        self.seconds.append(report.metrics["time/update_seconds"])


def processor_seconds() -> dict[int, float]:
    """What each learner has taken until now, by its process."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        if "Learner" in " ".join(process.cmdline()):
            found[process.pid] = sum(process.cpu_times()[:2])
    return found


def reinforced(learners: int, width: int) -> PPO:
    """A training whose updates are 4 gradient steps on all 2,048 rows."""
    return PPO(
        "CartPole-v1",
        preset="none",
        n_envs=8,
        group_size=4,
        workers=2,  # with one, a single actor would act and learn
        n_steps=STEPS // 8,
        batch_size=STEPS,
        n_epochs=EPOCHS,
        seed=1,
        gradient_shards=SHARDS,
        policy_kwargs={"net_arch": [width, width]},
        learners=learners,
    )


def fitted(learners: int, width: int) -> Supervised:
    """A fit whose updates are 8 gradient steps on 2,048 of its rows."""
    draws = np.random.default_rng(0)
    features = draws.normal(size=(8 * STEPS, 64)).astype(np.float32)
    return Supervised(
        (features, (features[:, 0] > 0).astype(int)),
        held_out=0,
        rounds_per_iteration=GRADIENTS,
        batch_size=STEPS,
        gradient_shards=SHARDS,
        module_kwargs={"net_arch": [2 * width, 2 * width]},
        learners=learners,
    )


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--learners", type=int, default=2)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    make, steps, gradients = (fitted, GRADIENTS, GRADIENTS) if given.fit else (reinforced, STEPS, EPOCHS)
    times = {1: UpdateSeconds(), given.learners: UpdateSeconds()}
    processor: dict[int, list[float]] = {count: [] for count in times}
    with runtime.init(num_cpus=4):
        trainings = {count: make(count, given.width) for count in times}
        for _ in range(given.rounds + 1):
            results = {}
            for count, each in trainings.items():
                before = processor_seconds()
                results[count] = each.train(steps, callbacks=times[count])
                taken = [seconds - before.get(pid, 0) for pid, seconds in processor_seconds().items()]
                processor[count].append(max(taken))
        assert len({result.weights_sha256 for result in results.values()}) == 1, "the weights differ"
    one, several = (times[count].seconds[1:] for count in times)  # the first ones make the memory
    shard = statistics.median(one) / (gradients * SHARDS)
    print(f"a shard's gradient takes about {1e3 * shard:.0f} ms")
    print(f"one learner {statistics.median(one):.3f} s an update, {given.learners} {statistics.median(several):.3f} s")
    ratios = [a / b for a, b in zip(one, several, strict=True)]
    shares = [a / b for a, b in zip(*(taken[1:] for taken in processor.values()), strict=True)]
    print(f"each takes 1/{statistics.median(shares):.2f} of the processor time that one takes alone")
    print(f"{statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
