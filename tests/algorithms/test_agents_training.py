"""Several agents: trained by the algorithms for one, with the same weights whatever runs them."""

import functools
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from agents_envs import Crowd, Pair, Rounds
from datasets import episode, write_dataset
from gymnasium import spaces

from shoal import ALGORITHMS, BC, DQN, PPO, evaluate, runtime
from shoal.envs import describe
from shoal.rl import Callback, Learner
from shoal.rl.agents.mapping import map_agents
from shoal.runtime import InputError

COMMON = {"preset": "none", "n_envs": 6, "group_size": 2, "seed": 5, "n_steps": 24, "batch_size": 32, "n_epochs": 1,
          "learning_rate": 0.003}  # fmt: skip
STEPS = 4 * 6 * 24


class Kill(Callback):
    """Kills actors of the training after its second iteration; they come back."""

    def on_iteration_end(self, training, report):
        if report.iteration == 2:
            runtime.kill(training.actors.workers.actors[0], no_restart=False)
            runtime.kill(training.actors.learner.actor, no_restart=False)


class StopAt(Callback):
    """Ends a training after so many steps; its schedules are those of the whole."""

    def __init__(self, timesteps):
        self.timesteps = timesteps

    def on_iteration_end(self, training, report):
        return report.timesteps < self.timesteps


class Told(Callback):
    """Keeps the reports of iterations."""

    def __init__(self):
        self.reports = []

    def on_iteration_end(self, training, report):
        self.reports.append(report)


class DiesOnce(Crowd):
    """Kills its process at its 150th step, once. (The check in the driver takes 128.)"""

    def __init__(self, marker):
        super().__init__(reborn=True)
        self._marker, self._total = Path(marker), 0

    def step(self, actions):
        self._total += 1
        if self._total == 150 and not self._marker.exists():
            self._marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(actions)


def train(env=Crowd, workers=1, callbacks=(), timesteps=STEPS, **changes):
    with PPO(env, **{**COMMON, "env_kwargs": {"reborn": True}, "workers": workers, **changes}) as ppo:
        return ppo.train(timesteps, callbacks=callbacks).weights_sha256


@functools.cache
def serially():
    runtime.shutdown()
    runtime.init(engine="serial")
    digest = train()
    runtime.shutdown()
    return digest


@pytest.fixture
def expected():
    """Hash of the weights with one worker on the serial engine."""
    return serially()


def test_workers_and_learner_that_are_killed(expected):
    runtime.shutdown()
    runtime.init(engine="serial")
    assert train(workers=3, callbacks=[Kill()]) == expected


@pytest.mark.slow
def test_processes_of_workers_and_learner_that_are_killed(expected, processes):
    assert train(workers=3, callbacks=[Kill()]) == expected


@pytest.mark.slow
def test_agents_that_take_turns_have_the_same_weights_too(processes, tmp_path):
    """Actions wait for their next turn while actors die, and in checkpoints."""
    settings = COMMON | {"n_steps": 15, "batch_size": 30}
    with PPO(Rounds, **settings) as ppo:
        calm = ppo.train(8 * 90).weights_sha256
    with PPO(Rounds, **settings, workers=3) as ppo:
        assert ppo.train(8 * 90, callbacks=[Kill()]).weights_sha256 == calm
    with PPO(Rounds, **settings) as ppo:
        ppo.train(3 * 90)
        ppo.save(tmp_path / "run")
    with PPO.load(tmp_path / "run") as ppo:
        assert ppo.train(5 * 90).weights_sha256 == calm


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers_on_any_engine(expected, engine, workers):
    assert train(workers=workers) == expected


def self_play(folder, workers, callbacks=()):
    """Weights and league table of a training against earlier selves, of seven rollouts of three groups."""
    settings = COMMON | {"n_steps": 14, "n_epochs": 1, "league_freq": 84, "league_latest": 0.3}
    with PPO(Rounds, **settings, workers=workers) as ppo:
        digest = ppo.train(7 * 84, callbacks=callbacks).weights_sha256
        ppo.save(folder)
    return digest, json.loads((folder / "league" / "table.json").read_text())


