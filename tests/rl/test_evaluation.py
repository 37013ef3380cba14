import itertools
import json
import types

import numpy as np
import pytest
from gymnasium import spaces
from learning_envs import Countdown, Echo

from shoal.algorithms import PPO, Supervised
from shoal.envs import EnvGroup, SpaceMismatchError, derive_seed, resolve
from shoal.rl import Policy, evaluate
from shoal.rl.evaluation import evaluate as evaluation
from shoal.runtime import InputError


class Repeats:
    """Plays `Echo` perfectly, and notes the rows it was asked for."""

    def __init__(self):
        self.rows = set()

    def act(self, observations, *, deterministic=False):
        assert deterministic
        self.rows.add(len(observations))
        return np.asarray(observations)


def test_a_perfect_policy_gets_the_best_return():
    policy = Repeats()
    evaluation = evaluate(policy, Echo, episodes=20)
    assert evaluation.to_json() == {
        "episodes": 20,
        "episode_return_mean": 8.0,
        "episode_return_std": 0.0,
        "episode_length_mean": 8.0,
    }
    assert policy.rows == {20}


@pytest.mark.parametrize("episodes", [1, 5, 40])
def test_each_environment_plays_its_share_whatever_ends_first(episodes):
    class Any:
        def act(self, observations, *, deterministic=False):
            return np.zeros(len(observations), dtype=np.int64)

    evaluation = evaluate(Any(), Countdown, episodes=episodes, seed=3)
    size = min(episodes, 32)
    expected = []
    with EnvGroup(resolve(Countdown), size=size, first_index=0, run_seed=derive_seed(3, "evaluation")) as group:
        group.reset()
        finished = [[] for _ in range(size)]
        for _ in range(20):
            for episode in group.step(np.zeros(size, dtype=np.int64)).episodes:
                finished[episode.environment].append(episode.return_)
    for index, returns in enumerate(finished):
        expected += returns[: 2 if index < episodes - 32 else 1]
    assert evaluation.returns == tuple(expected)
    assert evaluation.episode_return_mean == pytest.approx(np.mean(expected))
    assert evaluation.episode_return_std == pytest.approx(np.std(expected))


def test_the_seed_decides(tmp_path):
    env = resolve(Echo)
    with env.make() as made:
        policy = Policy(made.observation_space, made.action_space, policy_kwargs={"log_std_init": 0})
    first, again, other = (evaluate(policy, Echo, episodes=8, seed=seed).returns for seed in (1, 1, 2))
    assert first == again
    assert first != other
    policy.save(tmp_path / "policy")
    assert evaluate(tmp_path / "policy", Echo, episodes=8, seed=1).returns == first


def test_a_training_and_its_policy_know_their_environment():
    class Short(Countdown):  # which no description could find again
        pass

    with PPO(Short, engine="serial", seed=1) as ppo:
        assert evaluate(ppo, episodes=4) == evaluate(ppo.policy, Short, episodes=4)
    with PPO("CartPole-v1", engine="serial", seed=1) as ppo:
        assert evaluate(ppo, episodes=2) == evaluate(ppo.policy, episodes=2) == evaluate(ppo, "CartPole-v1", episodes=2)
    with pytest.raises(InputError, match="evaluate needs an environment"):
        evaluate(Repeats())
    with pytest.raises(InputError, match="a training by Supervised has no policy"):
        evaluate(Supervised.__new__(Supervised), "CartPole-v1")


def test_a_long_evaluation_says_how_far_it_is(monkeypatch, caplog):
    now = itertools.count(step=6.0)
    monkeypatch.setattr(evaluation.time, "monotonic", lambda: next(now))
    evaluate(Repeats(), Echo, episodes=2)
    assert "evaluation: 0 of 2 episodes have ended after" in caplog.messages[0]
    assert "an environment that does not end its episodes needs max_episode_steps" in caplog.messages[0]


def test_numbers_of_numpy():
    plain = evaluate(Repeats(), Echo, episodes=2, seed=1)
    assert evaluate(Repeats(), Echo, episodes=np.int64(2), seed=np.uint8(1), threads=np.array(1)) == plain
    json.dumps(plain.to_json())


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(InputError, match="seed is -1"):
        evaluate(Repeats(), Echo, seed=-1)
    with pytest.raises(InputError, match="episodes is True"):
        evaluate(Repeats(), Echo, episodes=True)
    with pytest.raises(InputError, match="episodes is 0"):
        evaluate(Repeats(), Echo, episodes=0)
    with pytest.raises(InputError, match="needs an environment"):
        evaluate(Repeats())
    with pytest.raises(InputError, match="does not exist"):
        evaluate(tmp_path / "nothing")


@pytest.mark.parametrize("env", ["Acrobot-v1", "MountainCarContinuous-v0", Echo])
def test_an_environment_with_other_spaces_is_refused_and_both_are_named(env, tmp_path):
    policy = Policy(spaces.Box(-1, 1, (4,)), spaces.Discrete(2))
    policy.save(tmp_path)
    for actor in (policy, tmp_path):
        with pytest.raises(SpaceMismatchError, match=r"has the observation space .*made for Box\(4,\) float32"):
            evaluate(actor, env)
    with pytest.raises(SpaceMismatchError, match=r"action space Discrete\(2\).*made for Discrete\(3\)"):
        evaluate(Policy(spaces.Box(-1, 1, (4,)), spaces.Discrete(3)), "CartPole-v1")


def test_an_action_that_is_not_finite_is_the_policys_fault():
    class Lost:
        def act(self, observations, *, deterministic=False):
            return np.where(np.arange(len(observations)) == 2, np.nan, 0.0)[:, np.newaxis]

    with pytest.raises(ValueError, match=r"policy's action for environment 2 is \[nan\]; want finite numbers"):
        evaluate(Lost(), "Pendulum-v1", episodes=4)


def test_an_evaluation_plays_what_its_class_says():
    class Scored(Echo):
        evaluation_kwargs = types.MappingProxyType({"scale": 2.0})

        def __init__(self, scale=0.0):
            super().__init__()
            self.scale = scale

        def step(self, action):
            observation, reward, *ends = super().step(action)
            return observation, self.scale * reward, *ends

    assert evaluate(Repeats(), Scored, episodes=2).episode_return_mean == 16.0
    assert evaluate(Repeats(), Scored, episodes=2, env_kwargs={"scale": 3.0}).episode_return_mean == 24.0
