"""The exchange of a gradient of 100 MB between two learners, against an all-reduce of gloo, in turn.

    python benchmarks/learners/allreduce.py [--megabytes 100] [--rounds 15]

Ours is the fixed tree range by range through the object store, which gives the same bits for any number of learners;
gloo's is a ring over TCP on loopback, whose sum depends on the number. Both begin with a barrier; a round's time is
that of the slower process. Prints medians, and the median of the ratios of neighbouring rounds.
"""

import argparse
import socket
import statistics
import time
from typing import Any

import numpy as np
import torch

from shoal import runtime
from shoal.rl import FlatAdam
from shoal.rl.learn.group_actor import EXCHANGE
from shoal.rl.learn.mailbox import Mailbox
from shoal.rl.learn.shards import ShardedLoss
from shoal.rl.learn.team import Membership, Team
from shoal.runtime import ActorHandle, get, method


class Prepared(ShardedLoss):
    """A loss whose gradient is there already, so that the exchange alone is timed."""

    def gradient(self, shard: int) -> torch.Tensor:
        """The same for every shard."""
        self.told[shard] = {"the loss itself": torch.zeros(())}
        return self.keep(self._batch["x"])


class Learner:
    """Actor class: one of two processes."""

    def __init__(self, rank: int, port: int, size: int) -> None:
        self._rank, self._mailbox = rank, Mailbox()
        torch.set_num_threads(1)
        torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
        parameters = torch.zeros(size)
        self._optimizer = FlatAdam(parameters, torch.zeros(size))
        self._own = torch.full((size,), float(rank + 1))

    def ours(self, attempt: int, members: tuple[ActorHandle, ...]) -> float:
        """Seconds of an exchange."""
        loss = Prepared(self._optimizer, {"x": self._own}, lambda rows: (rows["x"].sum(), {}), 2)
        team = Team(Membership(attempt, members, self._rank), self._mailbox)
        torch.distributed.barrier()
        started = time.perf_counter()
        loss.finish(team.gradient(loss))
        seconds = time.perf_counter() - started
        assert self._optimizer.gradients[0] == self._optimizer.gradients[-1] == 3, "the sum is wrong"
        return seconds

    def gloo(self) -> float:
        """Seconds of an all-reduce."""
        values = self._own.clone()
        torch.distributed.barrier()
        started = time.perf_counter()
        torch.distributed.all_reduce(values)
        seconds = time.perf_counter() - started
        assert values[0] == values[-1] == 3, "the sum is wrong"
        return seconds

    @method(concurrency_group=EXCHANGE)
    def take(self, key: Any) -> Any:
        """What the other one asks for."""
        return self._mailbox.take(key)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with runtime.init(num_cpus=4):
        made = runtime.remote(concurrency_groups={EXCHANGE: 4})(Learner)
        members = tuple(made.remote(rank, port, given.megabytes * 250_000) for rank in range(2))
        ours, gloo = [], []
        for attempt in range(given.rounds + 2):
            ours.append(max(get([member.ours.remote(attempt, members) for member in members])))
            gloo.append(max(get([member.gloo.remote() for member in members])))
    ours, gloo = ours[2:], gloo[2:]  # the first ones make the memory
    ratio = statistics.median(a / b for a, b in zip(ours, gloo, strict=True))
    told = {"ours": statistics.median(ours), "gloo": statistics.median(gloo)}
    print("  ".join(f"{name} {1e3 * seconds:.1f} ms" for name, seconds in told.items()), f" ratio {ratio:.2f}")
    print(f"least: ours {1e3 * np.min(ours):.1f} ms, gloo {1e3 * np.min(gloo):.1f} ms")


if __name__ == "__main__":
    main()
