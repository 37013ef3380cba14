"""Wrappers that learn while a policy is trained are refused, whatever they say of themselves."""

import functools

import gymnasium
import pytest
from gymnasium.wrappers import NormalizeObservation, NormalizeReward, TimeLimit
from tiny_envs import Counter

from shoal import envs, runtime
from shoal.algorithms import PPO
from shoal.envs import EnvContractError
from shoal.rl import evaluate


class Declared(Counter):
    metadata = {"nondeterministic": True}  # noqa: RUF012


class RunningMeanStd:
    """As Stable-Baselines3's, baselines' and others' classes of that name."""


class OfAnotherLibrary(gymnasium.Wrapper):
    def __init__(self, env, **statistics):
        super().__init__(env)
        vars(self).update(statistics)


def normalized():
    return TimeLimit(NormalizeObservation(Declared()), 3)


def frozen():
    env = NormalizeObservation(Counter())
    env.update_running_mean = False
    return env


REFUSED = {
    "class": functools.partial(NormalizeObservation, Counter()),
    "declared, in the middle": normalized,
    "above a reward's": lambda: NormalizeObservation(NormalizeReward(Declared())),
    "below a reward's": lambda: NormalizeReward(NormalizeObservation(Declared())),
    "another library's": lambda: OfAnotherLibrary(Declared(), obs_rms=RunningMeanStd()),
    "with a name of its own": lambda: OfAnotherLibrary(Declared(), _statistics=RunningMeanStd()),
}


@pytest.mark.parametrize("case", REFUSED)
def test_statistics_of_observations_are_refused(case):
    message = r"the wrapper (NormalizeObservation|OfAnotherLibrary) scales observations by running statistics"
    with pytest.raises(EnvContractError, match=message):
        envs.make(REFUSED[case])
    with pytest.raises(EnvContractError, match=message):
        envs.check(REFUSED[case])
    with pytest.raises(EnvContractError, match=message):
        envs.check(REFUSED[case]())


@pytest.mark.parametrize(
    "make",
    [
        frozen,
        lambda: NormalizeReward(Declared()),
        lambda: OfAnotherLibrary(Declared(), ret_rms=RunningMeanStd(), _reward_statistics=RunningMeanStd()),
        lambda: OfAnotherLibrary(Declared(), obs_rms=RunningMeanStd(), training=False),
    ],
)
def test_what_does_not_change_observations_in_training_is_let_through(make):
    envs.make(make).close()
    envs.check(make)


def test_neither_training_nor_evaluation_takes_them():
    runtime.init(engine="serial")
    with pytest.raises(EnvContractError, match="environment 'normalized': the wrapper NormalizeObservation"):
        PPO(normalized, n_envs=2, n_steps=8, batch_size=8)
    with pytest.raises(EnvContractError, match="environment 'normalized': the wrapper NormalizeObservation"):
        evaluate(None, normalized, episodes=1)
