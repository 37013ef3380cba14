"""Time of one DQN and one SAC update (draw a minibatch, losses, optimizer, target), against the textbook loop.

    python benchmarks/offpolicy_updates.py [--rounds 15] [--updates 100]

The rival is written as CleanRL's scripts are: eager PyTorch, `nn.Sequential`, one `torch.optim.Adam` for each network,
gradients by `zero_grad` and `backward`, targets moved parameter by parameter, a replay buffer of numpy arrays. Both
have the same sizes and one thread, and learn from the same transitions. Rounds alternate, and the order within a pair
of them; printed are the medians of both, and the median of the ratios of pairs.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from shoal import runtime
from shoal.algorithms import DQN, SAC, DQNConfig, SACConfig
from shoal.algorithms import dqn as dqn_file
from shoal.algorithms import sac as sac_file
from shoal.rl import Batch, Learner, ModelSpec
from shoal.rl.threads import limit_threads

ROWS = 50_000
"""Transitions in the buffers."""


def transitions(inputs: int, actions: spaces.Space) -> dict[str, np.ndarray]:
    """Columns of a replay buffer, filled with noise."""
    generator = np.random.default_rng(0)
    observations = generator.standard_normal((2, ROWS, inputs)).astype(np.float32)
    if isinstance(actions, spaces.Discrete):
        taken = generator.integers(actions.n, size=ROWS)
    else:
        taken = generator.uniform(-1, 1, (ROWS, *(actions.shape or ()))).astype(np.float32)
    return {
        "observations": observations[0],
        "actions": taken,
        "rewards": generator.standard_normal(ROWS).astype(np.float32),
        "next_observations": observations[1],
        "discounts": np.where(generator.random(ROWS) < 0.05, 0, 0.99).astype(np.float32),
    }


def mlp(inputs: int, widths: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


class Buffer:
    """Arrays from which rows are drawn, as tensors."""

    def __init__(self, columns: dict[str, np.ndarray]) -> None:
        self.columns, self.generator = columns, np.random.default_rng(1)

    def sample(self, rows: int) -> dict[str, Tensor]:
        """A minibatch."""
        indices = self.generator.integers(ROWS, size=rows)
        return {name: torch.as_tensor(column[indices]) for name, column in self.columns.items()}


class TextbookDQN:
    """DQN's update."""

    def __init__(self, columns: dict[str, np.ndarray], widths: tuple[int, ...], actions: int, batch_size: int) -> None:
        self.buffer, self.batch_size = Buffer(columns), batch_size
        self.q = mlp(columns["observations"].shape[1], widths, actions)
        self.target = copy.deepcopy(self.q)
        self.optimizer = torch.optim.Adam(self.q.parameters(), lr=1e-4)

    def update(self) -> None:
        """One step."""
        data = self.buffer.sample(self.batch_size)
        with torch.no_grad():
            following = self.target(data["next_observations"]).max(dim=1).values
            y = data["rewards"] + data["discounts"] * following
        q = self.q(data["observations"]).gather(1, data["actions"].unsqueeze(1)).squeeze(1)
        loss = nn.functional.smooth_l1_loss(q, y)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.q.parameters(), 10.0)
        self.optimizer.step()


