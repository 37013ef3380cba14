import hashlib

import numpy as np
import pytest
from gymnasium import spaces
from shoal.rl.architecture import Architecture, initial_weights, parameter_layout

from shoal.runtime import InputError

BOX = spaces.Box(-1, 1, (3,))


def test_defaults_are_two_networks_of_two_layers_of_64():
    layout = parameter_layout(BOX, spaces.Discrete(2), Architecture())
    assert layout.shapes == {
        "encoder.pi.0.weight": (3, 64),
        "encoder.pi.0.bias": (64,),
        "encoder.pi.1.weight": (64, 64),
        "encoder.pi.1.bias": (64,),
        "head.pi.weight": (64, 2),
        "head.pi.bias": (2,),
        "encoder.vf.0.weight": (3, 64),
        "encoder.vf.0.bias": (64,),
        "encoder.vf.1.weight": (64, 64),
        "encoder.vf.1.bias": (64,),
        "head.vf.weight": (64, 1),
        "head.vf.bias": (1,),
    }


def test_networks_without_hidden_layers_and_of_different_shapes():
    architecture = Architecture.from_policy_kwargs({"net_arch": {"pi": [], "vf": [5]}})
    shapes = parameter_layout(spaces.MultiDiscrete([2, 3]), spaces.Box(-1, 1, (2,)), architecture).shapes
    assert shapes["head.pi.weight"] == (5, 2)
    assert shapes["encoder.vf.0.weight"] == (5, 5)
    assert shapes["head.log_std"] == (2,)


def test_orthogonal_weights_with_their_gains():
    layout = parameter_layout(BOX, spaces.Discrete(2), Architecture(pi=(8,), vf=(2,)))
    views = layout.views(initial_weights(layout, Architecture(pi=(8,), vf=(2,)), seed=3))
    wide, narrow = views["encoder.pi.0.weight"], views["encoder.vf.0.weight"]  # [3, 8] and [3, 2]
    np.testing.assert_allclose(wide @ wide.T, 2 * np.eye(3), atol=1e-6)
    np.testing.assert_allclose(narrow.T @ narrow, 2 * np.eye(2), atol=1e-6)
    head = views["head.pi.weight"]
    np.testing.assert_allclose(head.T @ head, 1e-4 * np.eye(2), atol=1e-8)
    assert not views["encoder.pi.0.bias"].any()


def test_uniform_weights_stay_within_their_bound():
    architecture = Architecture(pi=(100,), vf=(100,), ortho_init=False)
    layout = parameter_layout(BOX, spaces.Discrete(2), architecture)
    views = layout.views(initial_weights(layout, architecture, seed=0))
    for name in ("encoder.pi.0.weight", "encoder.pi.0.bias"):
        assert 0.9 / 3**0.5 < np.abs(views[name]).max() <= 1 / 3**0.5


def test_weights_depend_on_the_seed_alone():
    layout = parameter_layout(BOX, spaces.Discrete(2), Architecture())
    first, again, other = (initial_weights(layout, Architecture(), seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_hash_goes_over_parameters_in_the_order_of_their_names():
    layout = parameter_layout(spaces.Box(-1, 1, (1,)), spaces.Discrete(1), Architecture(pi=(), vf=()))
    flat = np.array([1, 2, 3, 4], dtype=np.float32)  # head.pi.weight, head.pi.bias, head.vf.weight, head.vf.bias
    in_order = np.array([2, 1, 4, 3], dtype="<f4")  # "bias" sorts before "weight"
    assert layout.sha256(flat) == hashlib.sha256(in_order.tobytes()).hexdigest()


def test_flatten_names_what_does_not_fit():
    layout = parameter_layout(spaces.Box(-1, 1, (1,)), spaces.Discrete(1), Architecture(pi=(), vf=()))
    named = layout.views(np.zeros(4, dtype=np.float32)) | {"head.vf.bias": np.zeros(2), "extra": np.zeros(1)}
    with pytest.raises(ValueError, match=r"extra: got \(1,\), need None, head.vf.bias: got \(2,\), need \(1,\)"):
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
        Architecture.from_policy_kwargs(policy_kwargs)
