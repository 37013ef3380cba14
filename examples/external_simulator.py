"""A simulator that owns its loop, a pole on a cart: it asks a training for actions, and reports what came of them.
Without an address it starts a training itself.

    shoal train ppo CartPole-v1 --listen 127.0.0.1:50051                              # it tells a token
    SHOAL_SIMULATOR_TOKEN=… python examples/external_simulator.py 127.0.0.1:50051     # as often as you like
"""

import argparse
import contextlib
import math
import random
import threading

from shoal import PPO
from shoal.envs import EpisodeLostError, ServerGoneError, SimulatorClient


class Pole:
    """Barto, Sutton and Anderson's cart with a pole: 1 for each step that it stands, 500 at most."""

    def __init__(self, numbers: random.Random) -> None:
        self.state, self.steps = [numbers.uniform(-0.05, 0.05) for _ in range(4)], 0

    def push(self, action: int) -> bool:
        """Push left or right for 0.02 s; return whether it fell."""
        x, v, angle, turning = self.state
        shared = ((10.0 if action == 1 else -10.0) + 0.05 * turning**2 * math.sin(angle)) / 1.1
        bending = (9.8 * math.sin(angle) - math.cos(angle) * shared) / (2 / 3 - 0.05 * math.cos(angle) ** 2 / 1.1)
        speeding = shared - 0.05 * bending * math.cos(angle) / 1.1
        self.state = [x + 0.02 * v, v + 0.02 * speeding, angle + 0.02 * turning, turning + 0.02 * bending]
        self.steps += 1
        return abs(self.state[0]) > 2.4 or abs(self.state[2]) > math.radians(12)


def simulate(address: str, token: str | None, seed: int) -> None:
    """Play until the training ends."""
    numbers = random.Random(seed)
    with SimulatorClient(address, token=token) as client, contextlib.suppress(ServerGoneError):
        while True:
            with contextlib.suppress(EpisodeLostError):  # the training's worker was restarted
                pole, episode, reward, fell = Pole(numbers), client.start(), 0.0, False
                while not fell and pole.steps < 500:
                    fell, reward = pole.push(episode.act(pole.state, reward)), 1.0
                episode.end(pole.state, reward, terminated=fell, truncated=not fell)
    print("the simulator ends")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("address", nargs="?", help="HOST:PORT of a training, or of a served policy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--total-timesteps", type=int, default=30_000, help="of the training that is started here")
    flags = parser.parse_args()
    if flags.address:
        simulate(flags.address, None, flags.seed)
    else:
        with PPO("CartPole-v1", listen="127.0.0.1:0", seed=flags.seed) as ppo:
            threading.Thread(target=simulate, args=(ppo.endpoint.address, ppo.endpoint.token, flags.seed)).start()
            print(ppo.train(flags.total_timesteps))
