import json

import numpy as np
import pytest
import torch
from gymnasium import spaces

from shoal.envs import stream
from shoal.rl import Policy
from shoal.runtime import InputError

OBSERVATIONS = {
    "box": spaces.Box(-1, 1, (4,)),
    "matrix": spaces.Box(-1, 1, (2, 3), dtype=np.float64),
    "image": spaces.Box(0, 255, (2, 2, 1), dtype=np.uint8),
    "discrete": spaces.Discrete(3, start=5),
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "multi_binary": spaces.MultiBinary(3),
}
ACTIONS = {
    "discrete": spaces.Discrete(3, start=-1),
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "multi_binary": spaces.MultiBinary(3),
    "box": spaces.Box(-0.01, 0.01, (2,)),
}


@pytest.mark.parametrize("observation", OBSERVATIONS)
@pytest.mark.parametrize("action", ACTIONS)
def test_acts_for_one_observation_and_for_a_batch(observation, action):
    policy = Policy(OBSERVATIONS[observation], ACTIONS[action], seed=1)
    samples = [policy.observation_space.sample() for _ in range(5)]
    batch = policy.act(np.stack(samples), deterministic=True)
    assert len(batch) == 5
    for sample, chosen in zip(samples, batch, strict=True):
        assert policy.action_space.contains(chosen)
        np.testing.assert_allclose(policy.act(sample, deterministic=True), chosen, atol=1e-6)
    assert policy.action_space.contains(policy.act(samples[0]))


def test_rows_are_one_hot_and_images_are_scaled():
    rows = Policy(OBSERVATIONS["discrete"], ACTIONS["box"]).model.encode(np.array([5, 7]))
    assert rows.tolist() == [[1, 0, 0], [0, 0, 1]]
    rows = Policy(OBSERVATIONS["multi_discrete"], ACTIONS["box"]).model.encode(np.array([[1, 2]]))
    assert rows.tolist() == [[0, 1, 0, 0, 1]]
    rows = Policy(OBSERVATIONS["image"], ACTIONS["box"]).model.encode(np.full((1, 2, 2, 1), 51, dtype=np.uint8))
    np.testing.assert_allclose(rows, [[0.2] * 4])


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 5, 4), ()])
def test_a_wrong_shape_is_named_with_the_wanted_one(shape):
    policy = Policy(OBSERVATIONS["box"], ACTIONS["box"])
    with pytest.raises(ValueError, match=r"shape \(.*\).*wants \(4,\), or \(batch, 4\) for a batch") as caught:
        policy.act(np.zeros(shape))
    assert str(shape) in str(caught.value)


def test_exploring_and_learning_agree_on_log_probabilities():
    model = Policy(OBSERVATIONS["box"], ACTIONS["multi_discrete"], seed=2).model
    rows = model.encode(stream(0, "observations").normal(size=(6, 4)).astype(np.float32))
    noise = torch.from_numpy(model.draw_noise(stream(0, "noise"), (6,)))
    actions = model.choose(model.outputs(rows), noise)
    _, log_probs, _ = model.evaluate(rows, actions)
    torch.testing.assert_close(model.distribution(model.outputs(rows)).log_prob(actions), log_probs)


def test_random_actions_come_from_the_given_stream():
    policy = Policy(OBSERVATIONS["box"], ACTIONS["box"])
    observations = np.zeros((4, 4), dtype=np.float32)
    first, again, other = (policy.act(observations, noise_stream=stream(seed, "act")) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_weights_go_out_and_in():
    policy, other = (Policy(OBSERVATIONS["box"], ACTIONS["box"], seed=seed) for seed in (1, 2))
    assert policy.weights_sha256() != other.weights_sha256()
    other.set_weights(policy.get_weights(), version=7)
    assert policy.weights_sha256() == other.weights_sha256()
    assert other.version == 7
    with pytest.raises(ValueError, match=r"\(3,\).*parameters"):
        policy.set_weights(np.zeros(3, dtype=np.float32), version=8)


@pytest.mark.parametrize("action", ACTIONS)
def test_save_and_load_give_the_same_policy(tmp_path, action):
    policy_kwargs = {"net_arch": {"pi": [8], "vf": [4, 4]}, "activation": "relu"}
    policy = Policy(OBSERVATIONS["matrix"], ACTIONS[action], policy_kwargs=policy_kwargs, seed=4)
    policy.version = 12
    policy.save(tmp_path / "policy")
    loaded = Policy.load(tmp_path / "policy")
    assert loaded.weights_sha256() == policy.weights_sha256()
    assert loaded.version == 12
    assert loaded.action_space == policy.action_space
    assert loaded.observation_space == policy.observation_space
    observations = np.ones((3, 2, 3))
    assert np.array_equal(loaded.act(observations, deterministic=True), policy.act(observations, deterministic=True))
    json.loads((tmp_path / "policy" / "policy.json").read_text())


def test_spaces_that_are_not_supported_are_refused():
    with pytest.raises(InputError, match="observation space Text"):
        Policy(spaces.Dict({"a": spaces.Text(2)}), ACTIONS["box"])


@pytest.mark.parametrize("action_space", [spaces.Discrete(3), spaces.Box(-1.0, 1.0, (2,))])
def test_what_would_not_be_finite_is_refused(action_space):
    policy = Policy(OBSERVATIONS["box"], action_space, policy_kwargs={"activation": "relu"})
    for value in (np.nan, np.inf, 1e39, -1e39):
        with pytest.raises(ValueError, match=r"observation\[1, 2\] = .* wants a finite number"):
            policy.act([[0, 0, 0, 0], [0, 0, value, 0]])
    weights = policy.get_weights()
    policy.set_weights(weights * 1e3, 1)
    huge = np.float32([[0] * 4, [3e38] * 4])
    with pytest.raises(ValueError, match=r"output for row 1 is not finite.*values up to 3e\+38: scale it"):
        policy.act(huge)
    policy.set_weights(weights * np.nan, 2)
    with pytest.raises(ValueError, match=r"not finite.*weights are not: load an earlier checkpoint"):
        policy.act(np.zeros(4))


def test_a_q_network_is_a_policy_too(tmp_path):
    policy = Policy(
        OBSERVATIONS["box"], ACTIONS["discrete"], model="q_network", policy_kwargs={"dueling": True}, seed=4
    )
    policy.save(tmp_path / "policy")
    loaded = Policy.load(tmp_path / "policy")
    assert loaded.weights_sha256() == policy.weights_sha256()
    rows = np.linspace(-1, 1, 40, dtype=np.float32).reshape(10, 4)
    assert np.array_equal(loaded.act(rows, deterministic=True), policy.act(rows, deterministic=True))
    best = policy.model(policy.model.encode(rows)).argmax(-1).numpy() - 1  # the space starts at −1
    assert np.array_equal(policy.act(rows, deterministic=True), best)


def test_spaces_from_the_object_store_are_read_only():
    space = spaces.MultiDiscrete([2, 3])
    space.start.flags.writeable = False
    assert Policy(space, spaces.Discrete(2)).act(np.array([1, 2])) in (0, 1)  # torch would warn of it
