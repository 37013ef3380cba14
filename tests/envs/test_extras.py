"""Environments of packages that are extras: what is missing is named; what is there is listed, made, preprocessed."""

import json
import sys

import gymnasium
import numpy as np
import pytest

from shoal import envs
from shoal.runtime import InputError


@pytest.fixture
def lacking(monkeypatch):
    """Pretend that a module is not installed."""

    def lack(name):
        for loaded in [other for other in sys.modules if other.split(".")[0] == name]:
            monkeypatch.delitem(sys.modules, loaded)
        monkeypatch.setitem(sys.modules, name, None)

    return lack


@pytest.mark.parametrize(
    ("module", "environment", "extra", "listed_by"),
    [
        ("Box2D", "LunarLander-v3", "box2d", "LunarLander-v3"),
        ("mujoco", "HalfCheetah-v5", "mujoco", "HalfCheetah-v5"),
        ("ale_py", "ALE/Pong-v5", "atari", "ale_py"),
        ("ale_py", "Atari/Pong-v5", "atari", "ale_py"),
    ],
)
def test_a_missing_extra_is_named_with_its_install_line(lacking, monkeypatch, module, environment, extra, listed_by):
    lacking(module)
    for name in [name for name in gymnasium.registry if name.startswith("ALE/")]:
        monkeypatch.delitem(gymnasium.registry, name)
    for name in [name for name in sys.modules if name.startswith(("gymnasium.envs.box2d", "gymnasium.envs.mujoco"))]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(
        InputError, match=rf'{environment.rpartition("/")[2]}.*is not installed: pip install "shoal\[{extra}\]"'
    ):
        envs.make(environment)
    assert f'pip install "shoal[{extra}]"' in [listed.needs for listed in envs.catalog(listed_by)]


def test_a_catalog_has_what_is_registered_and_what_gymnasium_has():
    envs.register("CartPole-of-mine-v0", "CartPole-v1")
    found = {listed.id: (listed.source, listed.needs) for listed in envs.catalog("cartpole")}
    assert found["CartPole-of-mine-v0"] == ("registered", "")
    assert found["CartPole-v1"] == ("classic_control", "")
    assert "Acrobot-v1" not in found
    assert {listed.id for listed in envs.catalog("toy_text")} >= {"FrozenLake-v1", "Taxi-v4"}


def test_what_gymnasium_only_refuses_is_listed_with_what_to_use():
    [listed] = envs.catalog("HalfCheetah-v3")
    assert listed.needs == "superseded by HalfCheetah-v5"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "environment"),
    [("Box2D", "LunarLander-v3"), ("Box2D", "BipedalWalker-v3"), ("mujoco", "HalfCheetah-v5")],
)
def test_environments_of_extras_keep_the_contract(module, environment):
    pytest.importorskip(module, reason=f"the extra with {module} is not installed")
    [listed] = envs.catalog(environment)
    assert listed.needs == ""
    envs.check(environment)


@pytest.fixture
def pong():
    pytest.importorskip("ale_py", reason="the extra atari is not installed")
    pytest.importorskip("cv2", reason="the extra atari is not installed")
    return "Atari/Pong-v5"


@pytest.mark.slow
def test_atari_with_the_standard_preprocessing(pong):
    spec = envs.spec_from_json(json.loads(json.dumps(envs.spec_to_json(envs.resolve(pong, {"frame_stack": 2})))))
    env = spec.make()
    observation, _ = env.reset(seed=1)
    assert (observation.shape, observation.dtype) == ((2, 84, 84), np.uint8)
    rewards = {float(env.step(np.int64(5))[1]) for _ in range(300)}
    assert rewards <= {-1.0, 0.0, 1.0}
    env.close()
    envs.check(pong)
    with pytest.raises(InputError, match="Did you mean 'frame_stack'"):
        envs.make(pong, frame_stac=2)


@pytest.mark.slow
def test_switches_of_the_preprocessing(pong):
    def lives_and_largest_reward(**kwargs):
        env = envs.make("Atari/MsPacman-v5", noop_max=0, **kwargs)
        env.reset(seed=3)
        rewards, ended = set(), False
        while not ended:
            _, reward, terminated, truncated, info = env.step(0)
            rewards.add(float(reward))
            ended = terminated or truncated
        env.close()
        return info["lives"], max(rewards)

    assert lives_and_largest_reward() == (2, 1.0)
    lives, largest = lives_and_largest_reward(terminal_on_life_loss=False, clip_reward=False)
    assert lives == 0
    assert largest >= 10  # a pill


@pytest.mark.parametrize("name", ["Ant-v5", "Reacher-v5"])  # one reads what its last step derived, one has a goal
def test_mujoco_goes_on_from_its_state_without_its_actions(name):
    pytest.importorskip("mujoco", reason="the extra mujoco is not installed")
    spec = envs.resolve(name)
    choice = envs.choose_recovery(spec, 0, 0)
    assert (choice.recovery, choice.needs_actions, choice.problems) == ("own_state", False, ())
    common = {"size": 2, "first_index": 0, "run_seed": 1, "recovery": choice}
    with envs.EnvGroup(spec, **common) as group, envs.EnvGroup(spec, **common) as other:
        group.reset()
        space = group.action_space
        space.seed(0)
        actions = [np.stack([space.sample(), space.sample()]) for _ in range(90)]
        for action in actions[:20]:
            group.step(action)
        state = envs.GroupState.from_arrays(*group.state().to_arrays())
        assert other.restore(state) is True
        for action in actions[20:]:
            one, two = group.step(action), other.step(action)
            assert one.observations.tobytes() == two.observations.tobytes()
            assert one.rewards.tobytes() == two.rewards.tobytes()
        assert one.episodes == two.episodes
