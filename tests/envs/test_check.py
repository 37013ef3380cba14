import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Graph, MultiBinary, MultiDiscrete
from learning_envs import Masked
from tiny_envs import BoomError, Chaotic, Continuous, Counter, Explosive, Locked

from shoal.envs import EnvContractError, EnvContractWarning, check
from shoal.runtime import InputError


class Scripted(gymnasium.Env):
    """Returns what the test says: values, or functions of the step number."""

    def __init__(
        self, space=None, observation=None, reward=0.0, terminated=False, truncated=False, info=None, first=None
    ):
        self.observation_space = Box(-1, 1, (2, 3), np.float32) if space is None else space
        self.action_space = Discrete(2)
        good = np.zeros(self.observation_space.shape, self.observation_space.dtype)
        self.observation = (lambda _: good.copy()) if observation is None else observation
        self.reward, self.terminated, self.truncated = reward, terminated, truncated
        self.info = {} if info is None else info
        self.first = self.observation if first is None else first
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.first(0), {}

    def step(self, action):
        self.steps += 1
        return self.observation(self.steps), self.reward, self.terminated, self.truncated, self.info


def fails(text, entry=Scripted, **kwargs):
    with pytest.raises(EnvContractError, match=text):
        check(entry, **kwargs)


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1", "MountainCar-v0", Counter, Continuous, Locked])
def test_good_environments(env):
    check(env)


def test_good_spaces():
    check(Scripted, space=Discrete(4, start=2), observation=lambda _: 3)
    check(Scripted, space=Discrete(4), observation=lambda _: np.int64(3))
    check(Scripted, space=MultiDiscrete([2, 3]))
    check(Scripted, space=MultiBinary(3))
    check(Scripted, space=Box(0, 255, (2, 2), np.uint8))


def test_an_instance():
    env = Counter()
    check(env)
    env.step(0)
    with pytest.raises(InputError, match="length has no effect"):
        check(env, length=3)


def spoiled(value, index=(1, 2), dtype=np.float32, at=3):
    def observation(step):
        array = np.zeros((2, 3), dtype)
        if step == at:
            array[index] = value
        return array

    return observation


def test_value_above_its_bound():
    text = (
        r"environment 'Scripted': step\(\) returned observation\[1, 2\] = 1.5; observation_space Box\(2, 3\) float32 "
        r"in \[-1, 1\] wants a number from -1.0 to 1.0 \(step 3 after reset\(seed=123\)\)"
    )
    fails(text, observation=spoiled(1.5))


def test_value_below_its_bound():
    fails(
        r"observation\[0, 0\] = -7.0; .* a number from -1.0 to 1.0",
        observation=spoiled(-7, index=(0, 0)),
    )


def test_several_values_outside():
    fails(
        r"observation\[0, 0\] = 2.0; .* \(6 values are outside\)",
        observation=spoiled(2, index=...),
    )


def test_not_a_number():
    fails(r"observation\[1, 2\] = nan; .* wants a number from -1.0 to 1.0", observation=spoiled(np.nan))


def test_reset_outside_its_bound():
    fails(r"reset\(\) returned observation\[1, 2\] = 5.0.* to 1.0 \(reset\(seed=123\)\)", first=spoiled(5, at=0))


def test_wrong_shape():
    fails(r"observation of shape \(3, 2\); .* wants \(2, 3\)", observation=lambda _: np.zeros((3, 2), np.float32))


def test_wrong_dtype():
    text = r"observation of dtype float64; observation_space .* wants float32: observation.astype\(np.float32\)"
    fails(text, observation=spoiled(0, dtype=np.float64))


def test_narrower_dtype_is_fine():
    check(Scripted, observation=spoiled(0, dtype=np.float16))


def test_not_an_array():
    fails(
        r"of type list; wanted a numpy array: np.array\(observation, dtype=np.float32\)",
        observation=lambda _: [[0] * 3] * 2,
    )
    fails("of type NoneType; wanted a numpy array", observation=lambda _: None)


def test_discrete_observation_outside():
    fails(
        r"returned observation = 6; observation_space Discrete\(4, start=2\) wants an integer from 2 to 5",
        space=Discrete(4, start=2),
        observation=lambda step: 6 if step else 2,
    )


def test_discrete_observation_of_another_type():
    fails(r"observation 1.0 of type float; .* wants an integer", space=Discrete(4), observation=lambda _: 1.0)
    fails(r"observation True of type bool; .* wants an integer", space=Discrete(4), observation=lambda _: True)


def test_multi_discrete_outside():
    text = r"observation\[1\] = 3; observation_space MultiDiscrete\(\[2, 3\]\) wants an integer from 0 to 2"
    fails(text, space=MultiDiscrete([2, 3]), observation=lambda _: np.array([0, 3]))


def test_multi_binary_outside():
    text = r"observation\[0\] = 2; observation_space MultiBinary\(2\) wants an integer from 0 to 1"
    fails(text, space=MultiBinary(2), observation=lambda _: np.array([2, 0], np.int8))


@pytest.mark.parametrize(
    ("reward", "text"),
    [
        (float("nan"), "reward nan; wanted a finite float"),
        (float("inf"), "reward inf; wanted a finite float"),
        (None, "reward None of type NoneType; wanted a float"),
        ("1", "reward '1' of type str; wanted a float"),
        (True, "reward True of type bool; wanted a float: float.reward."),
        (np.array([1.0]), r"reward array\(\[1.\]\), an array of shape \(1,\); wanted a float: float\(reward\)"),
    ],
)
def test_reward(reward, text):
    fails(rf"step\(\) returned {text}", reward=reward)


