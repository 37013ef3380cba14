"""What simulators outside live through becomes rollouts: session by session, cut where the rollout ends."""

import threading

import numpy as np
import pytest
import torch
from gymnasium import spaces
from scripted import ACTIONS, OBSERVATIONS, observation, play, simulator_worker

from shoal import runtime
from shoal.algorithms import DQN, PPO, DQNConfig, PPOConfig
from shoal.envs import ServerGoneError
from shoal.rl import Clock, ModelSpec, build_model
from shoal.rl.collect.worker import GroupProgress
from shoal.rl.data.returns import generalized_advantages


@pytest.fixture(autouse=True)
def _serial():
    runtime.init(engine="serial")


def weights_of(kind, observation_space=OBSERVATIONS, action_space=ACTIONS):
    model = build_model(ModelSpec(kind, observation_space, action_space, {}), seed=3)
    return model, model.get_weights()


def ppo(rows, n_envs=1):
    return simulator_worker(
        PPO, PPOConfig(n_steps=rows // n_envs, batch_size=2), "actor_critic", n_envs=n_envs, group_size=n_envs
    )


def collect(worker, weights, rollouts=0, version=5):
    rollout, _, stats = worker.collect(0, GroupProgress(rollouts), weights, version, Clock(0, 1000))
    return rollout, stats


def numbered(rollout):
    """(episode, step) of the observations of each row."""
    return [tuple(row) for row in rollout.steps["observations"][:, 0].astype(int).tolist()]


def finals(rollout):
    columns = rollout.finals["rows"].tolist(), rollout.finals["observations"].astype(int).tolist()
    return {row: tuple(seen) for row, seen in zip(*columns, strict=True)}


def values(model, seen):
    with torch.inference_mode():
        return float(model.values(model.encode(np.array([seen], np.float32)))[0])


def test_episodes_and_their_ends_and_bootstraps():
    model, weights = weights_of("actor_critic")
    told = []

    def simulate():
        play(client, 1, 3, terminated=True)
        play(client, 2, 2)
        with pytest.raises(ServerGoneError, match="the training has ended"):
            play(client, 3, 9)
        told.append(True)

    with ppo(7) as (worker, client, beside):
        beside(simulate)
        rollout, stats = collect(worker, weights)
    assert told
    steps = rollout.steps
    assert rollout.shape == (7, 1)
    assert rollout.version == 5
    assert numbered(rollout) == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (3, 0), (3, 1)]
    assert steps["rewards"][:, 0].tolist() == [0, 1, 2, 0, 1, 0, 1]
    assert steps["terminations"][:, 0].tolist() == [False, False, True, False, False, False, False]
    assert steps["truncations"][:, 0].tolist() == [False, False, False, False, True, False, True]
    assert finals(rollout) == {2: (1, 3), 4: (2, 2), 6: (3, 2)}
    following = [values(model, after) for after in ((1, 1), (1, 2))]
    following += [0.0, *(values(model, after) for after in ((2, 1), (2, 2), (3, 1), (3, 2)))]
    np.testing.assert_allclose(steps["next_values"][:, 0], following, rtol=1e-5)
    assert [(episode.return_, episode.length) for episode in stats.episodes] == [(3.0, 3), (1.0, 2)]
    assert not {"outputs"} & set(steps)


def test_an_episode_goes_on_in_the_next_rollout_and_acts_with_its_weights():
    _, weights = weights_of("actor_critic")
    versions = []

    def simulate():
        running = client.start()
        for step in range(6):
            running.act(observation(1, step), float(step > 0))
            versions.append(running.version)
        running.end(observation(1, 6), 1.0, terminated=True)

    with ppo(3) as (worker, client, beside):
        beside(simulate)
        first, _ = collect(worker, weights, version=1)
        second, stats = collect(worker, weights, rollouts=1, version=2)
    assert numbered(first) == [(1, 0), (1, 1), (1, 2)]
    assert finals(first) == {2: (1, 3)}
    assert numbered(second) == [(1, 3), (1, 4), (1, 5)]
    assert second.steps["terminations"][-1, 0]
    assert not second.steps["truncations"].any()
    assert versions == [1, 1, 1, 2, 2, 2]
    assert stats.episodes[0].return_ == 6


def test_one_simulator_gives_the_same_rollout_every_time():
    found = []
    for _ in range(2):
        _, weights = weights_of("actor_critic")
        with ppo(8) as (worker, client, beside):
            beside(lambda client=client: [play(client, 1, 5), play(client, 2, 3)])
            rollout, _ = collect(worker, weights)
            found.append({name: column.tobytes() for name, column in rollout.steps.items()})
    assert found[0] == found[1]


