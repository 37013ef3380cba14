"""The same trainings for Shoal and for Stable-Baselines3; each prints one line of JSON.

python benchmarks/rl/workloads.py shoal|sb3 NAME [SECONDS]
"""

import functools
import json
import sys
import time

from measure import Window

CARTPOLE = {"n_steps": 128, "batch_size": 512, "n_epochs": 4}
CHEETAH = {"n_steps": 1024, "batch_size": 64, "n_epochs": 10}
DQN = {"learning_starts": 256, "train_freq": 4, "gradient_steps": 1, "batch_size": 32, "buffer_size": 100_000}
SAC = {"learning_starts": 256, "train_freq": 1, "gradient_steps": 1, "batch_size": 256, "buffer_size": 100_000}
# Algorithm, environment, number of environments, hyperparameters; the others are Stable-Baselines3's defaults in both.
WORKLOADS = {
    "ppo-cartpole": ("PPO", "CartPole-v1", 16, CARTPOLE),
    "ppo-cheetah": ("PPO", "HalfCheetah-v5", 2, CHEETAH),
    "dqn-cartpole": ("DQN", "CartPole-v1", 1, DQN),
    "sac-pendulum": ("SAC", "Pendulum-v1", 1, SAC),
}


def shoal(name, seconds, vectorization="sync"):
    """Train for `seconds` after the first steps; return what was measured."""
    import shoal.algorithms
    from shoal.rl import Callback

    algorithm, environment, n_envs, settings = WORKLOADS[name]
    window = Window()

    class Measured(Callback):
        begun = None
        told = None

        def on_iteration_end(self, training, report):
            if self.begun is None:
                if report.timesteps >= warm_up(n_envs, settings):
                    self.begun = report.timesteps
                    window.begin()
            elif time.perf_counter() - window.started >= seconds:
                self.told = window.end(report.timesteps - self.begun)
            return self.told is None

    measured = Measured()
    made = getattr(shoal.algorithms, algorithm)
    # A step of a vector environment takes as long for all as for half of them: one worker has them all.
    where = {"workers": 1, "group_size": n_envs} if vectorization == "entry_point" else {"workers": min(2, n_envs)}
    own = {**where, "n_envs": n_envs, "preset": "none", "vectorization": vectorization}
    with made(environment, **own, **settings) as training:
        training.train(100_000_000, callbacks=measured)
    return measured.told


def sb3(name, seconds, processes=False):
    """As `shoal`, with environments in this process or in processes of their own."""
    import stable_baselines3
    import torch
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

    torch.set_num_threads(1)
    algorithm, environment, n_envs, settings = WORKLOADS[name]
    window = Window()

    class Measured(BaseCallback):
        begun = None
        told = None

        def _on_step(self):
            due = "n_epochs" not in settings and self.num_timesteps % 256 == 0
            return self.look() if due else True

        def _on_rollout_start(self):
            self.running = self.look() if "n_epochs" in settings else True

        def look(self):
            if self.begun is None:
                if self.num_timesteps >= warm_up(n_envs, settings):
                    self.begun = self.num_timesteps
                    window.begin()
            elif self.told is None and time.perf_counter() - window.started >= seconds:
                self.told = window.end(self.num_timesteps - self.begun)
                raise StopIteration
            return True

    measured = Measured()
    kind = SubprocVecEnv if processes else DummyVecEnv
    env = make_vec_env(environment, n_envs=n_envs, seed=0, vec_env_cls=kind)
    model = getattr(stable_baselines3, algorithm)("MlpPolicy", env, device="cpu", **settings)
    try:
        model.learn(100_000_000, callback=measured)
    except StopIteration:
        env.close()
    return measured.told


def warm_up(n_envs, settings):
    """Return how many steps come before the window: two iterations, or until updates are made."""
    return 2 * n_envs * settings["n_steps"] if "n_steps" in settings else 2 * settings["learning_starts"]


RIVALS = {
    "shoal": shoal,
    "shoal-vector": functools.partial(shoal, vectorization="entry_point"),
    "sb3": sb3,
    "sb3-processes": functools.partial(sb3, processes=True),
}

if __name__ == "__main__":
    rival, name, *rest = sys.argv[1:]
    print(json.dumps(RIVALS[rival](name, float(rest[0]) if rest else 8.0)))
