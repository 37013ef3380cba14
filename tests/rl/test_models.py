import hashlib

import numpy as np
import pytest
import torch
from gymnasium import spaces

from shoal.envs import stream
from shoal.rl import Model, ModelSpec, build_model
from shoal.rl.models.layout import ParameterLayout
from shoal.rl.models.q_network import centred
from shoal.runtime import InputError

BOX = spaces.Box(-1, 1, (3,))


def build(kind="actor_critic", observation_space=BOX, action_space=None, seed=0, **policy_kwargs):
    return build_model(ModelSpec(kind, observation_space, action_space or spaces.Discrete(2), policy_kwargs), seed=seed)


def views(model):
    return model.layout.views(model.get_weights())


def test_defaults_are_two_networks_of_two_layers_of_64():
    assert build().layout.shapes == {
        f"{branch}.layers.{layer}.{part}": shape if part == "weight" else shape[:1]
        for branch, outputs in (("pi", 2), ("vf", 1))
        for layer, shape in enumerate([(64, 3), (64, 64), (outputs, 64)])
        for part in ("weight", "bias")
    }


def test_networks_without_hidden_layers_and_of_different_shapes():
    model = build(
        observation_space=spaces.MultiDiscrete([2, 3]),
        action_space=spaces.Box(-1, 1, (2,)),
        net_arch={"pi": [], "vf": [5]},
    )
    assert model.layout.shapes["pi.layers.0.weight"] == (2, 5)
    assert model.layout.shapes["vf.layers.0.weight"] == (5, 5)
    assert model.layout.shapes["log_std"] == (2,)


def test_orthogonal_weights_with_their_gains():
    found = views(build(net_arch={"pi": [8], "vf": [2]}, seed=3))
    wide, narrow = found["pi.layers.0.weight"], found["vf.layers.0.weight"]  # [8, 3] and [2, 3]
    np.testing.assert_allclose(wide.T @ wide, 2 * np.eye(3), atol=1e-6)
    np.testing.assert_allclose(narrow @ narrow.T, 2 * np.eye(2), atol=1e-6)
    head = found["pi.layers.1.weight"]
    np.testing.assert_allclose(head @ head.T, 1e-4 * np.eye(2), atol=1e-8)
    assert not found["pi.layers.0.bias"].any()


def test_uniform_weights_stay_within_their_bound():
    found = views(build(net_arch=[100], ortho_init=False))
    for name in ("pi.layers.0.weight", "pi.layers.0.bias"):
        assert 0.9 / 3**0.5 < np.abs(found[name]).max() <= 1 / 3**0.5


def test_weights_depend_on_the_seed_alone_and_leave_torchs_generator_as_it_was():
    before = torch.get_rng_state()
    first = build(seed=1).get_weights()
    torch.rand(3)
    again, other = (build(seed=seed).get_weights() for seed in (1, 2))
    torch.set_rng_state(before)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_parameters_and_gradients_are_views_into_flat_arrays():
    model = build()
    rows = model.encode(np.ones((1, 3), np.float32))
    values, log_probs, entropies = model.evaluate(rows, torch.zeros(1, dtype=torch.int64))
    (values.sum() + log_probs.sum() + entropies.sum()).backward()
    gradients = model.layout.views(model.flat_gradients)
    assert all(gradients[name].any() for name in ("pi.layers.0.weight", "vf.layers.1.bias"))
    model.flat.zero_()
    assert model.values(rows).tolist() == [0.0]


def test_buffers_are_refused():
    class WithBuffer(Model):
        def __init__(self, spec):
            super().__init__(spec)
            self.norm = torch.nn.BatchNorm1d(3)

        outputs = choose = draw_noise = None

    with pytest.raises(ValueError, match=r"WithBuffer has buffers .*running_mean"):
        WithBuffer(ModelSpec("actor_critic", BOX, spaces.Discrete(2))).flatten()


