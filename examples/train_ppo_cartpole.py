"""Train PPO on CartPole until it is solved, then evaluate and keep the policy.

    python examples/train_ppo_cartpole.py

The same from the command line:
    shoal train ppo CartPole-v1 --workers 2 --total-timesteps 300000 --stop-return 475 --run-dir runs/cartpole-example
"""

import argparse

from shoal.algorithms import PPO
from shoal.rl import ProgressDisplay, RunFolder, evaluate


def main() -> None:
    """Train, save everything in a run folder, evaluate."""
    parser = argparse.ArgumentParser(description="Train PPO on CartPole-v1.")
    parser.add_argument("--total-timesteps", type=int, default=300_000, help="environment steps to train for at most")
    parser.add_argument("--run-dir", default="runs/cartpole-example", help="run folder to write")
    flags = parser.parse_args()

    folder = RunFolder(flags.run_dir, overwrite=True, stop_return=475)
    with PPO("CartPole-v1", workers=2, seed=0) as ppo, folder, ProgressDisplay() as display:
        result = ppo.train(flags.total_timesteps, stop_return=475, callbacks=[display, folder])
    print(f"solved: {result.solved}, mean return {result.episode_return_mean}, {result.timesteps} steps")
    print(f"weights {result.weights_sha256[:16]}…: the same for any number of workers")

    evaluation = evaluate(flags.run_dir, episodes=20)
    print(f"greedy: {evaluation.episode_return_mean:.1f} ± {evaluation.episode_return_std:.1f} over 20 episodes")


if __name__ == "__main__":
    main()