def test_self_play_with_actors_that_are_killed(alone, tmp_path):
    calm, table = self_play(tmp_path / "calm", 1)
    assert sum(entry.get("games", 0) for entry in table["table"]) > 10
    assert self_play(tmp_path / "killed", 3, [Kill()]) == (calm, table)


@pytest.mark.slow
def test_self_play_on_processes(processes, tmp_path):
    """Any number of workers, and some that are killed while they play against a snapshot."""
    expected = self_play(tmp_path / "1", 1)
    for workers, callbacks in ((2, [Kill()]), (3, ()), (4, [Kill()])):
        assert self_play(tmp_path / f"{workers}", workers, callbacks) == expected


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"league_freq": 144, "league_latest": 0.3}], ids=["plain", "self-play"])
def test_a_worker_that_dies_in_the_middle_of_a_rollout(processes, tmp_path, changes):
    (tmp_path / "exists").touch()
    calm, killed = (
        train(DiesOnce, 2, timesteps=2 * STEPS, env_kwargs={"marker": str(tmp_path / name)}, **changes)
        for name in ("exists", "is made at death")
    )
    assert (tmp_path / "is made at death").exists()
    assert calm == killed


def test_a_training_that_is_resumed_and_what_is_measured(expected, tmp_path):
    runtime.shutdown()
    runtime.init(engine="serial")
    told = Told()
    with PPO(Crowd, **COMMON, env_kwargs={"reborn": True}) as first:
        first.train(STEPS // 2, callbacks=[told])
        first.save(tmp_path / "run")
    with PPO.load(tmp_path / "run") as second:
        assert second.train(STEPS // 2).weights_sha256 == expected
    report = told.reports[0]
    total = sum(report.metrics[f"agents/{agent}/ep_rew_mean"] for agent in "abc")
    assert total == pytest.approx(np.mean([episode.return_ for episode in report.episodes]))
    found = evaluate(tmp_path / "run", episodes=3)
    assert sum(found.agents.values()) == pytest.approx(found.episode_return_mean)
    assert found.lengths == (12, 12, 12)


@pytest.fixture
def alone():
    """The serial engine."""
    runtime.shutdown()
    runtime.init(engine="serial")


def final_weights(policies, env=Crowd, algorithm=PPO, timesteps=STEPS, **changes):
    """Each policy's weights after a training on the serial engine."""
    runtime.shutdown()
    runtime.init(engine="serial")
    settings = {**COMMON, "policies": policies, **changes} if algorithm is PPO else {"policies": policies, **changes}
    with algorithm(env, **settings) as made:
        made.train(timesteps)
        joint = made.policy
    return {name: joint.policy(name).get_weights() for name in joint.spec.policies}, joint


class Free(Crowd):
    """The action is a number between −1 and 1, in three equal parts."""

    def action_space(self, agent):
        return spaces.Box(-1, 1, (1,), np.float32)

    def step(self, actions):
        return super().step({agent: int(np.clip((action[0] + 1) * 1.5, 0, 2)) for agent, action in actions.items()})


FEW_STEPS = {
    "ppo": {"n_steps": 24, "batch_size": 32, "n_epochs": 1},
    **{name: {"n_steps": 24} for name in ("a2c", "impala", "appo")},
    **{name: {"n_delta": 2, "noise_table_size": 10_000, "learning_rate": 0.5} for name in ("es", "ars")},
}
REPLAYED = {"learning_starts": 8, "train_freq": 8, "gradient_steps": 2, "batch_size": 4, "buffer_size": 100}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, one in ALGORITHMS.items() if one.trains_agents])
def test_what_trains_one_agent_trains_many(alone, name):
    """All that `shoal algorithms` says so of, by a policy for two agents and one that is frozen."""
    algorithm = ALGORITHMS[name]
    if "language_model" in algorithm.models:
        pytest.skip("a task between texts has one agent")
    settings = {"preset": "none", "n_envs": 2, "policy_kwargs": {"net_arch": [4]}, "env_kwargs": {"reborn": True}}
    settings |= {"policies": {"b": "still", "*": "moves"}, "frozen_policies": "still"}
    with algorithm(Free if name in ("td3", "ddpg") else Crowd, **settings, **FEW_STEPS.get(name, REPLAYED)) as made:
        before = {policy: made.policy.policy(policy).get_weights() for policy in ("still", "moves")}
        made.train(240)
        after = {policy: made.policy.policy(policy).get_weights() for policy in before}
    assert after["still"].tobytes() == before["still"].tobytes()
    assert after["moves"].tobytes() != before["moves"].tobytes()


