"""Environment steps a second of n rollout workers, against n bare processes that loop over environments of their own.

    python benchmarks/rl/sampling.py ENVIRONMENT trivial|policy [SECONDS]

Environments: CartPole-v1, HalfCheetah-v5, and busy-20, busy-200, busy-5000, whose steps compute for so many µs. Both
sides step groups of 8 environments; `trivial` draws actions without a network, `policy` asks one of 64 × 64.
"""

import json
import multiprocessing
import sys
import time
from dataclasses import dataclass

import gymnasium
import numpy as np
import torch
from threadpoolctl import threadpool_limits

from shoal.rl import Acted, Callback, ModelSpec, OnPolicyAlgorithm, build_model

PROCESSES, SIZE, STEPS = 2, 8, 128


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
        until = time.perf_counter() + self._seconds
        while time.perf_counter() < until:
            pass
        self._steps += 1
        return self._observation, 1.0, False, self._steps == 1000, {}


def environment(name):
    """Return what makes an environment: an id, or a class with its arguments."""
    kind, _, microseconds = name.partition("-")
    return (Busy, {"microseconds": int(microseconds)}) if kind == "busy" else (name, {})


def bare(name, policy, seconds, steps):
    """Loop over 8 environments until the time is over; put the steps into `steps`."""
    threadpool_limits(1)
    torch.set_num_threads(1)
    made, kwargs = environment(name)
    make = (
        (lambda: gymnasium.make(made, disable_env_checker=True)) if isinstance(made, str) else (lambda: made(**kwargs))
    )
    environments = [make() for _ in range(SIZE)]
    observations = np.stack([each.reset(seed=i)[0] for i, each in enumerate(environments)])
    model = build_model(ModelSpec("actor_critic", environments[0].observation_space, environments[0].action_space))
    generator, count = np.random.default_rng(0), 0
    started = time.perf_counter()
    with torch.inference_mode():
        while time.perf_counter() - started < seconds:
            noise = torch.from_numpy(model.draw_noise(generator, (STEPS, SIZE)))
            for t in range(STEPS):
                rows = model.encode(observations)
                actions = model.choose(model.outputs(rows) if policy else torch.zeros_like(noise[t]), noise[t]).numpy()
                for i, each in enumerate(environments):
                    observations[i], _, terminated, truncated, _ = each.step(actions[i])
                    if terminated or truncated:
                        observations[i], _ = each.reset()
            count += STEPS * SIZE
    steps.put(count / (time.perf_counter() - started))


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

    @staticmethod
    def explore(model, rows, noise, config, clock):
        outputs = (model.plain or model).outputs(rows) if config.policy else torch.zeros_like(noise)
        return Acted(model.choose(outputs, noise))

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
    """Steps a second after the first iteration."""

    def __init__(self, seconds):
        self._seconds, self._begun, self.rate = seconds, None, None

    def on_iteration_end(self, training, report):
        now = time.perf_counter()
        if self._begun is None:
            self._begun = now, report.timesteps
        elif now - self._begun[0] >= self._seconds:
            self.rate = (report.timesteps - self._begun[1]) / (now - self._begun[0])
        return self.rate is None


def shoal(name, policy, seconds):
    """Let rollout workers step as many groups as there are processes; return steps a second."""
    made, kwargs = environment(name)
    # A rollout takes about a tenth of the window, so that what is between rollouts counts as in a training.
    steps = {"busy-200": STEPS, "busy-5000": 8}.get(name, 8 * STEPS)
    where = {"workers": PROCESSES, "n_envs": PROCESSES * SIZE, "group_size": SIZE, "preset": "none"}
    rate = Rate(seconds)
    with Sampling(made, env_kwargs=kwargs, policy=policy, n_steps=steps, **where) as sampling:
        sampling.train(1_000_000_000, callbacks=rate)
    return rate.rate


def main():
    name, kind, *rest = sys.argv[1:]
    seconds = float(rest[0]) if rest else 3.0
    steps = multiprocessing.Queue()
    loops = [
        multiprocessing.Process(target=bare, args=(name, kind == "policy", seconds, steps)) for _ in range(PROCESSES)
    ]
    for loop in loops:
        loop.start()
    alone = sum(steps.get(timeout=60 + seconds) for _ in loops)
    for loop in loops:
        loop.join()
    workers = shoal(name, kind == "policy", seconds)
    print(json.dumps({"workers": workers, "bare": alone, "efficiency": workers / alone}))


if __name__ == "__main__":
    main()
