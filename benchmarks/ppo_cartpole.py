"""Time to solve CartPole-v1 with PPO, process start included; against Stable-Baselines3 with the rl-zoo's settings.

    python benchmarks/ppo_cartpole.py [--seeds 3] [--peer-python PYTHON]

Ours steps all environments as gymnasium's one vector environment, in one worker, which is the quickest way for an
environment this small. Solved: the mean return of the last 100 training episodes reaches 475. The rivals run in turn,
one seed after another; printed are the seconds from process start to the end of training, the environment steps, and
the ratio of each pair.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def peer(seed: int) -> None:
    """Train Stable-Baselines3's PPO with the rl-zoo's settings for CartPole until it is solved; print the steps."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(1)

    class Stop(BaseCallback):
        def _on_step(self) -> bool:
            returns = [episode["r"] for episode in self.model.ep_info_buffer]
            return len(returns) < 100 or sum(returns) / 100 < 475

    env = make_vec_env("CartPole-v1", n_envs=8, seed=seed)
    model = PPO(
        "MlpPolicy", env, n_steps=32, batch_size=256, gae_lambda=0.8, gamma=0.98, n_epochs=20, ent_coef=0.0,
        learning_rate=lambda left: left * 0.001, clip_range=lambda left: left * 0.2, seed=seed, device="cpu",
    )  # fmt: skip
    model.learn(100_000, callback=Stop())
    print(json.dumps({"timesteps": model.num_timesteps, "solved": model.num_timesteps < 100_000}))


def run(command: list[str]) -> tuple[float, dict]:
    """Run a command; return its seconds and the last line of its output as JSON."""
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started, json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Run the rivals in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--peer-python", help="a Python with stable-baselines3 installed")
    parser.add_argument("--rows", type=Path, help="a file for the raw rows, JSON")
    parser.add_argument("--peer", type=int, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.peer is not None:
        peer(flags.peer)
        return
    ours, theirs, rows = [], [], []
    for seed in range(flags.first_seed, flags.first_seed + flags.seeds):
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                "-m",
                "shoal.cli.main",
                "train",
                "ppo",
                "CartPole-v1",
                *("--workers", "1", "--vectorization", "entry_point", "--group-size", "32"),
            ]
            command += ["--seed", str(seed), "--total-timesteps", "300000", "--stop-return", "475", "--json"]
            seconds, result = run([*command, "--run-dir", f"{folder}/run"])
        ours.append(seconds)
        rows.append({"rival": "shoal", "round": seed, "seconds": seconds, "timesteps": result["timesteps"]})
        print(
            f"seed {seed}  shoal {seconds:6.1f} s  {result['timesteps']:>7,} steps  solved {result['solved']}", end=""
        )
        if flags.peer_python:
            seconds, result = run([flags.peer_python, __file__, "--peer", str(seed)])
            theirs.append(seconds)
            rows.append({"rival": "sb3", "round": seed, "seconds": seconds, "timesteps": result["timesteps"]})
            print(
                f"   stable-baselines3 {seconds:6.1f} s  {result['timesteps']:>7,} steps  solved {result['solved']}",
                end="",
            )
        print()
    if flags.rows:
        flags.rows.parent.mkdir(exist_ok=True)
        flags.rows.write_text(json.dumps(rows))
    print(f"median: shoal {statistics.median(ours):.1f} s", end="")
    if theirs:
        ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
        print(f", stable-baselines3 {statistics.median(theirs):.1f} s, ratio of pairs {ratio:.1f}")
    print()


if __name__ == "__main__":
    main()
