"""`record`: the same dataset for any number of workers, of a policy, of random play and of both."""

import hashlib
import json
import os
import signal

import minari
import numpy as np
import pytest
from learning_envs import Drawn

from shoal import runtime
from shoal.cli.main import main
from shoal.envs import SpaceMismatchError
from shoal.rl import ACTIONS, Dataset, Policy, evaluate, example_observation, record
from shoal.rl.evaluation.recording import Behaviour, EpisodePlayer
from shoal.runtime import InputError

pytestmark = pytest.mark.usefixtures("datasets")


def sha256(dataset_id, datasets):
    return hashlib.sha256((datasets / dataset_id / "data/main_data.hdf5").read_bytes()).hexdigest()


@pytest.fixture
def policy(tmp_path):
    """An untrained policy of CartPole in a folder."""
    import gymnasium

    env = gymnasium.make("CartPole-v1")
    made = Policy(env.observation_space, env.action_space, seed=3)
    made.save(tmp_path / "policy")
    return tmp_path / "policy"


def test_episodes_can_be_played_again_from_their_seeds(datasets, policy):
    runtime.init(engine="serial")
    found = record(policy, "CartPole-v1", dataset="cart/expert-v0", episodes=10, seed=5)
    loaded = minari.load_dataset("cart/expert-v0")
    assert (found.episodes, found.steps) == (10, loaded.total_steps)
    env = loaded.recover_environment()
    seeds = [entry["seed"] for entry in loaded.storage.get_episode_metadata(range(10))]
    assert len(set(seeds)) == 10
    acts = Policy.load(policy)
    for seed, episode in zip(seeds, loaded.iterate_episodes(), strict=True):
        observation, _ = env.reset(seed=seed)
        np.testing.assert_array_equal(observation, episode.observations[0])
        for t, action in enumerate(episode.actions):
            assert action == acts.act(observation, deterministic=True)
            observation, reward, terminated, truncated, _ = env.step(action)
            np.testing.assert_array_equal(observation, episode.observations[t + 1])
            assert (reward, terminated, truncated) == (
                episode.rewards[t],
                episode.terminations[t],
                episode.truncations[t],
            )
        assert terminated or truncated
    env.close()


def test_the_same_bytes_again_and_of_another_seed_others(datasets):
    runtime.init(engine="serial")
    for name, seed, workers in (("one", 0, 1), ("two", 0, 3), ("other", 1, 1)):
        record(None, "CartPole-v1", dataset=f"cart/{name}-v0", episodes=40, seed=seed, workers=workers)
    assert sha256("cart/one-v0", datasets) == sha256("cart/two-v0", datasets) != sha256("cart/other-v0", datasets)


@pytest.mark.slow
def test_a_player_that_is_killed_changes_nothing(datasets, policy, native, tmp_path):
    mark = tmp_path / "killed"

    class Deadly(EpisodePlayer):
        def play(self, unit, count):
            if unit == 1 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().play(unit, count)

    arguments = {"episodes": 70, "random_share": 0.5, "epsilon": 0.1}
    record(policy, "CartPole-v1", dataset="cart/one-v0", **arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shoal.rl.evaluation.recording.EpisodePlayer", Deadly)
        record(policy, "CartPole-v1", dataset="cart/two-v0", workers=2, **arguments)
    assert mark.exists()
    assert sha256("cart/one-v0", datasets) == sha256("cart/two-v0", datasets)


def test_a_share_of_the_episodes_is_random():
    behaviour = Behaviour(random_share=0.25)
    assert [behaviour.is_random(k) for k in range(8)] == [False, False, False, True] * 2
    assert all(Behaviour(random_share=1).is_random(k) for k in range(10))
    assert not any(Behaviour().is_random(k) for k in range(10))
    with pytest.raises(InputError, match=r"epsilon is 2, but must be a number of at least 0 and at most 1"):
        Behaviour(epsilon=2)


def test_mixed_play_and_its_probabilities(policy):
    """Where the greedy action was taken: (1 − ε) + ε/2 = 0.9; else ε/2 = 0.1. In random episodes: 1/2."""
    runtime.init(engine="serial")
    record(policy, "CartPole-v1", dataset="cart/mixed-v0", episodes=40, random_share=0.5, epsilon=0.2)
    acts = Policy.load(policy)
    greedy, seen = [], set()
    for index, episode in enumerate(Dataset("cart/mixed-v0").read(range(40))):
        best = acts.act(episode.observations[:-1], deterministic=True) == episode.actions
        probabilities = np.exp(episode.log_probs)
        if index % 2:
            np.testing.assert_allclose(probabilities, 0.5, rtol=1e-6)
        else:
            np.testing.assert_allclose(probabilities, np.where(best, 0.9, 0.1), rtol=1e-6)
            greedy += best.tolist()
            seen |= set(best.tolist())
    assert seen == {True, False}
    assert abs(np.mean(greedy) - 0.9) < 4 * (0.09 / len(greedy)) ** 0.5


def test_masks_are_kept_and_nested_spaces_recorded():
    """`Drawn` refuses an action that its mask forbids."""
    runtime.init(engine="serial")
    for action, masked in (("MultiDiscrete", True), ("Tuple", False)):
        env_kwargs = {
            "observation_space": example_observation("Dict", action, masked),
            "action_space": ACTIONS[action],
        }
        found = record(
            None, Drawn, dataset=f"drawn/{action}-v0", episodes=3, env_kwargs=env_kwargs | {"max_episode_steps": 4}
        )
        assert found.steps == 12
        (first, *_) = Dataset(f"drawn/{action}-v0").read([0])
        assert first.truncations.tolist() == [False, False, False, True]


def test_what_cannot_be_recorded(policy):
    with pytest.raises(SpaceMismatchError, match=r"'Pendulum-v1' has the observation space.*made for"):
        record(policy, "Pendulum-v1", dataset="cart/expert-v0")
    with pytest.raises(InputError, match="pass env="):
        record(policy, dataset="cart/expert-v0")


def test_the_command(tmp_path, datasets, policy, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number in (0, 1):
        assert main(["record", "CartPole-v1", "--episodes", "3", "--engine", "serial"]) == 0
        assert f"CartPole-v1/random-v{number}: 3 episodes of CartPole-v1" in capsys.readouterr().out
    arguments = ["--env", "CartPole-v1", "--episodes", "2", "--engine", "serial", "--json"]
    assert main(["record", str(policy), *arguments]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["dataset"] == "CartPole-v1/expert-v0"
    assert told["episode_return_mean"] == pytest.approx(
        np.mean([read.rewards.sum() for read in Dataset(told["dataset"]).read([0, 1])])
    )
    assert main(["record"]) == 2
    assert main(["record", "CartPole-v1", "--dataset", "CartPole-v1/random-v0"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert evaluate(policy, "CartPole-v1", episodes=2).episodes == 2
