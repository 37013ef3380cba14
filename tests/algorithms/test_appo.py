"""APPO's numbers: the clipped ratio to the weights that acted, advantages of the target network, batches used again."""

import math

import numpy as np
import pytest
import torch
from by_hand import rollout_worker
from learning_envs import Walk

from shoal import APPO, APPOConfig
from shoal.algorithms.appo import appo_loss
from shoal.envs import resolve
from shoal.rl import Clock, Learner, Limits, RunSettings
from shoal.rl.collect.worker import GroupProgress


def losses(ratios, advantages):
    """Loss, metrics and gradient by log-probability where π/μ are `ratios`; values 1, targets 3, no entropy."""
    log_probs = torch.tensor([math.log(ratio / 4) for ratio in ratios], requires_grad=True)
    values, entropies = torch.ones(len(ratios), requires_grad=True), torch.zeros(len(ratios))
    batch = {
        "log_probs": torch.full((len(ratios),), math.log(1 / 4)),
        "advantages": torch.tensor(advantages),
        "targets": torch.full((len(ratios),), 3.0),
    }
    config = APPOConfig()
    loss, metrics = appo_loss((values, log_probs, entropies), batch, config, 0.2)
    assert metrics["train/ratio_mean"].item() == pytest.approx(sum(ratios) / len(ratios))
    loss.backward()
    return loss.item(), metrics, log_probs.grad.tolist(), values.grad.tolist()


def test_the_surrogate_is_clipped_around_the_weights_that_acted():
    # A = 2: min(1.1 · 2, 1.1 · 2), min(1.5 · 2, 1.2 · 2); A = −1: min(−½, −0.8), min(−1.5, −1.2)
    loss, metrics, by_log_prob, by_value = losses([1.1, 1.5, 0.5, 1.5], [2.0, 2.0, -1.0, -1.0])
    assert metrics["train/policy_gradient_loss"].item() == pytest.approx(-(2.2 + 2.4 - 0.8 - 1.5) / 4)
    assert metrics["train/clip_fraction"].item() == 0.75
    assert loss == pytest.approx(-(2.2 + 2.4 - 0.8 - 1.5) / 4 + 0.5 * 4)
    assert by_log_prob == pytest.approx([-2.2 / 4, 0, 0, 1.5 / 4])
    assert by_value == [0.5 * 2 * -2 / 4] * 4


def test_advantages_are_normalized_over_the_batch_if_that_is_asked_for():
    steps, judged = [], []
    for on in (False, True):
        rollout, learner, config = collected(normalize_advantage=on, learning_rate=0.01, max_grad_norm=None)
        # What the step is made of is a mean over rows: by the whole batch's deviation or not, other numbers.
        APPO.update(learner, rollout, config, Clock(0, 100))
        steps.append(learner.model.get_weights())
        judged.append(learner.advantages)
    np.testing.assert_array_equal(*judged)
    assert np.abs(steps[0] - steps[1]).max() > 1e-4


def collected(**settings):
    config = APPOConfig(n_steps=7, **settings)
    worker, model_spec = rollout_worker(
        APPO, config, resolve(lambda: Walk(limit=4)), RunSettings(n_envs=3, group_size=3)
    )
    learner = Learner(model_spec, seed=0, device="cpu")
    APPO.prepare(learner, config)
    rollout, _, _ = worker.collect(0, GroupProgress(), learner.model.get_weights(), 0, Clock(0, 100))
    worker.close()
    return rollout, learner, config


def test_the_target_network_judges_and_changes_every_so_many_updates():
    rollout, learner, config = collected(target_update_interval=3, learning_rate=0.01)
    first, judged = learner.target.flat.clone(), []
    for update in range(1, 7):
        before = learner.target.flat.clone()
        APPO.update(learner, rollout, config, Clock(0, 100))
        judged.append(learner.advantages)
        is_copied = update % 3 == 0
        assert torch.equal(learner.target.flat, learner.model.flat if is_copied else before)
    for same, other in ((0, 1), (1, 2), (3, 4)):
        np.testing.assert_array_equal(judged[same], judged[other])  # the weights changed, what judges did not
    assert not np.array_equal(judged[2], judged[3])
    assert not torch.equal(first, learner.target.flat)


def test_a_batch_may_be_used_so_often_and_so_many_are_kept():
    config = APPOConfig(rollouts_per_update=3, replay_uses=5, replay_batches=2, max_lag=7, queue_full="wait")
    assert config.limits(RunSettings()) == Limits(per_update=3, queue=6, max_lag=7, waits=True, uses=5, batches=2)
