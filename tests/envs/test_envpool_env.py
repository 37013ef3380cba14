"""What EnvPool alone has, as an environment of gymnasium's."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from shoal import envs
from shoal.envs.envpool_env import EnvPoolEnv
from shoal.runtime import InputError

_TINY, _LARGEST = np.finfo(np.float64).tiny, np.finfo(np.float64).max


class _Pool:
    """As EnvPool's pools of one: its seed is that of when it was made; with bounds that dm_control's numbers break."""

    observation_space = Dict({"place": Box(_TINY, _LARGEST, (2,), np.float64), "room": Box(0, 1, (), np.float64)})
    action_space = Discrete(3)

    def __init__(self, seed):
        self.drawn, self.steps, self.closed = np.random.default_rng(seed), 0, False

    def _seen(self):
        place = self.drawn.normal(size=(1, 2))
        return {"place": place, "room": np.abs(place[:, 0]) % 1}, {"env_id": np.zeros(1, np.int32), "players": {}}

    def reset(self):
        self.steps = 0
        return self._seen()

    def step(self, actions):
        assert actions.shape == (1,)
        self.steps += 1
        observations, info = self._seen()
        over = np.array([self.steps == 5])
        return observations, actions.astype(np.float32), over, ~over & False, info

    def close(self):
        self.closed = True


@pytest.fixture
def pools(monkeypatch):
    made = []

    def make(task, *, seed, num_envs, num_threads, env_type, **settings):
        assert (task, num_envs, num_threads, env_type) == ("Walk-v1", 1, 1, "gymnasium")
        if settings:
            raise TypeError(f"unexpected {', '.join(settings)}")
        made.append(_Pool(seed))
        return made[-1]

    monkeypatch.setitem(sys.modules, "envpool", SimpleNamespace(make=make, list_all_envs=lambda: ["Walk-v1", "Run-v1"]))
    monkeypatch.setattr("shoal.envs.envpool_env.is_installed", lambda module: module == "envpool")
    return made


def test_it_keeps_the_contract_and_closes_its_pools(pools):
    envs.check("EnvPool/Walk-v1")
    assert len(pools) > 2
    assert all(pool.closed for pool in pools)


def test_bounds_that_mean_none_are_left_out(pools):
    space = envs.make("EnvPool/Walk-v1").observation_space
    assert space["place"] == Box(-np.inf, np.inf, (2,), np.float64)
    assert space["room"] == Box(0, 1, (), np.float64)


def test_it_is_described_and_found_again(pools):
    spec = envs.resolve("EnvPool/Walk-v1")
    assert envs.spec_from_json(envs.spec_to_json(spec)) == spec
    assert spec.entry is EnvPoolEnv


def test_what_it_has_not_is_told_with_the_nearest(pools):
    with pytest.raises(InputError, match=r"EnvPool has no environment 'Wolk-v1'\. Did you mean 'Walk-v1'"):
        envs.make("EnvPool/Wolk-v1")
    with pytest.raises(InputError, match=r"EnvPool cannot make 'Walk-v1': unexpected gravity"):
        envs.make("EnvPool/Walk-v1", gravity=1)
    with pytest.raises(
        InputError, match=r"unknown environment 'Walk-v1'\. Here it is 'EnvPool/Walk-v1', as EnvPool has"
    ):
        envs.resolve("Walk-v1")


def test_without_envpool_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(InputError, match=r"the package 'envpool' is not installed: pip install \"shoal\[envpool\]\""):
        envs.make("EnvPool/Walk-v1")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["Catch-v0", "HumanoidRun-v1"])
def test_the_real_one(task):
    pytest.importorskip("envpool", reason="the extra envpool is not installed")
    envs.check(f"EnvPool/{task}")