def test_several_sessions_lie_one_after_the_other():
    _, weights = weights_of("actor_critic")
    together = threading.Barrier(3)

    def simulate(episode):
        running = client.start()
        for step in range(4):
            together.wait()
            running.act(observation(episode, step), float(step > 0) * episode)
        running.end(observation(episode, 4), float(episode), terminated=True)

    with ppo(12, n_envs=3) as (worker, client, beside):
        for episode in (1, 2, 3):
            beside(simulate, episode)
        rollout, stats = collect(worker, weights)
    for start in (0, 4, 8):
        episode = numbered(rollout)[start][0]
        assert numbered(rollout)[start : start + 4] == [(episode, step) for step in range(4)]
        assert rollout.steps["rewards"][start : start + 4, 0].tolist() == [episode] * 4
        assert finals(rollout)[start + 3] == (episode, 4)
    assert sorted(episode.return_ for episode in stats.episodes) == [4, 8, 12]
    advantages = generalized_advantages(
        r_t=rollout.steps["rewards"],
        discount_t=np.where(rollout.steps["terminations"], 0, 0.9).astype(np.float32),
        continues_t=(~(rollout.steps["terminations"] | rollout.steps["truncations"])).astype(np.float32),
        v_tm1=rollout.steps["values"],
        v_t=rollout.steps["next_values"],
        lambda_=1.0,
    )
    for start in (0, 4, 8):  # nothing flows from one session into the other
        episode = numbered(rollout)[start][0]
        returns = episode * (1 + 0.9 + 0.9**2 + 0.9**3)
        assert advantages[start, 0] == pytest.approx(returns - rollout.steps["values"][start, 0], rel=1e-4)


def test_what_the_simulator_chose_itself_is_left_out_by_those_that_learn_from_their_own_policy(caplog):
    _, weights = weights_of("actor_critic")
    with ppo(4) as (worker, client, beside):
        beside(lambda: play(client, 1, 6, terminated=True, logged=(2, 3)))
        rollout, stats = collect(worker, weights)
    assert numbered(rollout) == [(1, 0), (1, 1), (1, 4), (1, 5)]
    assert finals(rollout) == {1: (1, 2), 3: (1, 6)}
    assert rollout.steps["truncations"][:, 0].tolist() == [False, True, False, False]
    assert stats.episodes[0].length == 6
    assert stats.metrics["simulators/left_out_steps"] == 2
    assert "ppo learns from its own policy's actions only" in caplog.text


def test_and_learned_from_by_those_that_do_not_care():
    _, weights = weights_of("q_network")
    config = DQNConfig(train_freq=4, learning_starts=0, buffer_size=100)
    with simulator_worker(DQN, config, "q_network", n_envs=1) as (worker, client, beside):
        beside(lambda: play(client, 1, 4, logged=(1, 2)))
        rollout, _ = collect(worker, weights)
    assert numbered(rollout) == [(1, 0), (1, 1), (1, 2), (1, 3)]
    assert rollout.steps["actions"][1:3, 0].tolist() == [1, 1]
    assert rollout.next_observations()[:, 0].astype(int).tolist() == [[1, 1], [1, 2], [1, 3], [1, 4]]


def test_logged_actions_are_what_the_model_would_have_given():
    for kind, space in (
        ("gaussian_actor_q", spaces.Box(np.float32([-2, 0]), np.float32([2, 10]))),
        ("actor_critic", spaces.Box(-np.inf, np.inf, (2, 2), np.float32)),
        ("q_network", spaces.Discrete(4, start=-1)),
        ("actor_critic", spaces.MultiDiscrete([2, 3], start=[1, -1])),
        ("actor_critic", spaces.Dict({"a": spaces.Discrete(3, start=1), "b": spaces.Box(-np.inf, np.inf, (2,))})),
    ):
        model = build_model(ModelSpec(kind, OBSERVATIONS, space, {}), seed=0)
        with torch.inference_mode():
            rows = model.encode(np.zeros((5, 2), np.float32))
            noise = torch.from_numpy(model.draw_noise(np.random.default_rng(0), (5,)))
            outputs = model(rows)[0] if kind == "actor_critic" else model.outputs(rows)
            actions = model.choose(outputs, noise).numpy()
        back = model.own_actions(model.environment_actions(actions))
        assert (back.dtype, back.shape) == (actions.dtype, actions.shape)
        np.testing.assert_allclose(back, actions, rtol=1e-4, atol=1e-6)


def test_a_simulator_that_vanishes_costs_the_step_that_it_did_not_tell_of():
    _, weights = weights_of("actor_critic")

    def simulate():
        vanishing = client.start()
        for step in range(3):
            vanishing.act(observation(1, step), float(step > 0))
        play(client, 2, 4, terminated=True)

    with ppo(6) as (worker, client, beside):
        beside(simulate)
        rollout, stats = collect(worker, weights)
    assert numbered(rollout) == [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (2, 3)]
    assert finals(rollout) == {1: (1, 2), 5: (2, 4)}
    assert rollout.steps["truncations"][1, 0]
    assert len(stats.episodes) == 1
