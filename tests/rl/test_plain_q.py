"""The gradients of DQN's and SAC's losses that are written out in numpy are those that torch finds, and numpy's choices
are torch's."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete

from shoal.algorithms.dqn import DQNConfig, dqn_loss
from shoal.algorithms.sac import actor_loss, critic_loss
from shoal.rl import FlatAdam, ModelSpec, build_model, plain_td_loss, soft_actor_loss, soft_critic_loss
from shoal.rl.learn.plain_q import arrays_of
from shoal.rl.learn.shards import differentiate

VECTOR = Box(-np.inf, np.inf, (5,), np.float32)
ACTIONS = Box(-2, 2, (2,), np.float32)
ROWS = 48


def made(kind, actions, seed, **kwargs):
    """A model with larger outputs than at its beginning, so that errors are beyond 1 and log σ beyond its limits."""
    model = build_model(ModelSpec(kind, VECTOR, actions, kwargs), seed=seed)
    generator = np.random.default_rng(seed)
    model.set_parameters(model.get_parameters() + generator.normal(0, 0.3, len(model.flat)).astype(np.float32))
    return model


def drawn(actions):
    generator = np.random.default_rng(4)

    def normal(*shape):
        return torch.tensor(generator.standard_normal(shape), dtype=torch.float32)

    discrete = isinstance(actions, Discrete)
    return {
        "observations": normal(ROWS, 5),
        "next_observations": normal(ROWS, 5),
        "actions": torch.tensor(generator.integers(0, 3, ROWS)) if discrete else normal(ROWS, 2).tanh(),
        "rewards": 3 * normal(ROWS),
        "discounts": torch.tensor(generator.choice([0, 0.9], ROWS), dtype=torch.float32),
        "weights": normal(ROWS).abs(),
        "noise": normal(ROWS, 2),
        "next_noise": normal(ROWS, 2),
    }


def gradient_of(loss_of, model, minibatch, shards, part=None):
    where = slice(None) if part is None else model.part(part)
    leaves = [value for name, value in model.named_parameters() if part is None or model.belongs(name, part)]
    optimizer = FlatAdam(model.flat[where], model.flat_gradients[where], leaves=leaves)
    told = differentiate(optimizer, minibatch, loss_of, shards)
    return optimizer.gradients.numpy().copy(), told


def assert_close(found, expected):
    np.testing.assert_allclose(found[0], expected[0], rtol=2e-4, atol=2e-6)
    assert np.abs(expected[0]).max() > 0.01
    for name, value in expected[1].items():
        np.testing.assert_allclose(np.asarray(found[1][name]), value.numpy(), rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "shards"), [({"net_arch": [16, 16]}, 1), ({"activation": "tanh", "net_arch": [7]}, 3)]
)
@pytest.mark.parametrize("double_q", [False, True])
def test_dqn(double_q, kwargs, shards):
    model, target = (made("q_network", Discrete(3), seed, **kwargs) for seed in (1, 2))
    config, found = DQNConfig(double_q=double_q), []
    tensors = drawn(Discrete(3))
    for loss_of, minibatch in ((plain_td_loss, arrays_of(tensors)), (dqn_loss, tensors)):

        def loss(rows, loss_of=loss_of):
            value, errors, q = loss_of(model, target, rows, config)
            return value, {"loss": value.detach(), "errors": errors, "q": q}

        found.append(gradient_of(loss, model, minibatch, shards))
    assert_close(*found)
    sizes = found[1][1]["errors"].abs()
    assert sizes.min() < 1 < sizes.max()


@pytest.mark.parametrize(
    ("kwargs", "shards"), [({"net_arch": [16, 16]}, 1), ({"activation": "tanh", "n_critics": 3}, 3)]
)
def test_sac(kwargs, shards):
    model, target = (made("gaussian_actor_q", ACTIONS, seed, **kwargs) for seed in (1, 2))
    alpha = torch.tensor(0.3)

    def critics(rows):
        loss = critic_loss(model, target, rows, alpha, rows["next_noise"])
        return loss, {"loss": loss.detach()}

    def plain_critics(rows):
        loss = soft_critic_loss(model.plain, target.plain, rows, alpha, rows["next_noise"])
        return loss, {"loss": loss.detach()}

    def actor(rows):
        loss, log_prob = actor_loss(model, rows, alpha)
        return loss, {"loss": loss.detach(), "log_prob": log_prob}

    def plain_actor(rows):
        loss, log_prob = soft_actor_loss(model.plain, rows, alpha)
        return loss, {"loss": loss.detach(), "log_prob": log_prob}

    minibatch = drawn(ACTIONS)
    minibatch["observations"][0] *= 100  # where log σ is beyond its limits
    for part, losses in (("critics", (plain_critics, critics)), ("actor", (plain_actor, actor))):
        assert_close(*(gradient_of(loss, model, minibatch, shards, part) for loss in losses))


def test_what_acts_chooses_as_torch_does():
    rows = drawn(ACTIONS)["observations"]
    for kind, actions, options in (
        ("q_network", Discrete(3), (0.5,)),
        ("gaussian_actor_q", ACTIONS, ()),
        ("deterministic_actor_q", ACTIONS, (0.1,)),
    ):
        model = made(kind, actions, 1)
        noise = model.draw_noise(np.random.default_rng(0), (ROWS,))
        with torch.inference_mode():
            expected = model.choose(model.outputs(rows), torch.from_numpy(noise), *options)
        found = model.plain.choose(model.plain.outputs(rows.numpy()), noise, *options)
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
        assert len(np.unique(found)) > 1


def test_values_are_computed_where_a_row_asks_for_them(monkeypatch):
    model, rows = made("q_network", Discrete(3), 1), drawn(ACTIONS)["observations"]
    noise = model.draw_noise(np.random.default_rng(0), (ROWS,))
    asked = []
    monkeypatch.setattr(model.plain, "outputs", lambda rows: asked.append(len(rows)) or model(rows).detach().numpy())
    for epsilon, calls in ((1.0, 0), (0.5, 1), (0.0, 2)):
        expected = model.explore(rows, torch.from_numpy(noise), epsilon)
        assert model.plain.explore(rows, noise, epsilon).tolist() == expected.tolist()
        assert asked == calls * [ROWS]


@pytest.mark.parametrize(
    ("kind", "observations", "actions", "kwargs"),
    [
        ("q_network", VECTOR, Discrete(3), {"dueling": True}),
        ("quantile_q_network", VECTOR, Discrete(3), {}),
        ("q_network", Dict({"a": VECTOR, "b": VECTOR}), Discrete(3), {}),
        ("categorical_actor_q", VECTOR, Discrete(3), {}),
        ("gaussian_actor_q", Box(0, 255, (36, 36, 3), np.uint8), ACTIONS, {}),
    ],
)
def test_models_that_are_not_plain_are_torchs(kind, observations, actions, kwargs):
    assert build_model(ModelSpec(kind, observations, actions, kwargs)).plain is None
