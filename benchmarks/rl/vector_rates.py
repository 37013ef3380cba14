"""Steps a processor second of a simulation group over a library's vector environments, against the library alone.

    python benchmarks/rl/vector_rates.py entry_point|ale|envpool SIZE [SECONDS]

Both take the same random actions, of the space's dtype, in slices of a tenth of a second, in turn. CartPole-v1, Pong
with ale-py's preprocessing, and CartPole-v1 of EnvPool. Beside stepping, a group checks observations and rewards, tells
which episodes ended, and notes the actions; what has ended in ale-py's is reset with a seed of its own.
"""

import importlib
import json
import statistics
import sys
import time
import warnings

import gymnasium
import numpy as np

from shoal.envs import derive_seed, make_group, resolve

ENVIRONMENTS = {"entry_point": "CartPole-v1", "ale": "Atari/Pong-v5", "envpool": "CartPole-v1"}
SLICE_SECONDS = 0.1


def library(kind, size):
    """Return the library's own environments, with its defaults, and what their `step` takes."""
    if kind == "ale":
        made = importlib.import_module("ale_py.vector_env").AtariVectorEnv("pong", size, num_threads=1)
    elif kind == "envpool":
        made = importlib.import_module("envpool").make(
            "CartPole-v1", env_type="gymnasium", num_envs=size, num_threads=1, seed=0
        )
    else:
        made = gymnasium.make_vec("CartPole-v1", num_envs=size, vectorization_mode="vector_entry_point")
    made.reset() if kind == "envpool" else made.reset(seed=0)
    return made


def rate(step, actions, size):
    """Return environment steps a processor second of one slice."""
    count, started, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started < SLICE_SECONDS:
        for given in actions[:8]:
            step(given)
        count += 8 * size
        actions = np.roll(actions, -8, 0)
    return count / (time.process_time() - cpu)


def main():
    kind, size, *rest = sys.argv[1:]
    size, seconds = int(size), float(rest[0]) if rest else 3.0
    warnings.simplefilter("ignore")
    bare = library(kind, size)
    generator = np.random.default_rng(derive_seed(0, "actions"))
    with make_group(kind, resolve(ENVIRONMENTS[kind]), size=size, first_index=0, run_seed=0) as group:
        group.reset()
        actions = generator.integers(0, group.action_space.n, (256, size)).astype(group.action_space.dtype)
        pairs = [
            (rate(group.step, actions, size), rate(bare.step, actions, size))
            for _ in range(max(2, round(seconds / SLICE_SECONDS / 2)))
        ]
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    efficiency = statistics.median(a / b for a, b in pairs)
    print(json.dumps({"group": ours, "library": theirs, "efficiency": efficiency}))


if __name__ == "__main__":
    main()
