"""Environment steps a second of n rollout workers, against n bare processes that loop over environments of their own.

    python benchmarks/rl/sampling.py ENVIRONMENT trivial|policy [SECONDS] [SIZE]

Environments: CartPole-v1, HalfCheetah-v5, and busy-20, busy-200, busy-5000, whose steps compute for so many µs of
processor time. Both sides step groups of SIZE environments (8); `trivial` draws actions without a network, `policy`
asks the same one of 64 × 64, in numpy. The workers' side counts all that a training has beside: driver, learner, object
store. The bare loops run once before and once after it, and count with their mean. Printed are steps a second, and
steps a processor second, which a machine that others use as well disturbs less.
"""

import json
import multiprocessing
import sys
import time
from dataclasses import dataclass

import gymnasium
import numpy as np
import torch
from measure import Window
from threadpoolctl import threadpool_limits

from shoal.rl import Acted, Callback, ModelSpec, OnPolicyAlgorithm, build_model

PROCESSES, STEPS = 2, 128


class Busy(gymnasium.Env):
    """A step that computes for some microseconds, and an episode of 1 000 of them."""

    observation_space = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, microseconds):
        self._seconds, self._observation = microseconds / 1e6, np.zeros(4, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps = 0
        return self._observation, {}

    def step(self, action):
        until = time.thread_time() + self._seconds
        while time.thread_time() < until:
            pass
        self._steps += 1
        return self._observation, 1.0, False, self._steps == 1000, {}


def environment(name):
    """Return what makes an environment: an id, or a class with its arguments."""
    kind, _, microseconds = name.partition("-")
    return (Busy, {"microseconds": int(microseconds)}) if kind == "busy" else (name, {})


def bare(name, policy, size, seconds, steps):
    """Loop over so many environments until the time is over; put the steps into `steps`."""
    threadpool_limits(1)
    torch.set_num_threads(1)
    made, kwargs = environment(name)
    make = (
        (lambda: gymnasium.make(made, disable_env_checker=True)) if isinstance(made, str) else (lambda: made(**kwargs))
    )
    environments = [make() for _ in range(size)]
    observations = np.stack([each.reset(seed=i)[0] for i, each in enumerate(environments)])
    model = build_model(ModelSpec("actor_critic", environments[0].observation_space, environments[0].action_space))
    acting, generator, count = model.plain, np.random.default_rng(0), 0
    started, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - started < seconds:
        noise = model.draw_noise(generator, (STEPS, size))
        for t in range(STEPS):
            outputs = acting.outputs(acting.encode(observations)) if policy else np.zeros_like(noise[t])
            actions = model.environment_actions(acting.choose(outputs, noise[t]))
            for i, each in enumerate(environments):
                observations[i], _, terminated, truncated, _ = each.step(actions[i])
                if terminated or truncated:
                    observations[i], _ = each.reset()
            count += size
            if t % 8 == 7 and time.perf_counter() - started >= seconds:
                break
    steps.put((count / (time.perf_counter() - started), count, time.process_time() - cpu))


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How long rollouts are, and what acts."""

    n_steps: int = 8 * STEPS
    policy: bool = True


class Sampling(OnPolicyAlgorithm[SamplingConfig]):
    """Collects, and learns nothing."""

    name = "sampling"
    config_class = SamplingConfig

    @staticmethod
    def records(spec):
        return {}

    @classmethod
    def acting(cls, model):
        return model.plain

    @staticmethod
    def explore(model, rows, noise, config, clock):
        return Acted(model.choose(model.outputs(rows) if config.policy else np.zeros_like(noise), noise))

    @staticmethod
    def finish(model, rollout, config):
        pass

    @staticmethod
    def prepare(learner, config):
        learner.adam()

    @staticmethod
    def update(learner, rollout, config, clock):
        learner.n_updates += 1
        return {}


class Rate(Callback):
    """What a window after the second iteration tells."""

    def __init__(self, seconds):
        self._seconds, self._begun, self._window, self.told = seconds, 0, Window(), None

    def on_iteration_end(self, training, report):
        if report.iteration == 2:
            self._begun = report.timesteps
            self._window.begin()
        elif report.iteration > 2 and time.perf_counter() - self._window.started >= self._seconds:
            self.told = self._window.end(report.timesteps - self._begun)
        return self.told is None


def shoal(name, policy, size, seconds):
    """Let rollout workers step as many groups as there are processes; return what the window told."""
    made, kwargs = environment(name)
    # A rollout takes about a tenth of the window, so that what is between rollouts counts as in a training.
    steps = max(8, {"busy-200": STEPS, "busy-5000": 8}.get(name, 8 * STEPS) * 8 // size)
    where = {"workers": PROCESSES, "n_envs": PROCESSES * size, "group_size": size, "preset": "none"}
    rate = Rate(seconds)
    with Sampling(made, env_kwargs=kwargs, policy=policy, n_steps=steps, **where) as sampling:
        sampling.train(1_000_000_000, callbacks=rate)
    return rate.told


def main():
    name, kind, *rest = sys.argv[1:]
    seconds = float(rest[0]) if rest else 3.0
    what = name, kind == "policy", int(rest[1]) if len(rest) > 1 else 8
    before = loops(*what, seconds / 2)
    workers = shoal(*what, seconds)
    after = loops(*what, seconds / 2)
    rate, cpu_rate = ((a + b) / 2 for a, b in zip(before, after, strict=True))
    told = {
        "workers": workers["steps_per_second"],
        "bare": rate,
        "efficiency": workers["steps_per_second"] / rate,
        "workers_per_cpu_second": workers["steps_per_cpu_second"],
        "bare_per_cpu_second": cpu_rate,
        "cpu_efficiency": workers["steps_per_cpu_second"] / cpu_rate,
    }
    print(json.dumps(told))


def loops(name, policy, size, seconds):
    """Let bare processes loop side by side; return their steps a second in all, and steps a processor second."""
    results = multiprocessing.Queue()
    what = name, policy, size, seconds, results
    processes = [multiprocessing.Process(target=bare, args=what) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60 + seconds) for _ in processes]
    for process in processes:
        process.join()
    rates, counts, cpu = zip(*found, strict=True)
    return sum(rates), sum(counts) / sum(cpu)


if __name__ == "__main__":
    main()