class TextbookSAC:
    """SAC's update, with a learned temperature."""

    def __init__(self, columns: dict[str, np.ndarray], widths: tuple[int, ...], batch_size: int) -> None:
        self.buffer, self.batch_size = Buffer(columns), batch_size
        inputs, self.actions = columns["observations"].shape[1], columns["actions"].shape[1]
        self.actor = mlp(inputs, widths, 2 * self.actions)
        self.critics = [mlp(inputs + self.actions, widths, 1) for _ in range(2)]
        self.targets = [copy.deepcopy(critic) for critic in self.critics]
        self.log_alpha = torch.zeros(1, requires_grad=True)
        both = [parameter for critic in self.critics for parameter in critic.parameters()]
        self.critic_optimizer = torch.optim.Adam(both, lr=3e-4)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=3e-4)
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], lr=3e-4)

    def act(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Actions and their log-probabilities."""
        mean, log_std = self.actor(observations).chunk(2, dim=-1)
        normal = torch.distributions.Normal(mean, log_std.clamp(-20, 2).exp())
        before = normal.rsample()
        actions = torch.tanh(before)
        log_prob = normal.log_prob(before) - torch.log(1 - actions.pow(2) + 1e-6)
        return actions, log_prob.sum(1)

    def update(self) -> None:
        """One step of each part."""
        data = self.buffer.sample(self.batch_size)
        alpha = self.log_alpha.exp().item()
        with torch.no_grad():
            next_actions, next_log_prob = self.act(data["next_observations"])
            pairs = torch.cat([data["next_observations"], next_actions], 1)
            following = torch.min(*(target(pairs) for target in self.targets)).squeeze(1)
            y = data["rewards"] + data["discounts"] * (following - alpha * next_log_prob)
        pairs = torch.cat([data["observations"], data["actions"]], 1)
        critic_loss = sum(nn.functional.mse_loss(critic(pairs).squeeze(1), y) for critic in self.critics)
        self.critic_optimizer.zero_grad()
        critic_loss.backward()
        self.critic_optimizer.step()

        actions, log_prob = self.act(data["observations"])
        pairs = torch.cat([data["observations"], actions], 1)
        value = torch.min(*(critic(pairs) for critic in self.critics)).squeeze(1)
        actor_loss = (alpha * log_prob - value).mean()
        self.actor_optimizer.zero_grad()
        actor_loss.backward()
        self.actor_optimizer.step()

        alpha_loss = (-self.log_alpha.exp() * (log_prob.detach() - self.actions)).mean()
        self.alpha_optimizer.zero_grad()
        alpha_loss.backward()
        self.alpha_optimizer.step()
        for critic, target in zip(self.critics, self.targets, strict=True):
            for parameter, slow in zip(critic.parameters(), target.parameters(), strict=True):
                slow.data.copy_(0.005 * parameter.data + 0.995 * slow.data)


def learner(algorithm: Any, config: Any, kind: str, actions: spaces.Space, columns: dict[str, np.ndarray]) -> Learner:
    """Ours, with a full buffer."""
    inputs = columns["observations"].shape[1]
    made = Learner(ModelSpec(kind, spaces.Box(-10, 10, (inputs,)), actions), seed=0, device="cpu")
    algorithm.prepare(made, config)
    made.replay.write(Batch(columns))
    return made


def dqn_pair() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """CartPole's sizes and Stable-Baselines3's network: 4 inputs, 64 × 64, 2 actions, minibatches of 64."""
    actions, config = spaces.Discrete(2), DQNConfig(batch_size=64, buffer_size=ROWS)
    columns = transitions(4, actions)
    ours = learner(DQN, config, "q_network", actions, columns)
    step = partial(dqn_file.descend, ours, config, 1e-4, loss_of=dqn_file.dqn_loss, beta=1.0)
    return step, TextbookDQN(columns, (64, 64), 2, 64).update


def sac_pair() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """HalfCheetah's sizes and the authors' network: 17 inputs, 256 × 256, 6 actions, minibatches of 256."""
    actions, config = spaces.Box(-1, 1, (6,)), SACConfig(batch_size=256, buffer_size=ROWS)
    columns = transitions(17, actions)
    ours = learner(SAC, config, "gaussian_actor_q", actions, columns)
    return partial(sac_file.descend, ours, config, 3e-4), TextbookSAC(columns, (256, 256), 256).update


def seconds(step: Callable[[], Any], updates: int) -> float:
    """CPU seconds of one update, over so many of them."""
    started = time.process_time()
    for _ in range(updates):
        step()
    return (time.process_time() - started) / updates


def main() -> None:
    """Run both pairs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="pairs of measurements")
    parser.add_argument("--updates", type=int, default=100, help="updates in each")
    flags = parser.parse_args()
    limit_threads(1)  # as in a learner: also for what numpy computes, whose threads spin where others use the cores
    runtime.init(engine="serial")
    for name, pair in (("DQN", dqn_pair()), ("SAC", sac_pair())):
        times: list[list[float]] = []
        for step in pair:
            seconds(step, flags.updates)  # the first ones are slower
        for index in range(flags.rounds):
            order = (0, 1) if index % 2 == 0 else (1, 0)
            measured = {which: seconds(pair[which], flags.updates) for which in order}
            times.append([measured[0], measured[1]])
        ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(own / other for own, other in times)
        print(f"{name}  shoal {ours * 1e6:6.0f} us   textbook {theirs * 1e6:6.0f} us   ratio of pairs {ratio:.2f}")


if __name__ == "__main__":
    main()
