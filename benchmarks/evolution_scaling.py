"""How fast generations of evolution strategies are with one and with two workers, on Pendulum.

    python benchmarks/evolution_scaling.py [--rounds 3]

Both in turn, so that what else the machine does meets both; printed are medians of environment steps a second over
generations and rounds, the first generation of each left out, and their ratio. The weights are the same, bit for bit.
"""

import argparse
import itertools
import statistics
import time

from shoal import ES, Callback, runtime

DIRECTIONS, GENERATIONS, SHARES = 64, 8, 8
ROWS = 16


class Speeds(Callback):
    """Collects steps per second of each generation but the first."""

    def __init__(self):
        self.found, self.at = [], []

    def on_training_start(self, training, total_timesteps):
        self.at = []

    def on_iteration_end(self, training, report):
        self.at.append((report.timesteps, time.perf_counter()))

    def on_training_end(self, training, result):
        for (steps, began), (later, ended) in itertools.pairwise(self.at):
            self.found.append((later - steps) / (ended - began))


def measure(workers, speeds):
    settings = {"n_delta": DIRECTIONS, "score_episodes": SHARES, "preset": "none"}
    episodes = GENERATIONS * (2 * DIRECTIONS + SHARES)
    with ES("Pendulum-v1", workers=workers, n_envs=SHARES * ROWS, group_size=ROWS, **settings) as es:
        found = es.train(200 * episodes, callbacks=speeds).weights_sha256
    runtime.shutdown()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    speeds = {1: Speeds(), 2: Speeds()}
    hashes = {measure(workers, speeds[workers]) for _ in range(rounds) for workers in speeds}
    assert len(hashes) == 1, hashes
    one, two = (statistics.median(speeds[workers].found) for workers in (1, 2))
    print(
        f"1 worker {one:,.0f} steps/s, 2 workers {two:,.0f} steps/s, ratio {two / one:.2f}; weights {hashes.pop()[:12]}"
    )


if __name__ == "__main__":
    main()
