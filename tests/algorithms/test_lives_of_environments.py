"""Environments in a training: closed as often as made, with arguments and generators of their own, and never stuck."""

import contextlib
import os
import pathlib
import random
import time

import numpy as np
import pytest
from learning_envs import Walk

from shoal import runtime
from shoal.algorithms import PPO
from shoal.envs import EnvContractError, EnvTimeoutError

SETTINGS = {"n_envs": 4, "group_size": 1, "n_steps": 16, "batch_size": 32, "n_epochs": 1, "seed": 0, "preset": "none"}


class Rented(Walk):
    """Leaves a file when it is made and another one when it is closed; fails when it is told."""

    def __init__(self, folder, options, fails_at=None):
        super().__init__()
        assert options.pop("size") == [1, 2]  # takes its own copy apart
        self.path = pathlib.Path(folder) / f"{os.getpid()}-{time.time_ns()}-{random.getrandbits(60)}"
        self.path.touch()
        self.count, self.fails_at = 0, fails_at

    def step(self, action):
        self.count += 1
        if self.count == self.fails_at:
            raise ZeroDivisionError("no fuel")
        return super().step(action)

    def close(self):
        self.path.with_suffix(".closed").touch()


class Drawing(Walk):
    """Its rewards come from a generator that the whole process shares."""

    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, reward + np.random.normal(), *rest


class Stuck(Walk):
    """Does not come back to Python from its 150th step on."""

    count = 0

    def step(self, action):
        self.count += 1
        while self.count >= 150:
            with contextlib.suppress(BaseException):  # as code that is not Python's
                time.sleep(1000)
        return super().step(action)


def train(env, steps=256, **changes):
    with PPO(env, **{**SETTINGS, **changes}) as ppo:
        return ppo.train(steps)


def made_and_closed(folder):
    files = list(folder.iterdir())
    return len([file for file in files if not file.suffix]), len([file for file in files if file.suffix])


@pytest.mark.parametrize("fails_at", [None, 150])
def test_each_one_is_closed_once(engine, tmp_path, fails_at):
    options = {"size": [1, 2]}
    arguments = {"folder": str(tmp_path), "options": options, "fails_at": fails_at}
    if fails_at is None:
        train(Rented, workers=2, env_kwargs=arguments)
    else:
        with pytest.raises(ZeroDivisionError, match="no fuel") as caught:
            train(Rented, 10_000, workers=2, env_kwargs=arguments)
        assert "Rented" in "\n".join(caught.value.__notes__)
        if engine == "native":
            assert pathlib.Path(__file__).name in str(caught.value.__cause__)
    made, closed = made_and_closed(tmp_path)
    assert made == closed >= 8
    assert options == {"size": [1, 2]}


def test_global_generators_do_not_depend_on_the_workers(engine):
    assert train(Drawing, workers=1).weights_sha256 == train(Drawing, workers=3).weights_sha256


@pytest.mark.slow
def test_a_step_that_does_not_return_ends_the_training(processes):
    text = r"environment 'Stuck', index 0: step .* has not returned after 0.5 s"
    with pytest.raises(EnvTimeoutError, match=text) as caught:
        train(Stuck, 10_000, step_timeout=0.5, n_envs=1, batch_size=16)
    assert "env.step(action)" in str(caught.value)


class Leaving(Walk):
    """What it observes is no number in its 150th step."""

    count = 0

    def step(self, action):
        self.count += 1
        observation, *rest = super().step(action)
        return observation * np.float32(np.nan if self.count == 150 else 1), *rest


def test_an_observation_that_leaves_its_space_is_named(engine):
    text = r"environment 'Leaving', index \d: step\(\) returned observation.* = nan"
    with pytest.raises(EnvContractError, match=text):
        train(Leaving, 10_000)


def test_a_training_that_nobody_closes_is_closed_with_the_runtime(engine, tmp_path):
    """The last test: those of this module share a runtime."""
    ppo = PPO(Rented, workers=2, env_kwargs={"folder": str(tmp_path), "options": {"size": [1, 2]}}, **SETTINGS)
    ppo.train(64)
    runtime.shutdown()
    made, closed = made_and_closed(tmp_path)
    assert made == closed >= 8
