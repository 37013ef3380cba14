"""Simulators whose step takes 1 to 20 ms, at random: a barrier after each step against none (Ray's paper, table 4).

    python benchmarks/uneven_simulators.py [--simulators 8] [--rounds 3] [--seconds 6]

With a barrier N simulators take a step in the time of the slowest, E[max of N] = 1 + 19 · N / (N + 1) ms; without one
each goes on by itself, in 10.5 ms on average. So the distribution predicts that they are E[max of N] / 10.5 times as
fast. Both ways are measured in turn: actors that step one simulator each, and the same driver that waits for all of
them, or for the next. The exit code is 1 if the median of the ratios is more than 10 % off. Beside it, whole trainings
on such simulators: A2C, which learns after each step of all (n_steps = 1), and IMPALA.
"""

import argparse
import statistics
import sys
import time

import gymnasium
import numpy as np

from shoal import A2C, IMPALA, Callback, runtime

SHORTEST, LONGEST = 1.0, 20.0
"""Milliseconds of a step."""
TOLERANCE = 0.1


class Uneven(gymnasium.Env):
    """Sleeps in each step; nothing to see, and nothing to gain."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(0, 1, (4,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(4, np.float32), {}

    def step(self, action):
        time.sleep(self.np_random.uniform(SHORTEST, LONGEST) / 1000)
        return np.zeros(4, np.float32), 0.0, False, False, {}


class Simulator:
    """One of them, as an actor."""

    def __init__(self, seed: int) -> None:
        self._env = Uneven()
        self._env.reset(seed=seed)

    def step(self) -> None:
        """Step it."""
        self._env.step(0)


def with_a_barrier(simulators, seconds):
    """Steps a second of all where each waits for the slowest."""
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        runtime.get([simulator.step.remote() for simulator in simulators])
        steps += len(simulators)
    return steps / (time.perf_counter() - began)


def without(simulators, seconds):
    """Steps a second of all where none waits for another."""
    stepping = {simulator.step.remote(): simulator for simulator in simulators}
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for ref in runtime.wait(list(stepping))[0]:
            simulator = stepping.pop(ref)
            stepping[simulator.step.remote()] = simulator
            steps += 1
    rate = steps / (time.perf_counter() - began)
    runtime.get(list(stepping))
    return rate


class Rate(Callback):
    """Steps a second after the first second, in which processes start."""

    def __init__(self, seconds):
        self.seconds, self.first, self.rate = seconds, None, 0.0

    def on_iteration_end(self, training, report):
        if self.first is None and report.elapsed_seconds > 1:
            self.first = report
        elif self.first is not None:
            elapsed = report.elapsed_seconds - self.first.elapsed_seconds
            self.rate = (report.timesteps - self.first.timesteps) / elapsed
            return elapsed < self.seconds
        return None


def training_rate(algorithm, simulators, seconds, **settings):
    """Environment steps a second of a training, with a worker for each simulator."""
    rate = Rate(seconds)
    with algorithm(Uneven, n_envs=simulators, group_size=1, workers=simulators, **settings) as training:
        training.train(10**9, callbacks=rate)
    return rate.rate


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulators", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--no-training", action="store_true", help="leave out A2C and IMPALA")
    flags = parser.parse_args()
    count = flags.simulators
    slowest = SHORTEST + (LONGEST - SHORTEST) * count / (count + 1)
    predicted = slowest / ((SHORTEST + LONGEST) / 2)
    runtime.init(num_cpus=count + 2)
    make = runtime.remote(num_cpus=0)(Simulator)
    simulators = [make.remote(seed) for seed in range(count)]
    runtime.get([simulator.step.remote() for simulator in simulators])
    rates = [
        (with_a_barrier(simulators, flags.seconds), without(simulators, flags.seconds)) for _ in range(flags.rounds)
    ]
    barrier, free = (statistics.median(rate) for rate in zip(*rates, strict=True))
    ratio = statistics.median(free / barrier for barrier, free in rates)
    print(f"{count} simulators, {SHORTEST:g} to {LONGEST:g} ms a step        steps/s")
    print(f"a barrier after each step             {barrier:8.0f}")
    print(f"none                                  {free:8.0f}   {ratio:.2f} times; predicted {predicted:.2f}")
    if not flags.no_training:
        for simulator in simulators:
            runtime.kill(simulator)
        together = training_rate(A2C, count, flags.seconds, n_steps=1)
        apart = training_rate(IMPALA, count, flags.seconds, n_steps=20, rollouts_per_update=max(1, count // 2))
        print(f"A2C, which learns after each step     {together:8.0f}")
        print(f"IMPALA                                {apart:8.0f}   {apart / together:.2f} times")
    runtime.shutdown()
    sys.exit(abs(ratio / predicted - 1) > TOLERANCE)


if __name__ == "__main__":
    main()