@pytest.mark.parametrize("reward", [1, np.float32(1), np.int64(2), 0.5])
def test_reward_of_any_number_type(reward):
    check(Scripted, reward=reward)


def test_flags():
    fails(r"returned terminated 2 of type int; wanted a bool: bool\(terminated\)", terminated=2)
    fails(r"returned terminated 'no' of type str; wanted a bool", terminated="no")
    fails(r"returned truncated None of type NoneType; wanted a bool", truncated=None)
    check(Scripted, terminated=np.bool_(True))


@pytest.mark.parametrize("flag", [0, 1, np.int64(1), 0.0])
def test_flags_that_are_numbers_count_as_what_they_say(flag):
    said = rf"step\(\) returned truncated .*, which counts as {bool(flag)}; gymnasium wants a bool: bool\(truncated\)"
    with pytest.warns(EnvContractWarning, match=said):
        check(Scripted, truncated=flag)


def test_info():
    fails(r"step\(\) returned info \[1\] of type list; wanted a dict", info=[1])


def test_four_values():
    class Old(Counter):
        def step(self, action):
            observation, reward, terminated, _, info = super().step(action)
            return observation, reward, terminated, info

    fails(r"step\(\) returned 4 values \(observation, reward, done, info\); wanted 5: split done", Old)


def test_reset_without_info():
    class Old(Counter):
        def reset(self, *, seed=None, options=None):
            return super().reset(seed=seed)[0]

    fails(r"reset\(\) returned array.*wanted the tuple \(observation, info\)", Old)


def test_reset_without_seed():
    class Old(Counter):
        def reset(self):
            return super().reset()

    fails(r"reset\(\) takes no argument 'seed': declare it as reset\(self, \*, seed=None, options=None\)", Old)


def test_reset_that_ignores_its_seed():
    class Unseeded(Counter):
        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.total = np.random.default_rng().normal()
            return self._observe(), {}

    fails(r"reset\(seed=123\) is not deterministic: observation\[1\] was .*super\(\).reset\(seed=seed\)", Unseeded)


def test_step_that_no_seed_reaches():
    class Unseeded(Counter):
        made = np.random.default_rng()

        def step(self, action):
            self.total += self.made.normal()
            return super().step(action)

    fails(r"step\(\) is not deterministic: .*after step 1 observation\[1\] was .*\"nondeterministic\": True", Unseeded)
    Unseeded.metadata = {"nondeterministic": True}
    check(Unseeded)


def test_reward_that_no_seed_reaches():
    class Unseeded(Counter):
        count = 0

        def step(self, action):
            Unseeded.count += 1
            observation, _, *rest = super().step(action)
            return observation, float(Unseeded.count), *rest

    fails(r"after step 1 reward was 1.0 the first time and 65.0 the second", Unseeded)


def test_chaos_in_reset():
    fails("is not deterministic", Chaotic)


def test_buffer_that_is_used_again():
    class Buffered(Counter):
        buffer = np.zeros(2, np.float32)

        def _observe(self):
            self.buffer[:] = self.steps, self.total
            return self.buffer

    text = r"step\(\) overwrote the observation that reset\(\) had returned: .*observation.copy\(\)"
    fails(text, Buffered)

    class BufferedInStep(Buffered):
        def reset(self, *, seed=None, options=None):
            observation, info = super().reset(seed=seed)
            return observation.copy(), info

    fails(r"step\(\) overwrote the observation that step\(\) had returned", BufferedInStep)


def test_spaces():
    class Forgot(Counter):
        def __init__(self):
            super().__init__()
            del self.observation_space

    fails(r"'Forgot': it sets no observation_space: set self.observation_space in __init__", Forgot)

    class Nested(Counter):
        def __init__(self):
            super().__init__()
            self.observation_space = Dict({"a": Graph(Discrete(2), None)})

    with pytest.raises(InputError, match=r"environment 'Nested': observation space Graph.*not supported"):
        check(Nested)
    upside_down = Box(-1, 1, (2,), np.float32)
    upside_down.low[1] = 3
    fails(r"observation_space .* has low\[1\] = 3.0 above high = 1.0", space=upside_down)


def test_own_exception_keeps_its_type():
    with pytest.raises(BoomError) as caught:
        check(Explosive, at=2)
    assert (
        "in step of environment 'Explosive', index 0 at step 2 of episode 0 (reset seed 123)"
        in caught.value.__notes__[0]
    )
    with pytest.raises(BoomError) as caught:
        check(Explosive, where="reset")
    assert "in reset of environment 'Explosive'" in caught.value.__notes__[0]


def test_wrapped_environment():
    check(gymnasium.wrappers.TimeLimit(Counter(), 2))
    check("CartPole-v1", max_episode_steps=5)


class Ends(Scripted):
    """Ends its process in the second step, in one way or another."""

    def __init__(self, way):
        super().__init__()
        self.way = way

    def step(self, action):
        if self.steps == 1:
            (sys.exit if self.way == "sys.exit" else os._exit)(3)
        return super().step(action)


def test_an_environment_that_ends_the_program_is_told_of():
    fails(r"environment 'Ends': step called sys.exit\(3\)", Ends, way="sys.exit")
    program = f"import sys; sys.path[:] = {sys.path!r}\n"
    program += "from test_check import Ends, check\ncheck(Ends, way='os._exit')"
    done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr.startswith("error: environment 'Ends' has ended this process in step: it, or a library that")


def test_what_is_no_dict_tells_no_mask():
    class Listed(Masked):
        def step(self, action):
            return *super().step(action)[:-1], [1]

    with pytest.raises(EnvContractError, match=r"step\(\) returned info \[1\], no dict with 'action_mask'"):
        check(Listed, in_info=True)
