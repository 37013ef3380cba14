"""Every kind of faulty environment that gymnasium's own checkers know is named by `check`."""

import os
import random

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from gymnasium.wrappers import NormalizeReward, RecordEpisodeStatistics
from tiny_envs import Counter

from shoal.envs import EnvContractError, EnvContractWarning, check
from shoal.runtime import InputError


def refuses(text, entry, **kwargs):
    with pytest.raises(InputError, match=text):
        check(entry, **kwargs)


class Spaces(Counter):
    """Its spaces are changed after they were made."""

    def __init__(self, observation=None, action=None, **changes):
        super().__init__()
        self.observation_space = observation or self.observation_space
        self.action_space = action or self.action_space
        for name, value in changes.items():
            setattr(observation or action, name, value)


def box():
    return Box(-1, 1, (2,), np.float32)


@pytest.mark.parametrize(
    ("text", "make_kwargs"),
    [
        (r"low of shape \(3,\); both must be equal", lambda: {"observation": box(), "low": np.zeros(3, np.float32)}),
        (r"high of shape \(\); both must be equal", lambda: {"observation": box(), "high": np.float32(1)}),
        (r"low\[0\] = 2.0 above high = 1.0", lambda: {"observation": box(), "low": np.full(2, 2, np.float32)}),
        (r"low\[0\] = nan", lambda: {"observation": box(), "low": np.full(2, np.nan, np.float32)}),
        (r"action_space is Discrete\(0\), which has no", lambda: {"action": Discrete(2), "n": np.int64(0)}),
        (
            r"MultiDiscrete\(\[2, 0\]\): each number",
            lambda: {"action": MultiDiscrete([2, 2]), "nvec": np.array([2, 0])},
        ),
        (r"MultiBinary\(0\), which has no element", lambda: {"observation": MultiBinary(2), "n": 0}),
        (r"observation_space is 'none' of type str, not a gymnasium space", lambda: {"observation": "none"}),
    ],
)
def test_spaces(text, make_kwargs):
    refuses(text, lambda: Spaces(**make_kwargs()))


class Seeding(Counter):
    """Passes another seed on than it got."""

    def __init__(self, choose):
        super().__init__(noisy=True)
        self.choose = choose

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=self.choose(seed))


def test_seeds_that_are_not_passed_on():
    refuses(
        r"reset\(\) ignores its seed: .* both seed np_random with 1: call super\(\).reset\(seed=seed\)",
        Seeding,
        choose=lambda _: 1,
    )
    text = r"reset\(seed=123\) is not deterministic: .*asks for the system's random numbers in test_faulty_env.*urandom"
    refuses(text, Seeding, choose=lambda _: int.from_bytes(os.urandom(3), "big"))
    check(Seeding, choose=lambda seed: seed + 1)


class Silent(Seeding):
    """Nothing of what it draws is seen."""

    def _observe(self):
        return np.zeros(2, np.float32)


def test_seed_of_what_is_not_seen():
    draw = random.Random(1).randrange
    refuses(r"reset\(seed=123\) called twice seeds np_random with", Silent, choose=lambda _: draw(10**6))


class OwnGenerator(Counter):
    """Draws from a generator of its own, which each reset makes anew from a constant."""

    def reset(self, *, seed=None, options=None):
        self.generator = np.random.default_rng(0)
        return super().reset(seed=seed)

    def step(self, action):
        observation, *rest = super().step(action)
        observation[1] = self.generator.random()
        return observation, *rest


def test_a_generator_of_its_own_that_no_seed_reaches():
    refuses(
        r"ignores its seed: it draws random numbers \(generator\), but episodes with the seeds 123 and 124",
        OwnGenerator,
    )


class Layout(Counter):
    """Each copy has a layout of its own, which no seed decides."""

    def __init__(self):
        super().__init__()
        self.offset = np.random.default_rng().random()

    def _observe(self):
        return np.array([self.steps, self.offset], np.float32)


def test_copies_that_differ():
    refuses(r"its copies differ: .* in another copy. What the constructor draws must be the same", Layout)


def test_the_clock_is_named():
    class Timed(Counter):
        def _observe(self):
            import time

            return np.array([self.steps, time.perf_counter() % 1], np.float32)

    refuses(r"It asks for the clock in test_faulty_environments.py:\d+ \(return np.array", Timed)


class Old(Counter):
    """An interface of earlier versions."""

    def reset(self, seed=1):
        return super().reset(seed=seed)


def test_old_reset():
    with pytest.warns(EnvContractWarning) as caught:
        check(Old)
    texts = [str(warning.message) for warning in caught]
    assert any("reset() takes no argument 'options'" in text for text in texts)
    assert any("has the default seed 1" in text for text in texts)


def test_results_of_reset():
    for result, text in [
        ([np.zeros(2, np.float32), {}], r"reset\(\) returned .* of type list; wanted the tuple"),
        ((np.zeros(2, np.float32), {}, 1), r"a tuple of 3; wanted the tuple"),
        ((np.zeros(2, np.float32), 7), r"info 7 of type int; wanted a dict"),
        ((np.full(2, np.inf, np.float32), {}), r"observation\[0\] = inf"),
        (({}, {}), r"observation of type dict; wanted a numpy array"),
    ]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Counter, "reset", lambda self, *, seed=None, options=None, result=result: result)
            refuses(text, Counter)


def test_one_constant_array_is_no_buffer():
    class Constant(Counter):
        only = np.zeros(2, np.float32)

        def _observe(self):
            return self.only

    check(Constant)


def test_wrappers_are_told_in_words_that_fit():
    refuses(
        r"The wrapper NormalizeReward returns numbers that depend on all episodes .*TransformReward",
        lambda: NormalizeReward(Counter()),
    )

    class Counting(gymnasium.Wrapper):
        resets = 0

        def reset(self, *, seed=None, options=None):
            self.resets += 1
            observation, info = super().reset(seed=seed)
            return observation + np.float32(self.resets), info

    refuses(r"The wrapper Counting does it: what it wraps is deterministic", lambda: Counting(Counter()))
    check(lambda: RecordEpisodeStatistics(Counter()))


def test_environments_of_others():
    text = "many environments at once: return one of them"
    refuses(text, lambda: gymnasium.make_vec("CartPole-v1", num_envs=2))


def test_what_a_package_lacks():
    def needs(error):
        def factory():
            raise error

        return factory

    for error, text in [
        (
            ModuleNotFoundError("No module named 'cv2'", name="cv2"),
            "the package 'cv2' is not installed: pip install \"shoal.atari.\"",
        ),
        (ImportError("moved to https://github.com/Some-One/robots."), "pip install robots"),
        (gymnasium.error.DependencyNotInstalled("run `pip install box3d`"), "run `pip install box3d`"),
    ]:
        refuses(f"cannot be made: .*{text}", needs(error))


def test_the_message_ends_in_one_line():
    with pytest.raises(EnvContractError) as caught:
        check(Layout)
    assert "\n" not in str(caught.value)
