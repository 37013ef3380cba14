"""IMPALA's numbers: V-trace between truncations, what carries gradients, and what acted."""

import numpy as np
import pytest
import torch
from by_hand import rollout_worker
from gymnasium import spaces
from learning_envs import Drawn, Masked, Walk

from shoal import A2C, IMPALA, A2CConfig, IMPALAConfig
from shoal.algorithms.a2c import actor_critic_loss
from shoal.envs import resolve
from shoal.rl import Batch, Clock, Learner, Rollout, RunSettings, acted_batch, corrected
from shoal.rl.collect.worker import GroupProgress

FIRST = GroupProgress()


def column(*values):
    return np.array(values, np.float32)[:, np.newaxis]


class Critic:
    """Whose values are the observations themselves."""

    memory = None

    def encode(self, observations):
        return torch.from_numpy(observations.copy())

    def recall(self, rows, memory):
        return rows, memory

    def values(self, rows):
        return rows


class Parts:
    """A learner that only carries tensors."""

    model = Critic()

    def rewards(self, raw):
        return raw

    def tensors(self, arrays):
        return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def rollout_of(*, values, rewards, terminations=(), truncations=(), finals, resets=None):
    """A rollout of one environment whose observations are the values of its states; `finals` by row."""
    steps = len(values)
    flags = {
        name: np.isin(np.arange(steps), ends)[:, np.newaxis]
        for name, ends in (("terminations", terminations), ("truncations", truncations), ("resets", resets or ()))
    }
    if resets is None:
        del flags["resets"]
    columns = {
        "observations": column(*values), "actions": np.zeros((steps, 1), np.int64), "rewards": column(*rewards),
        "log_probs": column(*[0] * steps), **flags,
    }  # fmt: skip
    after = Batch({"rows": np.array(list(finals)), "observations": np.array(list(finals.values()), np.float32)})
    return Rollout(Batch(columns, 2), after, 0)


def v_trace(rollout, log_rhos=0.0, gamma=0.5, **changes):
    learner = Parts()
    batch = acted_batch(learner, rollout)
    values = batch["rows"].requires_grad_()
    log_probs = torch.full_like(values, log_rhos)
    options = {"gamma": gamma, "rho_bar": 1.0, "c_bar": 1.0, "lambda_": 1.0} | changes
    made = corrected(learner, rollout, batch, values=values, log_probs=log_probs, critic=Critic(), **options)
    return [made["targets"].tolist(), made["advantages"].tolist()]


def test_on_policy_targets_are_returns_and_a_truncation_has_the_value_of_its_last_observation():
    # γ = ½; steps 0, 1 | 2: truncated after 1, where the value is 6; the next episode begins with value 99
    rollout = rollout_of(values=[1, 2, 99], rewards=[1, 2, 3], truncations=[1], finals={1: 6, 2: 4})
    # vs_1 = 2 + 3 = 5, vs_0 = 1 + 2.5 = 3.5, vs_2 = 3 + 2 = 5; A_0 = 1 + 2.5 − 1, A_1 = 2 + 3 − 2, A_2 = 3 + 2 − 99
    assert v_trace(rollout) == [[3.5, 5, 5], [2.5, 3, -94]]


def test_after_a_termination_nothing_follows_and_both_at_once_is_a_termination():
    rollout = rollout_of(values=[1, 2, 99], rewards=[1, 2, 3], terminations=[1], finals={1: 6, 2: 4})
    assert v_trace(rollout)[0] == [2, 2, 5]


def test_the_last_step_counts():
    before, after = (v_trace(rollout_of(values=[0, 0, 0], rewards=[0, 0, reward], finals={2: 0})) for reward in (0, 8))
    assert before == [[0, 0, 0], [0, 0, 0]]
    assert after == [[2, 4, 8], [2, 4, 8]]


def test_steps_that_reset_an_environment_are_no_rows_and_change_no_other():
    rollout = rollout_of(values=[1, 2, 77, 5], rewards=[1, 2, 55, 3], truncations=[1], resets=[2], finals={1: 6, 3: 4})
    assert v_trace(rollout) == [[3.5, 5, 5], [2.5, 3, 0]]


def test_weights_of_errors_and_of_traces_are_cut_apart():
    # π/μ = 2 everywhere; ρ̄ = 1.5, c̄ = ½, γ = ½; δ_1 = 1.5 · (1 + 1.5 − 2) = ¾, δ_0 = 1.5 · (1 + 1 − 1) = 1.5
    rollout = rollout_of(values=[1, 2], rewards=[1, 1], finals={1: 3})
    targets, advantages = v_trace(rollout, float(np.log(2)), rho_bar=1.5, c_bar=0.5)
    np.testing.assert_allclose(targets, [1 + 1.5 + 0.5 * 0.5 * 0.75, 2.75], rtol=1e-6)
    np.testing.assert_allclose(advantages, [1.5 * (1 + 0.5 * 2.75 - 1), 0.75], rtol=1e-6)


