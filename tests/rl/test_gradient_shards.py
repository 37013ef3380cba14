"""Gradients in shards: the tree in which they are summed, and what they come to."""

import functools

import numpy as np
import pytest
import torch
from gymnasium import spaces

from shoal.algorithms import (
    A2C,
    APPO,
    BC,
    DQN,
    ES,
    IMPALA,
    PPO,
    SAC,
    TD3,
    A2CConfig,
    ApeX,
    APPOConfig,
    DQNConfig,
    IMPALAConfig,
    PPOConfig,
    SACConfig,
    TD3Config,
)
from shoal.algorithms import dqn as dqn_file
from shoal.algorithms import sac as sac_file
from shoal.algorithms import td3 as td3_file
from shoal.algorithms.dqn import dqn_loss
from shoal.rl import Batch, Clock, FlatAdam, Learner, ModelSpec, Rollout, RunSettings
from shoal.rl.learn.reduction_tree import cover, even_parts, total
from shoal.rl.learn.shards import ShardedLoss, differentiate
from shoal.rl.learner_settings import LearnerSettings
from shoal.rl.models.rows import Sequences
from shoal.runtime import InputError


def in_words(shards, known=()):
    return total((0, shards), dict(known), str, lambda left, right: f"({left}+{right})")


def test_the_tree_by_hand():
    assert in_words(1) == "0"
    assert in_words(4) == "((0+1)+(2+3))"
    assert in_words(5) == "(((0+1)+(2+3))+4)"
    assert in_words(7) == "(((0+1)+(2+3))+((4+5)+6))"
    assert in_words(4, {(0, 2): "known", (3, 4): None}.items()) == "(known+2)"  # nothing to add leaves the rest alone
    assert cover((0, 3), (0, 8)) == [(0, 2), (2, 3)]
    assert cover((3, 6), (0, 8)) == [(3, 4), (4, 6)]
    assert cover((4, 8), (0, 8)) == [(4, 8)]
    assert even_parts(8, 3) == [(0, 2), (2, 5), (5, 8)]
    assert even_parts(2, 3) == [(0, 0), (0, 1), (1, 2)]


def test_any_number_of_learners_adds_the_same_bits_whoever_is_missing():
    generator = np.random.default_rng(0)
    for shards in range(1, 18):
        leaves = generator.normal(size=(shards, 3)).astype(np.float32)
        expected = total((0, shards), {}, leaves.__getitem__, np.add)
        for world in range(1, 9):
            parts = [cover(part, (0, shards)) for part in even_parts(shards, world)]
            for missing in (None, *range(world)):
                known = {
                    node: total(node, {}, leaves.__getitem__, np.add)
                    for learner, nodes in enumerate(parts)
                    for node in nodes
                    if learner != missing
                }
                found = total((0, shards), known, leaves.__getitem__, np.add)
                np.testing.assert_array_equal(found, expected, strict=True)


def test_losses_of_shards_by_hand():
    # L = mean (θ x)² over x = 1, 2, 3, 4, 5 with θ = 2; dL/dθ = 2 θ mean x² = 4 · 11; three shards of 1, 2 and 2 rows
    theta = torch.tensor([2.0], requires_grad=True)
    theta.grad = torch.zeros(1)
    optimizer = FlatAdam(theta.detach(), theta.grad)
    batch = {"x": torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]), "nested": {"twice": torch.arange(5) * 2.0}}

    def loss_of(rows):
        errors = theta * rows["x"]
        assert torch.equal(rows["nested"]["twice"], (rows["x"] - 1) * 2)
        loss = errors.square().mean()
        return loss, {"mean": rows["x"].mean(), "errors": errors.detach()}

    sharded = ShardedLoss(optimizer, batch, loss_of, 3)
    shares = [sharded.gradient(shard).item() for shard in range(3)]
    assert shares == pytest.approx([4 * 1 / 5, 4 * (4 + 9) / 5, 4 * (16 + 25) / 5])
    for shards in (1, 3, 5, 9):  # of nine, four are empty
        told = differentiate(optimizer, batch, loss_of, shards)
        assert theta.grad.item() == pytest.approx(44)
        assert told["mean"].item() == pytest.approx(3)
        assert told["errors"].tolist() == [2, 4, 6, 8, 10]
        optimizer.step(learning_rate=0.0)
    assert optimizer.take_sums() == pytest.approx((4 * 44, 4 * 44))  # losses, norms: θ² · 11 and 44, four times


def test_sequences_are_cut_whole():
    # sequences of 2 steps, of which the last has one: 5 rows
    sequences = Sequences(torch.arange(6.0), torch.arange(3.0), torch.zeros(3, 2, dtype=torch.bool), torch.arange(5))
    seen = []

    def loss_of(rows):
        seen.append((rows["rows"].inputs.tolist(), rows["rows"].memory.tolist(), rows["x"].tolist()))
        return rows["x"].mean() * theta.sum(), {}

    theta = torch.ones(1, requires_grad=True)
    theta.grad = torch.zeros(1)
    batch = {"rows": sequences, "x": torch.arange(5.0)}
    differentiate(FlatAdam(theta.detach(), theta.grad), batch, loss_of, 2)
    assert seen == [([0, 1], [0], [0, 1]), ([2, 3, 4, 5], [1, 2], [2, 3, 4])]
    assert theta.grad.item() == 2  # the mean of all rows


