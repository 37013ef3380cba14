"""Memories: unrolled sequences against single steps, and what goes into them."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from shoal.rl import ModelSpec, Policy, build_model
from shoal.rl.data.batch import Batch
from shoal.rl.data.rollout import Rollout
from shoal.rl.data.sequences import episode_starts, in_sequences, steps_of_sequences

MEMORIES = {"lstm": {"units": 8}, "gru": {"units": 8}, "transformer": {"units": 8, "heads": 2, "window": 3}}


def make(memory, **more):
    kwargs = {"memory": memory, "memory_kwargs": MEMORIES[memory], "net_arch": [8], "sequence_length": 4, **more}
    return build_model(ModelSpec("actor_critic", spaces.Box(-1, 1, (2,)), spaces.Discrete(2), kwargs), seed=3)


@pytest.mark.parametrize("memory", MEMORIES)
def test_unrolled_outputs_are_those_of_single_steps(memory):
    model, generator = make(memory), torch.Generator().manual_seed(0)
    features = torch.randn(3, 7, 2, generator=generator)
    starts = torch.rand(3, 7, generator=generator) < 0.3
    state = model.initial_memory(3)
    for _ in range(2):  # something is remembered already
        _, state = model.memory.step(torch.randn(3, 2, generator=generator), state)
    unrolled = model.memory.unroll(features, state, starts)
    for t in range(7):
        state = model.forget(state, starts[:, t].numpy())
        output, state = model.memory.step(features[:, t], state)
        torch.testing.assert_close(unrolled[:, t], output, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("memory", MEMORIES)
def test_what_came_before_matters_within_an_episode_only(memory):
    model = make(memory)
    features = torch.zeros(2, 2, 2)
    features[0, 0] = 1.0
    nothing = model.initial_memory(2)
    same = model.memory.unroll(features, nothing, torch.tensor([[False, True]] * 2))
    assert torch.equal(same[0, 1], same[1, 1])
    other = model.memory.unroll(features, nothing, torch.tensor([[False, False]] * 2))
    assert not torch.allclose(other[0, 1], other[1, 1])


def test_a_transformer_forgets_what_is_older_than_its_window():
    model = make("transformer")
    features = torch.zeros(1, 6, 2)
    features[0, 0] = 1.0
    seen = model.memory.unroll(features, model.initial_memory(1), torch.zeros(1, 6, dtype=torch.bool))
    torch.testing.assert_close(seen[0, 3], seen[0, 5])
    assert not torch.allclose(seen[0, 2], seen[0, 5])


def test_sequences_by_hand():
    steps = np.arange(10).reshape(5, 2)  # 5 steps of 2 environments
    assert in_sequences(steps, 3).reshape(4, 3).tolist() == [[0, 2, 4], [1, 3, 5], [6, 8, 0], [7, 9, 0]]
    assert steps_of_sequences(5, 2, length=3).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 9, 10]
    ended = np.zeros((5, 2), np.bool_)
    ended[0, 1] = ended[2, 0] = ended[3, 0] = True
    rollout = Rollout(Batch({"terminations": ended, "truncations": np.zeros_like(ended)}, 2), Batch({}), 0)
    # The episode that ends with step 2 is over before step 3, where a sequence begins anyway.
    assert episode_starts(rollout, 3).tolist() == [
        [False, False, False], [False, True, False], [False, True, False], [False, False, False],
    ]  # fmt: skip


def test_minibatches_are_whole_sequences_without_padding():
    model = make("gru")
    from shoal.rl.models.rows import Sequences

    valid = torch.tensor([0, 1, 2, 3, 4, 5, 8, 9, 10, 11])  # the second of three sequences of 4 has 2 steps
    inputs, starts = torch.arange(24.0).reshape(12, 2), torch.zeros(3, 4, dtype=torch.bool)
    memory = {"output": torch.randn(3, 8, generator=torch.Generator().manual_seed(1))}
    whole = Sequences(inputs, memory, starts, valid)
    part, rows = whole.take(torch.tensor([2, 1]))
    assert rows.tolist() == [6, 7, 8, 9, 4, 5]
    all_outputs, _ = model.features(whole)
    outputs, _ = model.features(part)
    torch.testing.assert_close(outputs, all_outputs[rows])


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_policy_acts_from_what_it_remembers(memory, tmp_path):
    kwargs = {"memory": memory, "memory_kwargs": MEMORIES[memory]}
    Policy(spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (2,)), policy_kwargs=kwargs, seed=1).save(tmp_path)
    policy = Policy.load(tmp_path)
    observations = np.random.default_rng(0).uniform(-1, 1, (6, 4, 2)).astype(np.float32)
    remembered, begins, actions = None, None, []
    for t, seen in enumerate(observations):
        chosen, remembered = policy.act_with_memory(seen, remembered, begins, deterministic=True)
        actions.append(chosen)
        begins = [False, t == 2, False, False]
    alone, again = [], None
    for t in range(6):  # one episode alone, given as one observation
        chosen, again = policy.act_with_memory(observations[t, 1], again, t == 3, deterministic=True)
        alone.append(chosen)
    np.testing.assert_allclose(np.stack(actions)[:, 1], alone, atol=1e-5)
    kept, _ = policy.act_with_memory(observations[5], remembered, deterministic=True)
    forgotten, _ = policy.act_with_memory(observations[5], deterministic=True)
    assert not np.allclose(kept, forgotten)


def test_a_policy_says_how_it_is_asked():
    policy = Policy(spaces.Box(-1, 1, (2,)), spaces.Discrete(2), policy_kwargs={"memory": "gru"})
    with pytest.raises(ValueError, match=r"remembers earlier observations of an episode: use act_with_memory"):
        policy.act(np.zeros(2))
    _, memory = policy.act_with_memory(np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"'output' of shape \(2, 64\); 3 observations need \(3, 64\)"):
        policy.act_with_memory(np.zeros((3, 2)), memory)
    with pytest.raises(ValueError, match=r"episode_start has shape \(3,\), but there are 2 observations"):
        policy.act_with_memory(np.zeros((2, 2)), memory, [True, False, True])
    plain = Policy(spaces.Box(-1, 1, (2,)), spaces.Discrete(2))
    action, memory = plain.act_with_memory(np.zeros(2), deterministic=True)
    assert memory is None
    assert action == plain.act(np.zeros(2), deterministic=True)
