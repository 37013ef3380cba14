"""What plain networks do in numpy is what torch does: acting, and the gradient of PPO's surrogate."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete

from shoal.algorithms.ppo import PPO, PPOConfig, ppo_loss
from shoal.rl import Clock, FlatAdam, ModelSpec, build_model, clipped_surrogate
from shoal.rl.data.tree import as_array
from shoal.rl.learn.shards import differentiate

VECTOR = Box(-np.inf, np.inf, (5,), np.float32)


def model_and_minibatch(actions, rows=48, **kwargs):
    """A model whose policy and values are not those of the minibatch: all branches of the surrogate are taken."""
    model = build_model(ModelSpec("actor_critic", VECTOR, actions, kwargs), seed=1)
    generator = np.random.default_rng(2)
    model.set_weights(model.get_weights() + generator.normal(0, 0.1, model.layout.size).astype(np.float32))

    def normal(*shape):
        return torch.tensor(generator.standard_normal(shape), dtype=torch.float32)

    observations = normal(rows, 5)
    taken = torch.tensor(generator.integers(0, 3, rows)) if isinstance(actions, Discrete) else normal(rows, 2)
    values, log_probs, _ = model.evaluate(observations, taken)
    minibatch = {
        "rows": observations,
        "actions": taken,
        "log_probs": log_probs.detach() + 0.3 * normal(rows),
        "values": values.detach() + 0.5 * normal(rows),
        "advantages": normal(rows),
        "returns": normal(rows),
    }
    return model, minibatch


def plain_loss(model, minibatch, config, clip_range, clip_range_vf):
    given = {"clip_range_vf": clip_range_vf, "vf_coef": config.vf_coef, "ent_coef": config.ent_coef}
    return clipped_surrogate(model.plain, minibatch, clip_range=clip_range, **given)


def gradient_of(loss_of, model, minibatch, *, clip_range_vf, ent_coef, shards=1):
    optimizer = FlatAdam(model.flat, model.flat_gradients)
    config = PPOConfig(ent_coef=ent_coef, vf_coef=0.7)

    def loss(rows):
        return loss_of(model, rows, config, 0.2, clip_range_vf)

    told = differentiate(optimizer, minibatch, loss, shards)
    return model.flat_gradients.numpy().copy(), {name: float(value) for name, value in told.items()}


@pytest.mark.parametrize(
    ("kwargs", "ent_coef", "clip_range_vf", "shards"),
    [({}, 0.0, None, 1), ({"activation": "relu", "net_arch": {"pi": [7], "vf": [16, 8, 8]}}, 0.05, 0.2, 5)],
)
@pytest.mark.parametrize("actions", [Discrete(3), Box(-1, 1, (2,), np.float32)])
def test_the_written_out_gradient_and_metrics_are_those_of_torch(actions, kwargs, ent_coef, clip_range_vf, shards):
    model, minibatch = model_and_minibatch(actions, **kwargs)
    given = {"clip_range_vf": clip_range_vf, "ent_coef": ent_coef}
    wanted, wanted_told = gradient_of(ppo_loss, model, minibatch, **given)
    found, told = gradient_of(plain_loss, model, minibatch, **given, shards=shards)
    assert 0.1 < told["train/clip_fraction"] < 0.9  # so both of its sides count
    np.testing.assert_allclose(found, wanted, atol=2e-6 * np.abs(wanted).max())
    assert told == pytest.approx(wanted_told, abs=2e-6)
    assert np.abs(wanted).min() < np.abs(wanted).max()


@pytest.mark.parametrize(
    ("observations", "actions", "kwargs"),
    [
        (VECTOR, MultiDiscrete([2, 3]), {}),
        (VECTOR, Discrete(2), {"memory": "gru"}),
        (Dict(a=VECTOR, b=VECTOR), Discrete(2), {}),
    ],
)
def test_models_that_are_not_plain_are_torchs(observations, actions, kwargs):
    assert build_model(ModelSpec("actor_critic", observations, actions, kwargs)).plain is None


def test_a_plain_network_sees_the_weights_of_now():
    model, minibatch = model_and_minibatch(Discrete(3))
    rows = minibatch["rows"]
    before = model.plain.pi.forward(rows.numpy())
    model.set_weights(2 * model.get_weights())
    after = model.plain.pi.forward(rows.numpy())
    assert not np.allclose(before, after)
    np.testing.assert_allclose(after, model.outputs(rows).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("rows", [1, 16, 67, 128])  # of 67 rows, a prime above 64, a bias is added to one at a time
def test_a_plain_policy_whose_weights_rest_computes_the_same_bits_and_sees_the_weights_after_that(rows):
    model, _ = model_and_minibatch(Discrete(3))
    plain, seen = model.plain, np.random.default_rng(4).standard_normal((rows, 5)).astype(np.float32)
    wanted = plain.outputs(seen)
    np.testing.assert_allclose(wanted, model.outputs(torch.from_numpy(seen)).detach().numpy(), atol=1e-5)
    with plain.unchanging(rows):
        found = [plain.outputs(seen), plain.outputs(seen[:1])[:1], plain.outputs(seen)]
    assert found[0].tobytes() == found[2].tobytes() == wanted.tobytes()
    np.testing.assert_allclose(found[1], wanted[:1], atol=1e-6)
    with torch.no_grad():
        model.flat.add_(0.5)  # as an optimizer does it
    assert not np.allclose(plain.outputs(seen), wanted)
    np.testing.assert_allclose(plain.outputs(seen), model.outputs(torch.from_numpy(seen)).detach().numpy(), atol=1e-4)


def test_a_plain_model_overflows_without_a_warning():
    model, _ = model_and_minibatch(Discrete(3), activation="relu")
    model.set_weights(np.full(model.layout.size, 3e38, np.float32))
    assert not np.isfinite(model.plain.outputs(np.ones((2, 5), np.float32))).any()  # warnings are errors here


@pytest.mark.parametrize("observations", [VECTOR, Discrete(5)])
@pytest.mark.parametrize("actions", [Discrete(3), Box(-1, 1, (2,), np.float32)])
def test_a_plain_model_acts_as_torchs_does(observations, actions):
    model = build_model(ModelSpec("actor_critic", observations, actions), seed=1)
    generator = np.random.default_rng(3)
    seen = generator.standard_normal((8, 5)) if observations is VECTOR else generator.integers(0, 5, 8)
    noise = model.draw_noise(generator, (8,))
    found = {}
    with torch.inference_mode():
        for acting in (PPO.acting(model), model):
            rows, _ = acting.recall(acting.encode(seen), None)
            acted = PPO.explore(acting, rows, acting.given(noise), PPOConfig(), Clock(0, 1))
            found[type(acting)] = as_array(acted.actions), as_array(acted.records["outputs"])
    (actions_of_plain, outputs_of_plain), (actions_of_torch, outputs_of_torch) = found.values()
    assert len(found) == 2
    np.testing.assert_allclose(outputs_of_plain, outputs_of_torch, atol=1e-6)
    np.testing.assert_allclose(actions_of_plain, actions_of_torch, atol=1e-6)
    assert actions_of_plain.dtype == actions_of_torch.dtype
    assert len(np.unique(actions_of_plain)) > 1


def test_who_explores_in_a_way_of_its_own_does_so_with_tensors():
    class Own(PPO):
        @staticmethod
        def explore(model, rows, noise, config, clock):
            return PPO.explore(model, rows + 1, noise, config, clock)

    model, _ = model_and_minibatch(Discrete(3))
    assert PPO.acting(model) is model.plain
    assert Own.acting(model) is model


def test_the_memory_of_a_plain_network_is_not_what_it_returns():
    model, minibatch = model_and_minibatch(Discrete(3))
    rows = minibatch["rows"].numpy()
    first = model.plain.pi.forward(rows)
    kept = first.copy()
    model.plain.pi.forward(rows[:7])
    model.plain.pi.forward(2 * rows)
    np.testing.assert_array_equal(first, kept)
    model.plain.pi.forward(rows)
    model.plain.pi.backward(np.ones_like(first))
    gradients = model.flat_gradients.clone()
    model.plain.pi.forward(rows[:7])
    model.plain.pi.backward(np.ones_like(first[:7]))
    model.plain.pi.forward(rows)
    model.plain.pi.backward(np.ones_like(first))
    assert torch.equal(gradients, model.flat_gradients)
