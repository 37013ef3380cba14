"""Encoders and what is refused; convolutions against numbers worked by hand."""

import sys

import numpy as np
import pytest
import torch
from gymnasium import spaces
from own_networks import Halves
from torch import nn

from shoal.algorithms import PPO
from shoal.rl import ModelSpec, Policy, RunSettings, build_model
from shoal.runtime import InputError

IMAGE = spaces.Box(0, 255, (40, 36, 3), np.uint8)
ACTIONS = spaces.Discrete(2)


class Own(torch.nn.Module):
    """An encoder as a user writes it."""

    def __init__(self, space, features=3):
        super().__init__()
        self.features = features
        self.layer = torch.nn.Linear(space.shape[0], features)

    def forward(self, rows):
        return self.layer(rows)


class Nameless(torch.nn.Module):
    def __init__(self, space):
        super().__init__()


def model(observations, kind="actor_critic", actions=ACTIONS, **policy_kwargs):
    return build_model(ModelSpec(kind, observations, actions, policy_kwargs))


def test_images_keep_their_bytes_until_the_encoder():
    found = model(IMAGE)
    rows = found.encode(np.full((2, 40, 36, 3), 51, np.uint8))
    assert rows.dtype == torch.uint8
    prepared = found.encoder.prepare(rows)
    assert prepared.shape == (2, 3, 40, 36)
    assert prepared.flatten().tolist() == pytest.approx([0.2] * prepared.numel())


@pytest.mark.parametrize("shape", [(3, 40, 36), (40, 36, 3)])
def test_channels_first_and_last_see_the_same(shape):
    found = model(spaces.Box(0, 255, shape, np.uint8))
    image = np.random.default_rng(0).integers(0, 255, (3, 40, 36), np.uint8)
    given = image if shape[0] == 3 else np.moveaxis(image, 0, -1)
    prepared = found.encoder.prepare(found.encode(given[np.newaxis]))
    np.testing.assert_allclose(prepared[0], image / 255, rtol=1e-6)
    shapes = [tuple(convolution.weight.shape) for convolution in found.encoder.convolutions]
    assert shapes == [(32, 3, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3)]
    assert found.encoder.layer.weight.shape == (512, 64)  # (40, 36) → (9, 8) → (3, 3) → (1, 1)
    assert len(found.pi.layers) == len(found.vf.layers) == 1


def test_small_images_get_the_residual_network_and_tiny_ones_none():
    assert type(model(spaces.Box(0, 255, (9, 8, 1), np.uint8)).encoder).__name__ == "ImpalaCNN"
    assert model(spaces.Box(0, 255, (7, 8, 1), np.uint8)).encoder is None


@pytest.mark.parametrize(
    ("kind", "actions"),
    [("q_network", ACTIONS), ("categorical_actor_q", ACTIONS), ("gaussian_actor_q", spaces.Box(-1, 1, (2,)))],
)
def test_every_kind_of_model_takes_images(kind, actions):
    found = model(IMAGE, kind, actions, encoder_kwargs={"features": 8})
    images = np.random.default_rng(1).integers(0, 255, (2, 40, 36, 3), np.uint8)
    outputs = found.outputs(found.encode(images))
    assert outputs.shape[0] == 2
    assert not torch.equal(outputs[0], outputs[1])
    if "actor" in kind:  # the actor's encoder travels with it and is optimized with it, the critics' with them
        assert any(name.startswith("actor_encoder.") for name in found.layout.shapes)
        assert not any(name.startswith("critics") for name in found.layout.shapes)
        where = found.part("actor")
        named = [name for name in found.parameters_layout.shapes if name.startswith("actor")]
        assert where.stop - where.start == sum(int(np.prod(found.parameters_layout.shapes[name])) for name in named)


