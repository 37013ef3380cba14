"""Environments of several agents as gymnasium environments, and as rows (environment, agent)."""

import functools
import importlib
import warnings

import numpy as np
import pettingzoo
import pytest
from agents_envs import LIFE, Crowd, Pair, Rounds

from shoal.envs import EnvContractError, EnvGroup, JointSpace, Seats, check, choose_recovery, codec, describe, resolve
from shoal.envs.agents import Turns
from shoal.runtime import InputError

GAMES = ("tictactoe", "connect_four")


def pettingzoos_tests():
    """PettingZoo's own tests; importing them imports a game in a way that they deprecate."""
    pytest.importorskip("pygame", reason="pettingzoo.test imports it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return importlib.import_module("pettingzoo.test")


@pytest.mark.parametrize("env", [Crowd, Pair])
def test_environments_of_these_tests_are_what_pettingzoo_wants(env):
    zoo = pettingzoos_tests()
    zoo.parallel_api_test(env(), 40)
    zoo.parallel_seed_test(env, 20)
    check(env)


def test_environments_whose_agents_take_turns_become_what_pettingzoo_wants():
    zoo = pettingzoos_tests()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "We recommend agents to be named|Environment has not defined a render")
        zoo.api_test(Rounds(), 40)
    check(Rounds)
    for make in (Rounds, *(functools.partial(pettingzoo.make, "aec", f"classic/{game}-v3") for game in GAMES)):
        zoo.parallel_api_test(Turns(make()), 40)
        zoo.parallel_seed_test(lambda make=make: Turns(make()), 20)
    for game in GAMES:
        check(f"{game}_v3")


def test_a_turn_earns_all_agents_something_and_ends_whose_it_does():
    env = Turns(Rounds())
    env.reset(seed=0)
    told = [env.step(dict.fromkeys("abc", 0)) for _ in Rounds.ORDER]
    for turn, (observations, rewards, terminations, truncations, _) in enumerate(told):
        alive = "abc" if turn < Rounds.DEATH else "ac"
        assert rewards == {agent: Rounds.earned(agent, turn) for agent in alive}
        assert terminations == {agent: agent == "b" and turn == Rounds.DEATH - 1 for agent in alive}
        assert set(truncations.values()) == {turn == len(Rounds.ORDER) - 1}
        assert all(observations[agent][0] == turn + 1 for agent in alive)
    turns = [next(agent for agent, info in infos.items() if info.get("acts")) for *_, infos in told[:-1]]
    assert "".join(turns) == Rounds.ORDER[1:]
    assert env.agents == []


@pytest.mark.parametrize(
    ("rewards", "text"),
    [
        ({"speaker": None, "listener": 1.0}, r"reward None of type NoneType; wanted a float \(of agent 'speaker'\)"),
        ({"speaker": 0, "listener": np.nan}, r"reward nan; wanted a finite float \(of agent 'listener'\)"),
        ({"speaker": 0, "listener": 10**400}, r"too large for a float; wanted a finite float \(of agent 'listener'\)"),
    ],
)
def test_a_reward_that_does_not_fit_is_told_with_its_agent(monkeypatch, rewards, text):
    step = Pair.step
    monkeypatch.setattr(Pair, "step", lambda self, actions: (step(self, actions)[0], rewards, *step(self, actions)[2:]))
    with pytest.raises(EnvContractError, match=text):
        check(Pair)


def group_of(env, size=2, **kwargs):
    return EnvGroup(resolve(env, kwargs), size=size, first_index=0, run_seed=3)


def test_rows_of_agents_that_are_not_there_are_no_transitions():
    acted, ended, dead = [], [], []
    with group_of(Crowd) as group:
        seats = Seats(group.observation_space, ("a", "b", "c"), 2)
        joint = np.zeros(2, codec(group.action_space).dtype)
        group.reset()
        for _ in range(12):
            before = group.observations
            step = seats.step(before, group.step(joint))
            acted.append(~step.resets)
            ended.append((step.terminations, step.truncations & ~step.resets))
            dead.append(step.rewards[step.resets])
    there = np.array([[any(s <= t < e for s, e in LIFE[agent]) for agent in "abc"] for t in range(12)])
    np.testing.assert_array_equal(acted, np.concatenate([there, there], axis=1))
    assert np.argwhere([terminations for terminations, _ in ended]).tolist() == [[3, 1], [3, 4], [9, 2], [9, 5]]
    assert np.argwhere([truncations for _, truncations in ended]).tolist() == [[11, 0], [11, 3]]
    assert not np.concatenate(dead).any()


def test_returns_are_told_of_each_agent_and_of_all_together():
    with group_of(Crowd, 1) as group:
        group.reset()
        total, space = np.zeros(3), group.observation_space
        for _ in range(12):
            step = group.step(np.zeros(1, codec(group.action_space).dtype))
            total += step.final_observations["rewards"][0]
        assert step.episodes[0].return_ == total.sum() > 0
        assert step.final_observations["returns"][0].tolist() == total.tolist()
        assert step.observations["returns"][0].tolist() == [0, 0, 0]
    assert isinstance(space, JointSpace)
    assert list(space.agent_spaces) == ["a", "b", "c"]


def test_an_environment_of_agents_is_put_back_exactly():
    assert choose_recovery(resolve(Crowd), 0, 0).replayable
    with group_of(Crowd) as one, group_of(Crowd) as other:
        one.reset()
        joint = np.zeros(2, codec(one.action_space).dtype)
        for _ in range(7):
            one.step(joint)
        state = one.state()
        other.restore(state)
        for _ in range(9):
            first, second = one.step(joint), other.step(joint)
            assert first.final_observations.tobytes() == second.final_observations.tobytes()


def test_a_time_limit_cuts_off_all_who_are_there():
    with group_of(Crowd, 1, max_episode_steps=5) as group:
        seats = Seats(group.observation_space, ("a", "b", "c"), 1)
        group.reset()
        for _ in range(5):
            before = group.observations
            step = group.step(np.zeros(1, codec(group.action_space).dtype))
        rows = seats.step(before, step)
    assert rows.truncations.tolist() == [True, True, True]
    assert rows.resets.tolist() == [False, True, False]  # b has died before


def test_names_of_pettingzoos_environments():
    assert resolve("tictactoe_v3").id == resolve("classic/tictactoe_v3").id == "classic/tictactoe_v3"
    with pytest.raises(InputError, match="nothing_v3"):
        resolve("nothing_v3")
    with pytest.raises(InputError, match="has no environment 'classic/nothing_v3'"):
        resolve("classic/nothing_v3").make()


def test_what_an_environment_of_agents_must_say():
    class Unborn(Crowd):
        def __init__(self):
            super().__init__()
            self.possible_agents = []

    class Silent(Crowd):
        def step(self, actions):
            return {}, *super().step(actions)[1:]

    with pytest.raises(EnvContractError, match="no possible_agents: list there every agent that may ever be born"):
        check(Unborn)
    with pytest.raises(EnvContractError, match=r"step\(\) returned no observation of 'a', which is in agents"):
        check(Silent)
    assert "agents" in describe(resolve(Pair).make().observation_space)
