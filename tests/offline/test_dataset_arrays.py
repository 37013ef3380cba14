"""Arrays of recorded steps that become a dataset."""

import numpy as np
import pytest
from gymnasium import spaces

from shoal.algorithms import BC
from shoal.rl import Dataset, write_dataset
from shoal.runtime import InputError

pytestmark = pytest.mark.usefixtures("datasets")

BOX, CHOICE = spaces.Box(-100, 100, (1,), np.float32), spaces.Discrete(3)
SPACES = {"observation_space": BOX, "action_space": CHOICE}
STEPS = {
    "observations": np.arange(7.0)[:, None],
    "actions": np.array([0, 1, 2, 0, 1, 2, 0]),
    "rewards": np.arange(7),
    "terminals": np.array([0, 0, 1, 0, 0, 0, 0], bool),
    "timeouts": np.array([0, 0, 0, 0, 1, 0, 0], bool),
}


def read(arrays, **given):
    dataset = Dataset(write_dataset("mine/logged-v0", arrays, **SPACES | given))
    return [
        (
            np.ravel(episode.observations).tolist(),
            episode.actions.tolist(),
            episode.rewards.tolist(),
            episode.terminations.tolist(),
            episode.truncations.tolist(),
        )
        for episode in dataset.read(range(dataset.episodes))
    ]


def test_without_next_observations_a_cut_off_episode_ends_a_step_earlier():
    assert read(STEPS) == [
        ([0, 1, 2, 2], [0, 1, 2], [0, 1, 2], [False, False, True], [False] * 3),
        ([3, 4], [0], [3], [False], [True]),
        ([5, 6], [2], [5], [False], [True]),
    ]


def test_with_them_it_keeps_its_last_step_and_a_jump_ends_it():
    following = np.array([1, 2, 50, 4, 60, 70, 80.0])[:, None]
    assert read(STEPS | {"next_observations": following}) == [
        ([0, 1, 2, 50], [0, 1, 2], [0, 1, 2], [False, False, True], [False] * 3),
        ([3, 4, 60], [0, 1], [3, 4], [False] * 2, [False, True]),
        ([5, 70], [2], [5], [False], [True]),
        ([6, 80], [0], [6], [False], [True]),
    ]


def test_parts_of_observations():
    space = spaces.Dict(place=BOX, seen=spaces.MultiBinary(2))
    parts = {"place": np.arange(3.0)[:, None], "seen": np.eye(3, 2, dtype=np.int8)}
    arrays = {"observations": parts, "actions": [0, 1, 2], "rewards": [1, 1, 1], "terminations": [0, 0, 1]}
    for more in ({}, {"next_observations": {"place": [[1], [2], [9]], "seen": [[0, 1], [0, 0], [1, 1]]}}):
        dataset = write_dataset(
            "mine/parts-v0", arrays | more, observation_space=space, action_space=CHOICE, overwrite=True
        )
        assert Dataset(dataset).lengths.tolist() == [3]


def test_what_is_written_can_be_learned_from_and_knows_its_environment():
    random = np.random.default_rng(0)
    arrays = {
        "observations": random.normal(size=(60, 4)), "actions": random.integers(2, size=60), "rewards": np.ones(60),
        "terminations": np.arange(60) % 20 == 19,
    }  # fmt: skip
    name = write_dataset("mine/cartpole-v0", arrays, env="CartPole-v1")
    with BC(dataset=name, engine="serial", gradient_steps=2, batch_size=4) as bc:
        assert bc.env_id == "CartPole-v1"
        assert bc.train(2).timesteps == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": np.zeros(6)}, r"arrays\['observations'\] has 7 rows, but there are 6 rewards"),
        ({"rewards": np.full(7, np.nan)}, r"arrays\['rewards'\]: number 0 is nan"),
        ({"actions": np.full(7, 3)}, r"arrays\['actions'\]"),
        ({"observations": np.zeros((7, 2))}, r"arrays\['observations'\]"),
        ({"reward": 1}, "arrays holds 'reward', which no step has. Did you mean 'rewards'?"),
        ({"dones": STEPS["terminals"]}, "arrays holds 'dones', which do not tell .* give 'terminations', and 'trunc"),
        ({"truncations": STEPS["timeouts"]}, "arrays holds both 'timeouts' and 'truncations'"),
        ({"observations": [[0.0]], "actions": [0], "rewards": [0], "terminals": [0], "timeouts": [1]}, "hold no step"),
    ],
)
def test_what_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        read(STEPS | changes)
    with pytest.raises(InputError, match="there is no dataset"):
        Dataset("mine/logged-v0")


def test_arrays_where_a_name_is_wanted():
    with pytest.raises(InputError, match=r"rl\.write_dataset\('mine/logged-v0', arrays, env=…\) makes a dataset"):
        BC(dataset=STEPS)
    with pytest.raises(InputError, match="arrays lacks 'terminations'"):
        read({name: STEPS[name] for name in ("observations", "actions", "rewards")})
    with pytest.raises(InputError, match="give env, or observation_space and action_space"):
        read(STEPS, action_space=None)
