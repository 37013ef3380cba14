import os
import signal
from collections import deque

import numpy as np
import pytest
from gymnasium import spaces

from shoal import runtime
from shoal.algorithms import DQN, SAC
from shoal.rl import Batch, Column, ModelSpec, ReplayBuffer, RunSettings
from shoal.rl.data.columns import replay_columns
from shoal.rl.data.ring import Ring
from shoal.rl.data.tree import leaves, tree_map
from shoal.rl.declaration import Learning
from shoal.rl.learn.actor import LearnerActor
from shoal.runtime import InputError, state

STORE = 32 << 20
ROWS = 20_000
"""Of 1,000 bytes and more each: one buffer of so many fits into the store, two do not."""
SPEC = ModelSpec("q_network", spaces.Box(-1, 1, (125,)), spaces.Discrete(2), {"net_arch": [4]})

ODD = {
    "one": Column((), np.bool_),
    "tree": {"a": Column((3,), np.uint8), "b": (Column((), np.int64), Column((2, 1)))},
    "record": Column((2,), np.dtype([("x", np.int16), ("y", np.float64, (2,))])),
}


def rows(first, count):
    numbers = np.arange(first, first + count)

    def filled(column):
        if column.dtype == np.float32 or np.dtype(column.dtype).names is None:
            return (np.ones((count, *column.shape)).T * numbers).T.astype(column.dtype)
        record = np.zeros((count, *column.shape), column.dtype)
        record["x"], record["y"] = numbers[:, None], numbers[:, None, None] + np.array([0.25, 0.5])
        return record

    return Batch({name: tree_map(filled, tree) for name, tree in ODD.items()})


def test_rows_of_any_columns_come_back_as_they_were():
    runtime.init(engine="serial")
    ring, kept, number = Ring(ODD, 7), deque(maxlen=7), 0
    for count in (3, 1, 0, 7, 5, 2, 6):
        ring.write(number, rows(number, count))
        kept.extend(range(number, number + count))
        number += count
        slots = np.random.default_rng(number).permutation(np.array(kept)) % 7
        for found, first in ((ring.copy(kept[0], len(kept)), None), (ring.take(slots), slots)):
            wanted = Batch.end_to_end([rows(kept[0], len(kept))])
            if first is not None:
                order = [next(at for at, old in enumerate(kept) if old % 7 == slot) for slot in slots]
                wanted = wanted.take(np.array(order))
            for (path, leaf), (_, other) in zip(leaves(dict(found)), leaves(dict(wanted)), strict=True):
                assert leaf.dtype == other.dtype, path
                assert leaf.flags.c_contiguous, path
                assert leaf.tobytes() == other.tobytes(), path


def fill(buffer):
    many = Batch.allocate({"observations": Column((125,)), "next_observations": Column((125,))}, ROWS, shared=False)
    buffer.write(many.plus(**{name: np.zeros(ROWS) for name in ("rewards", "discounts", "actions")}))
    return buffer.nbytes


class Keeps(Learning):
    """Has a replay buffer, and does not learn."""

    @staticmethod
    def prepare(learner, config):
        learner.adam()
        learner.add_replay(config, gamma=0.9)


class Holder:
    """An actor with a replay buffer."""

    def __init__(self):
        self.buffer = ReplayBuffer(replay_columns(SPEC.observation_space, SPEC.action_space), ROWS, gamma=0.9)

    def filled(self):
        return os.getpid(), fill(self.buffer)


@pytest.fixture
def small_store(tmp_path):
    runtime.shutdown()
    runtime.init(engine="native", num_cpus=2, object_store_memory=STORE, object_spilling_directory=str(tmp_path))
    yield
    runtime.shutdown()


def test_a_replay_buffer_is_counted_in_the_store_and_given_back_when_its_process_is_killed(small_store):
    holder = runtime.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Holder).remote()
    pid, size = runtime.get(holder.filled.remote())
    [row] = [worker for worker in state.status().workers if worker.pid == pid]
    assert size <= row.shared_memory < STORE
    assert size <= row.viewed_memory < STORE  # which `shoal memory` shows
    os.kill(pid, signal.SIGKILL)
    assert runtime.get(holder.filled.remote()) != (pid, size)
    assert state.status().shared_memory < STORE


def test_a_learner_that_goes_back_has_its_first_buffer_given_back(small_store):
    learner = LearnerActor(Keeps, ROWS, SPEC, RunSettings(n_envs=1, device="cpu"))
    fill(learner.replay)
    learner.go_back(0, None, [])
    assert learner.replay.size == 0
    assert fill(learner.replay) < state.status().shared_memory < STORE


def test_one_that_the_store_has_no_room_for_is_refused_with_the_arithmetic(small_store):
    wanted = (
        r"buffer_size is 600,000: at 48 bytes a transition the replay buffer takes 28\.8 MB of the object store, "
        r"and may take 80% of the 33\.6 MB that it has on this node. "
        r"At most 559,240 fit.* SHOAL_OBJECT_STORE_MEMORY=36000001"
    )
    with pytest.raises(InputError, match=wanted):
        DQN("CartPole-v1", buffer_size=600_000)
    with pytest.raises(InputError, match=r"the replay buffers of 2 learners take .*At most 279,620 fit"):
        DQN("CartPole-v1", buffer_size=300_000, gradient_shards=2, learners=2)
    DQN("CartPole-v1", buffer_size=300_000).close()
    with pytest.raises(InputError, match="At most 745,654 fit"):
        SAC("Pendulum-v1", buffer_size=800_000)


def test_the_environment_tells_how_large_the_store_is(monkeypatch):
    runtime.shutdown()
    monkeypatch.setenv("SHOAL_OBJECT_STORE_MEMORY", "50000000")
    runtime.init(engine="native", num_cpus=1)
    assert runtime.object_store_memory() == 50_000_000
    runtime.shutdown()
    monkeypatch.setenv("SHOAL_OBJECT_STORE_MEMORY", "50 MB")
    with pytest.raises(InputError, match="SHOAL_OBJECT_STORE_MEMORY is '50 MB': want a number of bytes"):
        runtime.init(engine="native", num_cpus=1)
