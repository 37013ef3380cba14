"""PPO with a value head over tokens: advantages by hand, the same weights, and a task that it learns."""

import math

import pytest
import torch

from shoal import TokenPPO, evaluate, runtime
from shoal.algorithms import PPO
from shoal.rl.language import losses

SMALL = {
    "n_envs": 12,
    "group_size": 4,
    "batch_size": 6,
    "n_epochs": 2,
    "max_new_tokens": 3,
    "gradient_shards": 2,
    "policy_kwargs": {"tokenizer": "characters", "context": 24, "width": 16, "heads": 2, "layers": 1},
}
MASK = torch.tensor([[False, True, True, False, True, False]])
VALUES = torch.tensor([[9.0, 0.5, 0.25, 9.0, -1.0, 9.0]], dtype=torch.float64)
REWARDS = torch.tensor([[0.0, 0.0, 0.1, 0.0, 2.0, 0.0]], dtype=torch.float64)


def test_advantages_of_a_chain_of_three_tokens_by_hand():
    found, returns = losses.token_advantages(REWARDS, VALUES, MASK, 1.0, 1.0)
    assert found[0].tolist() == pytest.approx([0, 2.1 - 0.5, 2.1 - 0.25, 0, 2 + 1, 0])  # λ = 1: G − V
    assert returns[0].tolist() == pytest.approx([0, 2.1, 2.1, 0, 2, 0])
    last = 2 - (-1.0)
    middle = 0.1 + 0.9 * -1.0 - 0.25 + 0.9 * 0.5 * last
    first = 0.9 * 0.25 - 0.5 + 0.9 * 0.5 * middle
    found, _ = losses.token_advantages(REWARDS, VALUES, MASK, 0.9, 0.5)
    assert found[0].tolist() == pytest.approx([0, first, middle, 0, last, 0])
    found, _ = losses.token_advantages(REWARDS, VALUES, MASK, 1.0, 0.0)  # λ = 0: one step
    assert found[0].tolist() == pytest.approx([0, 0.25 - 0.5, 0.1 - 1 - 0.25, 0, 3, 0])


def test_filling_changes_no_advantage_and_what_is_masked_has_no_influence():
    wild = torch.where(MASK, VALUES, torch.nan)
    assert torch.equal(
        torch.nan_to_num(losses.token_advantages(REWARDS, wild, MASK, 1.0, 0.9)[0], nan=7.0),
        losses.token_advantages(REWARDS, VALUES, MASK, 1.0, 0.9)[0],
    )


def test_entropy_is_that_of_what_each_token_was_drawn_from():
    logits = torch.zeros(1, 3, 4)
    logits[0, 1] = torch.tensor([0.0, math.log(3), -1e9, -1e9])
    found = losses.entropies_of(logits)
    assert found[0].tolist() == pytest.approx([0, math.log(4), math.log(4) - 0.75 * math.log(3)])


def sha_of(env="recall-2", iterations=4, load=None, save=None, **settings):
    with TokenPPO.load(load) if load else TokenPPO(env, **{**SMALL, **settings}) as ppo:
        found = ppo.train(12 * iterations)
        if save:
            ppo.save(save)
    return found.weights_sha256


def test_weights_are_the_same_after_a_resume(tmp_path):
    runtime.init(engine="serial")
    whole = sha_of(kl_coef=0.05, clip_range_vf=0.2, ent_coef=0.01)
    sha_of(iterations=2, save=tmp_path, kl_coef=0.05, clip_range_vf=0.2, ent_coef=0.01)
    assert sha_of(iterations=2, load=tmp_path) == whole
    assert sha_of() != whole


def test_the_value_head_begins_at_zero_and_learns_what_is_expected():
    runtime.init(engine="serial")
    with TokenPPO("copy-2", **SMALL | {"n_envs": 64, "group_size": 64, "batch_size": 64}, vf_coef=1.0) as ppo:
        ppo.train(64)
        first = ppo.policy.model
        tokens = torch.randint(4, 12, (5, 8))
        with torch.no_grad():
            values = first.evaluate(tokens)[1]
        assert values.abs().max() < 0.1
        assert values.abs().max() > 0
        with pytest.raises(runtime.InputError, match="batch_size is 65"):
            TokenPPO("copy-2", **SMALL | {"batch_size": 65})
    with pytest.raises(runtime.InputError, match=r"with it work: .*token_ppo"):
        PPO("copy-4")


@pytest.mark.slow
def test_any_number_of_generators_and_learners_give_the_same_weights():
    found = set()
    for engine, workers, learners in (("serial", 1, 1), ("native", 2, 1), ("native", 3, 2)):
        runtime.init(engine=engine)
        found.add(sha_of(workers=workers, learners=learners))
        runtime.shutdown()
    assert len(found) == 1


@pytest.mark.slow
def test_it_learns_to_copy_from_random_weights():
    runtime.init(engine="serial")
    settings = {"n_envs": 256, "group_size": 256, "batch_size": 128, "learning_rate": "lin_0.002", "max_new_tokens": 3}
    kwargs = {"tokenizer": "characters", "context": 12}
    with TokenPPO("copy-2", **settings, policy_kwargs=kwargs, seed=100) as ppo:
        ppo.train(256 * 40)
        assert evaluate(ppo.policy, "copy-2", episodes=256).episode_return_mean > 0.8
