"""Environments that draw from the generators of the process."""

import json
import random

import numpy as np
import pytest
from tiny_envs import Counter

from shoal import envs
from shoal.envs import EnvContractError, EnvContractWarning, EnvGroup, EnvSpec, PrivateGenerators, own_generators
from shoal.envs.check import inspect_environment


class Drawing(Counter):
    """Draws in its constructor, in reset and in step from a generator that all share."""

    def __init__(self, draw="np.random", seeds=False):
        super().__init__(length=9)
        self.draw = {"np.random": np.random.random, "random": random.random, "torch": self.draw_torch}[draw]
        self.seeds, self.offset = seeds, self.draw()

    @staticmethod
    def draw_torch():
        import torch

        return torch.rand(()).item()

    def reset(self, *, seed=None, options=None):
        if self.seeds:
            np.random.seed(seed)
        return super().reset(seed=seed)

    def _observe(self):
        return np.array([self.steps + self.offset, self.draw()], np.float32)


def group_of(spec, first_index=0, size=2):
    return EnvGroup(spec, size=size, first_index=first_index, run_seed=3)


def play(group, steps, seed=0):
    with own_generators(seed):
        return [group.step(np.zeros(group.size)).observations.tolist() for _ in range(steps)]


@pytest.mark.parametrize("kwargs", [{}, {"draw": "random"}, {"draw": "torch"}, {"seeds": True}], ids=str)
def test_each_copy_has_its_own(kwargs):
    import torch  # noqa: F401 (only once it is there does it count)

    spec = EnvSpec("D-v0", Drawing, kwargs)
    found = inspect_environment(spec)
    assert found.spec.generators == (kwargs.get("draw", "np.random"),)
    whole = group_of(found.spec, size=4)
    begin = whole.reset()
    steps = play(whole, 20, seed=1)
    for first in (0, 2):
        part = group_of(found.spec, first_index=first)
        assert part.reset().tolist() == begin[first : first + 2].tolist()
        assert play(part, 20, seed=2) == [rows[first : first + 2] for rows in steps]


def test_a_state_goes_on_exactly_also_from_a_checkpoint():
    spec = inspect_environment(EnvSpec("D-v0", Drawing)).spec
    group = group_of(spec)
    group.reset()
    play(group, 13)
    state = group.state()
    wanted = play(group, 20)
    arrays, description = state.to_arrays()
    for put_back in (state, envs.GroupState.from_arrays(arrays, json.loads(json.dumps(description)))):
        other = group_of(spec)
        other.restore(put_back)
        assert play(other, 20, seed=5) == wanted


def test_the_callers_generators_stay_as_they_are():
    np.random.seed(5)
    random.seed(5)
    expected = np.random.normal(size=3).tolist(), random.random(), random.gauss(0, 1)
    np.random.seed(5)
    random.seed(5)
    first = np.random.normal()
    spec = inspect_environment(EnvSpec("D-v0", Drawing)).spec
    with own_generators(0):
        group = group_of(spec)
        group.reset()
        group.step(np.zeros(2))
        group.state()
    assert (
        [first, *np.random.normal(size=2).tolist()],
        random.random(),
        random.gauss(0, 1),
    ) == expected


def test_check_names_the_generator():
    with pytest.warns(
        EnvContractWarning, match=r"draws from the global generator of np.random, which all of a process"
    ):
        envs.check(Drawing)


class Crashing(Drawing):
    """Fails in its fifth step."""

    def __init__(self):
        super().__init__()
        self.offset = 0

    def step(self, action):
        result = super().step(action)
        if self.steps == 5:
            raise ValueError(f"drew {result[0][1]}")
        return result


def test_a_crash_is_repeated_with_the_same_numbers():
    group = group_of(EnvSpec("D-v0", Crashing, generators=("np.random",)))
    group.reset()
    play(group, 4)
    with pytest.raises(ValueError, match="drew") as caught:
        group.step(np.zeros(2))
    script = "\n".join(line[4:] for line in caught.value.__notes__[0].split("\n\n", 1)[1].splitlines())
    with pytest.raises(ValueError, match=str(caught.value)):
        exec(script, {})


def test_one_that_seeds_with_a_constant_is_found():
    class Constant(Drawing):
        def reset(self, *, seed=None, options=None):
            np.random.seed(0)
            return super().reset(seed=seed)

    with pytest.raises(EnvContractError, match=r"ignores its seed: it draws random numbers \(np.random\)"):
        envs.check(Constant)


def test_the_wrapper_alone():
    env = PrivateGenerators(Drawing(), ("np.random",))
    first, _ = env.reset(seed=1)
    np.random.seed(8)
    again, _ = env.reset(seed=1)
    assert first.tolist() == again.tolist()
    following, *_ = env.step(0)
    assert following[1] != again[1]
