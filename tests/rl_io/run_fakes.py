"""A training that is none: what callbacks are given in these tests."""

from pathlib import Path

import numpy as np

from shoal.envs import Episode
from shoal.rl import IterationReport, TrainingResult


class FakeTraining:
    """A training that saves an empty file as its checkpoint."""

    name, env_id, seed, workers, preset = "ppo", "CartPole-v1", 3, 2, {}

    def __init__(self) -> None:
        self.timesteps = self.iteration = 0

    def settings(self):
        return {"algorithm": self.name, "env": self.env_id, "seed": self.seed}

    def save(self, folder):
        path = Path(folder) / "checkpoints" / f"{self.timesteps:012d}"
        path.mkdir(parents=True, exist_ok=True)
        return path


def report(iteration, returns=(), **metrics):
    episodes = [
        Episode(environment=i, index=0, return_=value, length=int(value), seed=0, end_step=1)
        for i, value in enumerate(returns)
    ]
    return IterationReport(
        iteration=iteration,
        timesteps=100 * iteration,
        total_timesteps=1000,
        metrics={"time/fps": 10.0, **metrics},
        episodes=episodes,
        episode_return_mean=float(np.mean(returns)) if returns else None,
        elapsed_seconds=0.5 * iteration,
    )


def result():
    return TrainingResult(
        algorithm="ppo", env="CartPole-v1", seed=3, workers=2, timesteps=200, iterations=2, episode_return_mean=2.0,
        solved=False, solved_timesteps=None, interrupted=False, wall_seconds=1.0, total_seconds=2.0,
        weights_sha256="ab",
    )  # fmt: skip