def test_parts_are_encoded_by_their_kind():
    space = spaces.Dict({"camera": IMAGE, "pose": spaces.Box(-1, 1, (2,)), "gear": spaces.Discrete(3)})
    found = model(space, encoder_kwargs={"features": 16})
    assert found.encoder.features == 16 + 2 + 3
    flat = model(spaces.Dict({"pose": spaces.Box(-1, 1, (2,)), "gear": spaces.Discrete(3)}))
    given = np.zeros(1, [("gear", np.int64), ("pose", np.float32, (2,))])
    given["gear"], given["pose"] = 1, [[0.5, -0.5]]
    assert flat.encoder(flat.encode(given)).tolist() == [[0, 1, 0, 0.5, -0.5]]


def test_an_encoder_of_ones_own_is_saved_by_its_path(tmp_path):
    path = f"{__name__}:Own"
    policy = Policy(
        spaces.Box(-1, 1, (4,)), ACTIONS, policy_kwargs={"encoder": path, "encoder_kwargs": {"features": 5}}, seed=2
    )
    policy.save(tmp_path)
    again = Policy.load(tmp_path)
    assert again.model.encoder.features == 5
    assert again.weights_sha256() == policy.weights_sha256()


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"encoder": "nature_cn"}, r"encoder'\] is 'nature_cn', but must be one of.*Did you mean 'nature_cnn'"),
        ({"encoder": "nature_cnn"}, "there are no images in Box"),
        ({"encoder": "no_such_module_here:Own"}, "there is no module 'no_such_module_here'"),
        ({"encoder": f"{__name__}:Owm"}, "has no 'Owm'. Did you mean 'Own'"),
        ({"encoder": f"{__name__}:model"}, "must be a class derived from torch.nn.Module"),
        ({"encoder": "own_networks:WithBuffers"}, r"has buffers \(seen\), which would reach neither the workers"),
        ({"encoder_kwargs": {"features": 3}}, "no option of the encoder 'auto', which has none here"),
        ({"memory": "lstm", "memory_kwargs": {"unit": 3}}, "no option of the memory 'lstm'.*Did you mean 'units'"),
        ({"memory": "lstm", "memory_kwargs": {"window": 3}}, "no option of the memory 'lstm'"),
        ({"memory": "gru", "memory_kwargs": {"units": 0}}, "is 0, but must be a whole number of at least 1"),
        ({"memory_kwargs": {"units": 3}}, "no option of the memory 'none'"),
        ({"memory": "transformer", "memory_kwargs": {"units": 10}}, "units must be a multiple of heads"),
        ({"encoder": f"{__name__}:Nameless"}, "has no attribute `features`"),
        ({"encoder": f"{__name__}:Own", "encoder_kwargs": {"width": 3}}, "cannot be made with encoder_kwargs"),
        ({"encoder_kwargs": 3}, "must be a dict of arguments"),
        ({"memory": "lstn"}, "Did you mean 'lstm'"),
    ],
)
def test_wrong_choices_are_named(chosen, message):
    with pytest.raises(InputError, match=message):
        model(spaces.Box(-1, 1, (4,)), **chosen)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("own_network:Halves", "no module 'own_network'. Did you mean 'own_networks'"),
        ("gymnasium.space:Box", "no module 'gymnasium.space'. Did you mean 'spaces'"),
        ("gymnasum.spaces:Box", "no module 'gymnasum.spaces'. Did you mean 'gymnasium'"),
        ("own_networks:Halfs", "has no 'Halfs'. Did you mean 'Halves'"),
        ("__main__:Net", "put it into a module of its own"),
    ],
)
@pytest.mark.parametrize("slot", ["encoder", "memory"])
def test_a_path_that_leads_nowhere_is_refused_before_anything_is_made(slot, path, message):
    with pytest.raises(InputError, match=message):
        ModelSpec("actor_critic", spaces.Box(-1, 1, (4,)), ACTIONS, {slot: path}).check_own_modules()


