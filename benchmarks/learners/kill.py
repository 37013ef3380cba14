"""From the death of a learner, by SIGKILL in the middle of an update, to the next gradient step of those that are left.

    python benchmarks/learners/kill.py [--learners 3] [--rounds 10]

Prints how long that takes, beside an ordinary gradient step, and checks that the weights are those of one learner.
"""

import argparse
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from shoal import runtime
from shoal.algorithms import PPO, PPOConfig
from shoal.rl import Callback, Clock, Learner, Rollout

SETTINGS = {
    "preset": "none", "n_envs": 8, "n_steps": 256, "batch_size": 256, "n_epochs": 20, "seed": 1, "gradient_shards": 4,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class NotedConfig(PPOConfig):
    """With a folder for notes."""

    notes: str = ""


class Noted(PPO):
    """Notes when each gradient step ends, in a file named by the process."""

    config_class = NotedConfig

    @staticmethod
    def update(learner: Learner, rollout: Rollout, config: Any, clock: Clock) -> dict[str, float]:
        """As PPO's."""
        own = learner.differentiate
        with Path(config.notes, str(os.getpid())).open("a") as file:

            def differentiate(*given: Any) -> Any:
                found = own(*given)
                print(time.monotonic(), file=file, flush=True)
                return found

            learner.differentiate = differentiate  # type: ignore[method-assign]
            try:
                return PPO.update(learner, rollout, config, clock)
            finally:
                del learner.differentiate


class KillInUpdates(Callback):
    """Kills one of the learners a moment after an iteration has begun to be learned from."""

    def __init__(self, notes: Path) -> None:
        self.kills: list[float] = []
        self.over = False
        self._notes = notes

    def on_iteration_end(self, training, report):
        """Watch for the next update, and kill in it."""
        if report.metrics.get("train/learners", 1) < 2:  # wait until the new one has joined
            return
        threading.Thread(target=self._kill, args=(time.monotonic(),), daemon=True).start()

    def _kill(self, since: float) -> None:
        while not self.over:
            for file in self._notes.iterdir():
                lines = file.read_text().split()
                if lines and float(lines[-1]) > since and Path("/proc", file.name).exists():
                    os.kill(int(file.name), signal.SIGKILL)
                    self.kills.append(time.monotonic())
                    return


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--learners", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, runtime.init(num_cpus=4):
        notes, alone = Path(folder, "group"), Path(folder, "alone")
        notes.mkdir()
        alone.mkdir()
        killing, digests = KillInUpdates(notes), []
        for count, where, callbacks in ((given.learners, notes, [killing]), (1, alone, [])):
            with Noted("CartPole-v1", **SETTINGS, notes=str(where), learners=count) as training:
                digests.append(training.train(2048 * given.rounds, callbacks=callbacks).weights_sha256)
            killing.over = True
        ends = [[float(line) for line in file.read_text().split()] for file in notes.iterdir()]
    assert digests[0] == digests[1], "the weights differ"
    after = [1e3 * (max(second_after(kill, ends)) - kill) for kill in killing.kills if second_after(kill, ends)]
    steps = [1e3 * (b - a) for own in ends for a, b in pairwise(own)]
    print(f"{len(after)} kills; the others end the step after the next one {statistics.median(after):.1f} ms later,")
    print(
        f"{max(after):.1f} ms at most; an ordinary step takes {statistics.median(steps):.1f} ms. The weights are one's."
    )


def second_after(kill: float, ends: Sequence[Sequence[float]]) -> list[float]:
    """When those who live on end their second step after a kill: to the first one the dead may still have given its
    part. A learner that joins after it is none of them."""
    later = [[end for end in own if kill < end < kill + 1] for own in ends if own[0] < kill]
    return [own[1] for own in later if len(own) > 1]


if __name__ == "__main__":
    main()