def test_gradients_are_those_of_log_probabilities_and_values_alone():
    values, log_probs = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([-1.0, -2.0], requires_grad=True)
    targets, advantages, entropies = torch.tensor([3.0, 2.0]), torch.tensor([4.0, -2.0]), torch.tensor([1.0, 3.0])
    loss, metrics = actor_critic_loss((values, log_probs, entropies), targets, advantages, vf_coef=0.5, ent_coef=0.1)
    # policy (4 · 1 − 2 · 2) / 2 = 0; values (2² + 0) / 2 = 2, weighted ½; entropy −2, weighted 0.1
    assert loss.item() == pytest.approx(0 + 1 - 0.2)
    assert metrics["train/value_loss"].item() == 2
    loss.backward()
    assert log_probs.grad.tolist() == [-2, 1]
    assert values.grad.tolist() == [-1, 0]
    made = corrected(
        Parts(),
        rollout_of(values=[1, 2], rewards=[1, 1], finals={1: 3}),
        {"index": torch.arange(2), "log_probs": torch.zeros(2)},
        values=values, log_probs=log_probs, critic=Critic(), gamma=0.9, rho_bar=1.0, c_bar=1.0, lambda_=1.0,
    )  # fmt: skip
    assert not any(tensor.requires_grad for tensor in made.values())


def collected(env, **policy_kwargs):
    """A rollout by IMPALA's weights as they begin, and a learner that has just these."""
    config = IMPALAConfig(n_steps=7, optimizer="rmsprop")
    settings = RunSettings(n_envs=3, group_size=3)
    worker, model_spec = rollout_worker(IMPALA, config, resolve(env), settings, **policy_kwargs)
    learner = Learner(model_spec, seed=0, device="cpu")
    IMPALA.prepare(learner, config)
    rollout, _, _ = worker.collect(0, FIRST, learner.model.get_weights(), 4, Clock(0, 100))
    worker.close()
    return rollout, learner, config


ACTIONS = [spaces.Discrete(3), spaces.MultiDiscrete([2, 3]), spaces.Box(-1, 1, (2,), np.float32)]


@pytest.mark.parametrize("action_space", ACTIONS, ids=["Discrete", "MultiDiscrete", "Box"])
def test_what_acted_is_recorded_and_is_one_number_for_all_parts_of_an_action(action_space):
    rollout, learner, _ = collected(lambda: Drawn(spaces.Box(-1, 1, (2,), np.float32), action_space))
    batch = acted_batch(learner, rollout)
    assert batch["log_probs"].shape == (21,)
    _, log_probs, _ = learner.model.evaluate(batch["rows"], batch["actions"])
    torch.testing.assert_close(log_probs.detach(), batch["log_probs"])
    assert (rollout.steps["versions"] == 4).all()


def test_probabilities_of_acting_are_those_under_the_mask():
    rollout, _, _ = collected(Masked)  # of 12 actions 2 are allowed, about as likely as each other at first
    np.testing.assert_allclose(rollout.steps["log_probs"], np.log(0.5), atol=0.05)


def test_with_no_lag_an_update_is_that_of_a2c():
    rollout, learner, config = collected(lambda: Walk(limit=4))
    weights = learner.model.get_weights()
    learner.iteration = 4
    metrics = IMPALA.update(learner, rollout, config, Clock(0, 100))
    assert {name: metrics[name] for name in ("lag/0", "lag/1", "train/lag_max")} == {
        "lag/0": 1,
        "lag/1": 0,
        "train/lag_max": 0,
    }
    assert metrics["train/ratio_mean"] == pytest.approx(1)
    rates = {"learning_rate": config.learning_rate, "ent_coef": config.ent_coef, "max_grad_norm": config.max_grad_norm}
    same = A2CConfig(n_steps=7, **rates)
    other = Learner(learner._spec, seed=0, device="cpu")
    A2C.prepare(other, same)
    steps = rollout.steps.plus(**values_of(other, rollout))
    A2C.update(other, Rollout(steps, rollout.finals, 4), same, Clock(0, 100))
    np.testing.assert_allclose(other.model.get_weights(), learner.model.get_weights(), rtol=1e-5, atol=1e-7)
    assert np.abs(other.model.get_weights() - weights).max() > 1e-3


def values_of(learner, rollout):
    """`values` and `next_values` of a rollout, under these weights."""
    with torch.no_grad():
        before, after = (
            learner.model.values(learner.model.encode(observations.reshape(-1, 2))).numpy().reshape(rollout.shape)
            for observations in (rollout.steps["observations"], rollout.next_observations())
        )
    return {"values": before, "next_values": np.where(rollout.steps["terminations"], np.float32(0), after)}


def test_padding_of_sequences_enters_nothing():
    memory = {"memory": "gru", "memory_kwargs": {"units": 4}, "sequence_length": 3}  # 7 steps: the third is padded
    rollout, learner, _ = collected(lambda: Walk(limit=5), **memory)
    batch = acted_batch(learner, rollout)
    assert sorted(batch["index"].tolist()) == list(range(21))
    values, log_probs, _ = learner.model.evaluate(batch["rows"], batch["actions"])
    torch.testing.assert_close(log_probs.detach(), batch["log_probs"])
    options = {"gamma": 0.9, "rho_bar": 1.0, "c_bar": 1.0, "lambda_": 1.0}
    made = corrected(learner, rollout, batch, values=values, log_probs=log_probs, critic=learner.model, **options)
    by_step = np.empty(21, np.float32)
    by_step[batch["index"]] = made["targets"]
    after = rollout.steps["rewards"][:-1] + np.where(
        rollout.steps["terminations"][:-1], 0, 0.9 * by_step.reshape(7, 3)[1:]
    )
    within = ~rollout.steps["truncations"][:-1]
    np.testing.assert_allclose(by_step.reshape(7, 3)[:-1][within], after[within], rtol=1e-4)