def test_a_module_that_lies_in_the_policys_folder_is_not_imported(tmp_path, monkeypatch):
    folder, mark = tmp_path / "policy", tmp_path / "was imported"
    policy = Policy(spaces.Box(-1, 1, (4,)), ACTIONS, policy_kwargs={"encoder": "own_networks:Halves"})
    policy.spec.policy_kwargs["encoder"] = "evil_networks.deep:Halves"
    policy.save(folder)
    package = folder / "evil_networks"
    package.mkdir()
    for name in ("__init__.py", "deep.py"):
        (package / name).write_text(f"open({str(mark)!r}, 'w')\nclass Halves: pass\n")
    monkeypatch.syspath_prepend(folder)
    with pytest.raises(InputError, match=r"lies in '.*policy' itself, at .*: what a run holds is not run"):
        Policy.load(folder)
    assert not mark.exists()
    assert "evil_networks" not in sys.modules


def test_initial_weights_of_ones_own_network_come_from_the_seed_alone():
    def built(seed):
        kwargs = {"encoder": "own_networks:DrawsElsewhere"}
        return build_model(ModelSpec("actor_critic", spaces.Box(-1, 1, (4,)), ACTIONS, kwargs), seed=seed)

    first, again, other = (built(seed) for seed in (1, 1, 2))
    assert np.array_equal(first.get_weights(), again.get_weights())
    assert not torch.equal(first.encoder.left.weight, other.encoder.left.weight)


def test_stacked_images_lie_as_channels():
    images = np.random.default_rng(0).integers(0, 255, (1, 2, 40, 36, 3), np.uint8)
    last = model(spaces.Box(0, 255, (2, 40, 36, 3), np.uint8), encoder_kwargs={"features": 8, "channels": [4, 4, 4]})
    first = model(spaces.Box(0, 255, (2, 3, 40, 36), np.uint8), encoder_kwargs={"features": 8})
    prepared = last.encoder.prepare(last.encode(images))
    assert prepared.shape == (1, 6, 40, 36)
    assert prepared[0, 3 + 2, 5, 7].item() == pytest.approx(images[0, 1, 5, 7, 2] / 255)
    moved = np.ascontiguousarray(np.moveaxis(images, -1, -3))
    assert torch.equal(prepared, first.encoder.prepare(first.encode(moved)))
    assert last.encoder.convolutions[1].weight.shape == (4, 4, 4, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feature": 3}, "no option of the encoder 'auto'.*Did you mean 'features'"),
        ({"features": 0}, "is 0, but must be a whole number of at least 1"),
        ({"channels": [8, 8]}, r"is \[8, 8\], but must be a list of 3 whole numbers"),
    ],
)
def test_options_of_convolutions_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        ModelSpec("actor_critic", IMAGE, ACTIONS, {"encoder_kwargs": options})


def test_images_that_are_too_small_are_refused():
    with pytest.raises(InputError, match="images of 9 × 8 are too small for encoder 'nature_cnn', which takes 36 × 36"):
        model(spaces.Box(0, 255, (9, 8, 1), np.uint8), encoder="nature_cnn")


def test_a_class_stands_for_its_path(tmp_path):
    kwargs = {"encoder": Halves, "encoder_kwargs": {"width": 4}, "activation": nn.ReLU}
    assert RunSettings(policy_kwargs=kwargs).policy_kwargs["encoder"] == "own_networks:Halves"
    policy = Policy(spaces.Box(-1, 1, (4,)), ACTIONS, policy_kwargs=kwargs)
    policy.save(tmp_path)
    loaded = Policy.load(tmp_path)
    assert loaded.spec.policy_kwargs == {
        "encoder": "own_networks:Halves", "encoder_kwargs": {"width": 4}, "activation": "relu"
    }  # fmt: skip
    assert (loaded.act(np.zeros(4), deterministic=True) == policy.act(np.zeros(4), deterministic=True)).all()


def test_a_class_of_the_script_that_runs_is_refused(monkeypatch):
    monkeypatch.setattr(Halves, "__module__", "__main__")
    with pytest.raises(InputError, match="'__main__:Halves', a class of the script that runs"):
        PPO("CartPole-v1", engine="serial", policy_kwargs={"encoder": Halves})