def test_what_learns_from_datasets_says_that_they_are_of_one_agent(alone, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    played = [episode(spaces.Discrete(2), spaces.Discrete(2), 4, seed=0)]
    of_one = write_dataset("one/agent-v0", played, spaces.Discrete(2), spaces.Discrete(2))
    with pytest.raises(InputError, match="environment 'Crowd' has several agents, but bc learns from what one of them"):
        BC(Crowd, dataset=of_one)


def test_agents_with_different_spaces_have_policies_of_their_own(alone):
    with pytest.raises(InputError, match="for 'speaker' and 'listener', but their observation spaces differ"):
        PPO(Pair, preset="none")
    with PPO(Pair, policies="separate", preset="none", n_steps=16, batch_size=16, n_epochs=1) as ppo:
        assert list(ppo.model_spec.policies) == ["speaker", "listener"]
        told = Told()
        ppo.train(128, callbacks=[told])
    assert {"policies/speaker/train/loss", "policies/listener/train/loss"} <= set(told.reports[0].metrics)


def test_who_acts_for_whom(alone):
    agents = ["adversary_0", "adversary_1", "agent_0"]
    assert map_agents("separate", agents) == dict(zip(agents, agents, strict=True))
    by_pattern = {"adversary_0": "first", "adversary_1": "bad", "agent_0": "good"}
    assert map_agents('{"adversary_0": "first", "adversary_*": "bad", "*": "good"}', agents) == by_pattern
    assert set(map_agents(lambda agent: agent.partition("_")[0], agents).values()) == {"adversary", "agent"}
    assert map_agents("posixpath:basename", ["team/one"]) == {"team/one": "one"}
    for wrong, words in [
        ({"adversary_*": "bad"}, "names no policy for agent 'agent_0'"),
        ("together", "must be 'shared', 'separate', a dict"),
        ("posixpath:nothing", "cannot be imported"),
        (len, "gave 11 for agent 'adversary_0'"),
    ]:
        with pytest.raises(InputError, match=words):
            map_agents(wrong, agents)
    with pytest.raises(InputError, match="policies is 'separate', but environment 'CartPole-v1' has one agent"):
        PPO("CartPole-v1", policies="separate")
    with pytest.raises(InputError, match=r"frozen_policies names a policy 'd', which there is not. Known: a, b, c"):
        PPO(Crowd, policies="separate", frozen_policies="d")
    with pytest.raises(InputError, match="frozen_policies holds all policies"):
        PPO(Crowd, policies="separate", frozen_policies="a,b,c")


def test_the_agents_that_act_are_given_as_pettingzoo_has_them():
    with PPO(Crowd, engine="serial", policies={"a": "one", "*": "other"}, **COMMON) as ppo:
        policy, env = ppo.policy, Crowd()
    seen, _ = env.reset(seed=3)
    assert set(seen) == {"a", "b"}
    while env.agents:  # c is born, and all die
        actions = policy.act(seen, deterministic=True)
        assert actions == {agent: policy.policy("one" if agent == "a" else "other").act(seen[agent], deterministic=True)
                           for agent in env.agents}  # fmt: skip
        seen, *_ = env.step(actions)
        seen = {agent: seen[agent] for agent in env.agents}
    with pytest.raises(ValueError, match=r"there is no agent 'd'\. Known: a, b, c"):
        policy.act({"d": np.zeros(3, np.float32)})


def test_remembering_agents_are_given_so_too():
    network = {"memory": "gru", "memory_kwargs": {"units": 4}, "sequence_length": 8}
    with PPO(Crowd, engine="serial", policy_kwargs=network, **COMMON) as ppo:
        policy = ppo.policy
    seen = {"a": np.ones(3, np.float32), "c": np.ones(3, np.float32)}
    actions, memory = policy.act_with_memory(seen, episode_start=True, deterministic=True)
    assert set(actions) == {"a", "c"}
    [(first, second, third)] = memory.values()
    assert first.any()
    assert (first == third).all()
    assert not second.any()  # b has not acted


def test_a_policy_that_is_frozen_or_never_acted_stays_bit_for_bit(tmp_path):
    """Agent c is born at tick 3, after the only iteration."""
    settings = {"n_steps": 2, "batch_size": 4, "timesteps": 12}
    _, first = final_weights("separate", **settings)
    first.save(tmp_path / "first")
    after, _ = final_weights(
        "separate", **settings, frozen_policies="b", initial_policies={name: str(tmp_path / "first") for name in "abc"}
    )
    before = {name: first.policy(name).get_weights() for name in "abc"}
    assert before["b"].tobytes() == after["b"].tobytes()
    assert before["c"].tobytes() == after["c"].tobytes()
    assert before["a"].tobytes() != after["a"].tobytes()


class Rich(Crowd):
    """The rewards of agent a are a hundred times larger."""

    def step(self, actions):
        observations, rewards, *rest = super().step(actions)
        return observations, rewards | {"a": 100 * rewards.get("a", 0.0)}, *rest


def test_one_policys_rewards_do_not_move_anothers_advantages():
    plain, _ = final_weights("separate", timesteps=STEPS // 2)
    rich, _ = final_weights("separate", Rich, timesteps=STEPS // 2)
    assert plain["a"].tobytes() != rich["a"].tobytes()
    assert plain["b"].tobytes() == rich["b"].tobytes()
    assert plain["c"].tobytes() == rich["c"].tobytes()


@pytest.mark.slow
def test_policies_begin_with_those_that_were_saved(tmp_path):
    weights, joint = final_weights("separate")
    joint.save(tmp_path / "saved")
    joint.policy("a").save(tmp_path / "alone")
    where = {"x": f"{tmp_path / 'saved'}:b", "y": str(tmp_path / "alone")}
    found, _ = final_weights({"a": "x", "*": "y"}, initial_policies=where, frozen_policies="x")
    assert found["x"].tobytes() == weights["b"].tobytes()
    assert found["y"].tobytes() != weights["a"].tobytes()  # it has learned on from there
    with pytest.raises(InputError, match="there is no policy or agent 'x'"):
        final_weights({"a": "x", "*": "y"}, initial_policies={"x": str(tmp_path / "saved")})
    with pytest.raises(InputError, match="that is another model"):
        final_weights("shared", initial_policies={"shared": where["y"]}, policy_kwargs={"net_arch": [8]})


OFF_POLICY = {
    "preset": "none", "n_envs": 6, "group_size": 2, "seed": 5, "train_freq": 4, "learning_starts": 100,
    "batch_size": 16, "n_step": 3, "policies": "separate", "buffer_size": 150,
}  # fmt: skip


@pytest.mark.usefixtures("one_cycle_each")
def test_schedules_count_steps_of_the_environment_not_of_its_agents(alone, monkeypatch):
    """The target network is copied once in 20 steps, and ε is 0 where the training ends, not in a third of it."""
    copies, told = [], Told()
    monkeypatch.setattr(Learner, "update_target", lambda learner, *_: copies.append(learner.iteration))
    settings = OFF_POLICY | {"n_envs": 2, "policies": "shared", "target_update_interval": 20, "learning_starts": 40}
    with DQN(Crowd, **settings, exploration_fraction=1.0, exploration_final_eps=0.0) as dqn:
        dqn.train(96, callbacks=[told])
    assert copies == [2, 4, 7, 9]  # of iterations of 8 steps those that reach 20, 40, 60, 80
    assert [round(report.metrics["rollout/exploration_rate"], 3) for report in told.reports[::4]] == [
        0.917,
        0.583,
        0.25,
    ]
    assert ["train/loss" in report.metrics for report in told.reports[3:6]] == [False, True, True]


@pytest.mark.slow
@pytest.mark.usefixtures("one_cycle_each")
def test_replay_buffers_of_several_policies_come_back(processes):
    """The learner is killed twice, after some of what the buffers held was dropped."""

    class KillTwice(Callback):
        def on_iteration_end(self, training, report):
            if report.iteration in (48, 95):
                runtime.kill(training.actors.learner.actor, no_restart=False)

    hashes = []
    for workers, callbacks in ((1, []), (2, [KillTwice()])):
        with DQN(Crowd, **OFF_POLICY, prioritized_replay=True, workers=workers) as dqn:
            hashes.append(dqn.train(2400, callbacks=callbacks).weights_sha256)
    assert hashes[0] == hashes[1]


@pytest.mark.usefixtures("one_cycle_each")
@pytest.mark.parametrize(
    ("env", "stops"),
    [
        (Crowd, [60]),
        pytest.param(Crowd, [1200, 2400], marks=pytest.mark.slow),
        pytest.param(Rounds, [300], marks=pytest.mark.slow),
    ],
)
def test_replay_buffers_of_several_policies_are_in_checkpoints(alone, tmp_path, env, stops):
    """Before and after some of what they held was dropped; policy a is frozen, so it has none."""
    settings = OFF_POLICY | {"learning_starts": 20, "prioritized_replay": True, "frozen_policies": "a"}
    with DQN(env, **settings) as dqn:
        whole = dqn.train(stops[-1] + 120).weights_sha256
    with DQN(env, **settings, save_replay=True) as dqn:
        dqn.train(stops[-1] + 120, callbacks=[StopAt(stops[0])])
        dqn.save(tmp_path / "0")
    for index, stop in enumerate(stops[1:]):  # resumed, and saved again
        with DQN.load(tmp_path / f"{index}") as dqn:
            dqn.train(stops[-1] + 120 - dqn.timesteps, callbacks=[StopAt(stop)])
            dqn.save(tmp_path / f"{index + 1}")
    with DQN.load(tmp_path / f"{len(stops) - 1}") as dqn:
        assert dqn.train(stops[-1] + 120 - dqn.timesteps).weights_sha256 == whole


class WithState(Pair):
    """Tells what was meant, which only critics may see."""

    def __init__(self):
        super().__init__()
        self.state_space = spaces.Box(0, 3, (2,), np.float32)

    def state(self):
        return np.array([self._meant, self._symbol], np.float32)


def test_a_central_critic_is_a_switch(tmp_path):
    runtime.shutdown()
    runtime.init(engine="serial")
    settings = COMMON | {"policies": "separate"}
    with PPO(WithState, **settings, centralized_critic="state") as ppo:
        ppo.train(144)
        ppo.save(tmp_path / "run")
        alone = ppo.policy.policy("listener")
    assert describe(alone.observation_space) == "Box(4,) float32 in [0, 1]"  # it acts without the others
    assert alone.act(np.eye(4, dtype=np.float32)[0]) in (0, 1, 2)
    assert evaluate(tmp_path / "run", episodes=2).episodes == 2
    assert evaluate(tmp_path / "run", Pair, episodes=2).episodes == 2  # which tells no state
    with PPO.load(tmp_path / "run") as again:
        assert again.train(144).timesteps == 288
    with pytest.raises(InputError, match="has no state_space, so a critic cannot see its state"):
        PPO(Crowd, **COMMON, centralized_critic="state")
    with pytest.raises(InputError, match="centralized_critic is set, but environment 'CartPole-v1' has one agent"):
        PPO("CartPole-v1", centralized_critic="observations")
