"""An environment that raises in a training leaves a script in the run's folder that repeats the exception alone."""

import os
import subprocess
import sys
import textwrap

import gymnasium
import numpy as np
import pytest

from shoal import PPO, envs, runtime
from shoal.envs.reproducer import Moment, reproducer
from shoal.rl import RunFolder

MODULE = """
import gymnasium
from agents_envs import Crowd
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from learning_envs import Walk


class Broken(Walk):
    def reset(self, *, seed=None, options=None):
        self._seed = seed
        return super().reset(seed=seed)

    def step(self, action):
        result = super().step(action)
        if self._seed % 50 == 1 and self._step == 3:
            raise FloatingPointError(f"at {self._position!r}")
        return result


class BrokenCrowd(Crowd):
    def reset(self, seed=None, options=None):
        self._seed = seed
        return super().reset(seed)

    def step(self, actions):
        found = super().step(actions)
        if self._seed % 50 == 1 and self._tick == 5:
            raise FloatingPointError(f"{self._symbols} {self._last}")
        return found


class BrokenVector(CartPoleVectorEnv):
    def step(self, action):
        found = super().step(action)
        if (self.state[0] > 0.5).any():
            raise FloatingPointError(repr(self.state.tolist()))
        return found


gymnasium.register("BrokenVector-v0", "gymnasium.envs.classic_control:CartPoleEnv",
                   vector_entry_point="broken_envs:BrokenVector", max_episode_steps=500)
"""
SETTINGS = {"n_envs": 4, "group_size": 2, "n_steps": 16, "batch_size": 32, "n_epochs": 1, "preset": "none", "seed": 2}


@pytest.fixture
def broken(tmp_path, monkeypatch):
    (tmp_path / "broken_envs.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(gymnasium.registry, "BrokenVector-v0", raising=False)
    import broken_envs

    yield broken_envs
    del sys.modules["broken_envs"]


def judge(prompt, answer):
    return 1.0


def test_arguments_are_written_by_their_names():
    kwargs = {"prompts": ["a"], "reward": [(np.float32(0.5), judge), (1, textwrap.dedent), (2, lambda p, a: 1)]}
    script = reproducer(envs.resolve(envs.Prompts, kwargs), Moment(0, 0, 1, np.array(["x"], object)))
    assert "envs.make(Prompts, prompts=['a'], reward=[(0.5, judge), (1, dedent), (2, reward)])" in script
    assert f"from {__name__} import judge\nfrom textwrap import dedent\n# first make reward as in" in script
    compile(script, "script", "exec")


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("Broken", {}),
        pytest.param("BrokenCrowd", {}, marks=pytest.mark.slow),
        pytest.param(
            "broken_envs:BrokenVector-v0",
            {"vectorization": "entry_point", "check": "warn"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_script_raises_the_same_alone(broken, tmp_path, name, more):
    runtime.init(engine="serial")
    env = getattr(broken, name, name)
    with (
        pytest.raises(FloatingPointError) as caught,
        RunFolder(tmp_path / "run") as folder,
        PPO(env, **SETTINGS, **more) as ppo,
    ):
        ppo.train(20_000, callbacks=[folder])
    script = tmp_path / "run" / "reproduce.py"
    assert caught.value.__notes__[-1] == f"The script is in {str(script)!r}."
    assert len(script.read_text().splitlines()) < 15
    paths = os.pathsep.join(path for path in sys.path if path)
    found = subprocess.run(
        [sys.executable, script],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert f"FloatingPointError: {caught.value}" in found.stderr
