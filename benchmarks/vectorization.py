"""Environment steps a second of PPO's rollouts on CartPole, by what steps the environments.

    python benchmarks/vectorization.py [--rounds 3]

Each kind in turn; printed are medians over iterations and rounds, of whole rollouts (inference included) and of the
environments' steps alone. EnvPool is left out where its extra is not installed.
"""

import argparse
import statistics
import warnings

from shoal import PPO, Callback, runtime
from shoal.envs import is_installed

ENVIRONMENTS, STEPS, ITERATIONS = 64, 128, 8


class Speeds(Callback):
    """Collects steps per second: of whole rollouts, and of the environments alone."""

    def __init__(self):
        self.rollouts, self.environments = [], []

    def on_iteration_end(self, training, report):
        stepping, acting = report.metrics["time/environment_seconds"], report.metrics["time/inference_seconds"]
        self.environments.append(ENVIRONMENTS * STEPS / stepping)
        self.rollouts.append(ENVIRONMENTS * STEPS / (stepping + acting))


def measure(kind, speeds):
    settings = {"n_steps": STEPS, "batch_size": ENVIRONMENTS * STEPS, "n_epochs": 1, "preset": "none"}
    where = {"n_envs": ENVIRONMENTS, "group_size": ENVIRONMENTS, "vectorization": kind, "engine": "serial"}
    with PPO("CartPole-v1", **settings, **where) as ppo:
        ppo.train(ITERATIONS * ENVIRONMENTS * STEPS, callbacks=speeds)
    runtime.shutdown()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")  # EnvPool says that it cannot be put back
    kinds = ["sync", "entry_point", *(["envpool"] if is_installed("envpool") else [])]
    speeds = {kind: Speeds() for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            measure(kind, speeds[kind])
    print(f"{'':12} {'rollout':>12} {'environments':>14}   [steps/s]")
    for kind, found in speeds.items():
        whole, alone = statistics.median(found.rollouts), statistics.median(found.environments)
        print(f"{kind:12} {whole:12,.0f} {alone:14,.0f}")


if __name__ == "__main__":
    main()