def test_dueling_adds_the_value_to_centred_advantages():
    model = build("q_network", net_arch=[], dueling=True)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        model.q.layers[0].bias.copy_(torch.tensor([1.0, 4.0]))  # advantages, mean 2.5
        model.v.layers[0].bias.fill_(10.0)
    assert model(torch.zeros(1, 3)).tolist() == [[8.5, 11.5]]
    assert build("q_network", net_arch=[]).v is None


def test_dueling_centres_over_the_actions_that_are_allowed():
    mask = torch.tensor([[True, False, True], [True, True, True]])
    advantages = torch.tensor([[1.0, 100.0, 4.0], [1.0, 2.0, 6.0]])  # means 2.5 of two, 3 of three
    assert centred(advantages, mask).tolist() == [[-1.5, 97.5, 1.5], [-2, -1, 3]]
    quantiles = torch.stack([advantages, 2 * advantages], -1)
    assert centred(quantiles, mask)[0, :, 1].tolist() == [-3, 195, 3]
    torch.testing.assert_close(centred(quantiles, None)[1], centred(quantiles, mask)[1])


def test_epsilon_greedy_by_hand():
    model = build("q_network", action_space=spaces.Discrete(3))
    q = torch.tensor([[0.0, 1.0, 0.0]] * 3)
    noise = torch.tensor([[0.09, 0.1, 0.2, 0.9], [0.1, 0.1, 0.2, 0.9], [0.5, 0.9, 0.0, 0.0]])
    assert model.choose(q, noise, 0.1).tolist() == [2, 1, 1]
    assert model.choose(q, noise, 1.0).tolist() == [2, 2, 0]
    assert model.choose(q, None).tolist() == [1, 1, 1]
    drawn = model.draw_noise(stream(0, "noise"), (4000,))
    chosen = np.bincount(model.choose(q[:1].expand(4000, 3), torch.from_numpy(drawn), 0.6).numpy()) / 4000
    np.testing.assert_allclose(chosen, [0.2, 0.6, 0.2], atol=0.03)


def test_a_q_network_says_which_models_take_other_actions():
    with pytest.raises(
        InputError, match=r"Box\(2,\).* does not work with a q_network, but with: actor_critic, actor, gaussian"
    ):
        build("q_network", action_space=spaces.Box(-1, 1, (2,)))


def test_hash_goes_over_parameters_in_the_order_of_their_names():
    layout = ParameterLayout({"b.weight": (1, 1), "b.bias": (1,), "a.weight": (2,)})
    flat = np.array([1, 2, 3, 4], dtype=np.float32)
    in_order = np.array([3, 4, 2, 1], dtype="<f4")
    assert layout.sha256(flat) == hashlib.sha256(in_order.tobytes()).hexdigest()


def test_flatten_names_what_does_not_fit():
    layout = ParameterLayout({"weight": (1, 1), "bias": (1,)})
    named = layout.views(np.zeros(2, dtype=np.float32)) | {"bias": np.zeros(2), "extra": np.zeros(1)}
    with pytest.raises(ValueError, match=r"bias: got \(2,\), need \(1,\), extra: got \(1,\), need None"):
        layout.flatten(named)


@pytest.mark.parametrize(
    ("policy_kwargs", "message"),
    [
        ({"net_arc": [64]}, "no entry 'net_arc'.*'net_arch'"),
        ({"net_arch": [64, 0]}, r"\[64, 0\]"),
        ({"net_arch": "64"}, "'64'"),
        ({"net_arch": {"pi": [64]}}, r"keys \['pi'\]"),
        ({"activation": "gelu"}, "'gelu', but must be one of 'tanh', 'relu'"),
        ({"ortho_init": 1}, "True or False"),
        ({"log_std_init": "low"}, "'low', but must be a number"),
    ],
)
def test_bad_policy_kwargs_are_named(policy_kwargs, message):
    with pytest.raises(InputError, match=message):
        ModelSpec("actor_critic", BOX, spaces.Discrete(2), policy_kwargs)