TWO = spaces.Box(-1, 1, (2,))
CASES = {
    "ppo": (PPO, PPOConfig(batch_size=8, n_epochs=2), "actor_critic", spaces.Discrete(2)),
    "a2c": (A2C, A2CConfig(normalize_advantage=True), "actor_critic", spaces.Discrete(2)),
    "impala": (IMPALA, IMPALAConfig(), "actor_critic", spaces.Discrete(2)),
    "appo": (APPO, APPOConfig(), "actor_critic", spaces.Discrete(2)),
    "dqn": (DQN, DQNConfig(batch_size=8, prioritized_replay=True), "q_network", spaces.Discrete(2)),
    "sac": (SAC, SACConfig(batch_size=8), "gaussian_actor_q", TWO),
    "td3": (TD3, TD3Config(batch_size=8), "deterministic_actor_q", TWO),
}
DESCEND = {
    "dqn": functools.partial(dqn_file.descend, loss_of=dqn_loss, beta=1.0),
    "sac": sac_file.descend,
    "td3": td3_file.descend,
}


def updated(name, shards, **settings):
    """Flat parameters after two updates on rows that are drawn, and metrics of the last one."""
    algorithm, config, kind, actions = CASES[name]
    spec = ModelSpec(kind, TWO, actions, {"net_arch": [8]})
    learner = Learner(spec, seed=3, device="cpu", settings=LearnerSettings(gradient_shards=shards, **settings))
    algorithm.prepare(learner, config)
    draws, rows = np.random.default_rng(1), 24
    seen = draws.normal(size=(rows, 2)).astype(np.float32)
    acted = draws.integers(2, size=rows) if isinstance(actions, spaces.Discrete) else seen[::-1].copy()
    numbers = {name: draws.normal(size=rows).astype(np.float32) for name in ("rewards", "log_probs", "values")}
    if name in DESCEND:
        discounts = np.full(rows, 0.9, np.float32)
        learner.replay.write(
            Batch({"observations": seen, "next_observations": seen[::-1], "actions": acted, "discounts": discounts,
                   "rewards": numbers["rewards"]})
        )  # fmt: skip
        return learner, [DESCEND[name](learner, config, 0.01) for _ in range(2)][-1]
    flags = {name: np.zeros((12, 2), np.bool_) for name in ("terminations", "truncations")}
    columns = {"observations": seen, "actions": acted, **numbers, "next_values": numbers["values"]}
    columns |= {"versions": np.zeros(rows, np.int64)}
    steps = Batch({name: column.reshape(12, 2, *column.shape[1:]) for name, column in columns.items()} | flags, 2)
    finals = Batch({"rows": np.array([22, 23]), "observations": seen[:2]})
    return learner, [algorithm.update(learner, Rollout(steps, finals, 0), config, Clock(0, 100)) for _ in range(2)][-1]


@pytest.mark.parametrize("name", CASES)
def test_shards_change_rounding_alone(name):
    whole, metrics = updated(name, 1)
    sharded, in_shards = updated(name, 3)
    gradients = [[each.gradients for each in learner.optimizers.values()] for learner in (whole, sharded)]
    assert not all(map(torch.equal, *gradients))
    torch.testing.assert_close(whole.model.flat, sharded.model.flat, rtol=1e-3, atol=1e-5)
    assert {key: float(value) for key, value in in_shards.items()} == pytest.approx(
        {key: float(value) for key, value in metrics.items()}, rel=1e-3, abs=1e-5
    )
    if name == "dqn":  # each row's error, in the order of the rows
        np.testing.assert_allclose(
            whole.replay.state()["priorities"], sharded.replay.state()["priorities"], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("name", ["impala", "appo"])
def test_v_trace_is_that_of_whole_rollouts_where_losses_are_in_half_precision(name):
    (_, whole), (_, half) = updated(name, 1), updated(name, 1, precision="bfloat16")
    assert half.keys() == whole.keys()
    assert {key: float(value) for key, value in half.items()} == pytest.approx(
        {key: float(value) for key, value in whole.items()}, rel=0.03, abs=0.01
    )
    assert half["train/ratio_mean"] != whole["train/ratio_mean"]


def test_algorithms_that_do_not_shard_refuse_it():
    for kind, why in ((ApeX, "one learner draws"), (ES, "no gradient")):
        with pytest.raises(InputError, match=f"gradient_shards is 2, but must be 1 with {kind.name}: {why}"):
            kind("CartPole-v1", gradient_shards=2)
    with pytest.raises(InputError, match="gradient_shards is 0, but must be a whole number of at least 1"):
        RunSettings(gradient_shards=0)
    assert BC.shards_gradients
