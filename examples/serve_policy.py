"""Serve a trained policy: in this program, to an evaluation, and over HTTP.

Run it with:
    python examples/serve_policy.py --run runs/cartpole      (without --run, it trains a little first)
"""

import argparse
import json
import urllib.request

from shoal.algorithms import PPO
from shoal.rl import evaluate, serve


def ask(url: str, observation: list[float]) -> dict:
    """Return the answer of a served policy over HTTP."""
    body = json.dumps({"observation": observation}).encode()
    with urllib.request.urlopen(f"{url}/act", data=body) as reply:
        return json.load(reply)


def main() -> None:
    """Serve a policy from two replicas and ask it in three ways."""
    parser = argparse.ArgumentParser(description="Serve a policy trained on CartPole-v1.")
    parser.add_argument("--run", help="run folder of a training on CartPole-v1")
    parser.add_argument("--total-timesteps", type=int, default=20_000, help="of the little training")
    parser.add_argument("--replicas", type=int, default=2, help="processes that answer")
    flags = parser.parse_args()

    folder = flags.run or "runs/cartpole-little"
    if flags.run is None:
        with PPO("CartPole-v1", workers=2, seed=0) as ppo:
            ppo.train(flags.total_timesteps)
            ppo.save(folder)

    with serve(folder, replicas=flags.replicas, http="127.0.0.1:0") as served:
        print("one observation:", served.act([0.0, 0.1, 0.02, -0.1]))
        print("a batch:", served.act([[0.0, 0.1, 0.02, -0.1], [0.0, -0.1, -0.02, 0.1]]))
        print("over HTTP:", ask(served.http_address, [0.0, 0.1, 0.02, -0.1]))
        print("evaluated:", evaluate(served, "CartPole-v1", episodes=5))
        print("health:", served.health())


if __name__ == "__main__":
    main()
