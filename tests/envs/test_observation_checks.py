"""Observations are checked in every step of a training, not only before it."""

import logging

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from tiny_envs import Counter

from shoal.envs import EnvContractError, EnvGroup, EnvSpec


class Spoilt(Counter):
    """From its third step on, what it returns does not fit."""

    def __init__(self, space, good, bad, in_reset=False):
        super().__init__(length=4)
        self.observation_space, self.good, self.bad, self.in_reset = space, good, bad, in_reset
        self.resets = 0

    def reset(self, *, seed=None, options=None):
        self.resets += 1
        return super().reset(seed=seed)

    def _observe(self):
        spoilt = self.resets > 1 if self.in_reset else self.steps >= 3
        return self.bad if spoilt else self.good


def group_of(*arguments, check="error", **kwargs):
    names = ("space", "good", "bad")
    spec = EnvSpec("S-v0", Spoilt, dict(zip(names, arguments, strict=True)) | kwargs)
    return EnvGroup(spec, size=2, first_index=4, run_seed=0, check=check)


def play(group, steps):
    group.reset()
    return [group.step(np.zeros(2)) for _ in range(steps)]


def floats(*values, dtype=np.float32):
    return np.array(values, dtype)


BYTE = np.uint8
CASES = [
    (Box(-1, 1, (2,), np.float32), floats(0, 0), floats(0, np.nan), r"observation\[1\] = nan; .* from -1.0 to 1.0"),
    (Box(-np.inf, np.inf, (2,)), floats(0, 0), floats(np.inf, 0), r"observation\[0\] = inf; .* a finite number"),
    (Box(-1, 1, (2,), np.float32), floats(0, 0), floats(0, 1.5), r"observation\[1\] = 1.5; .*check='warn'"),
    (Box(0, 9, (2,), BYTE), floats(1, 1, dtype=BYTE), floats(1, 255, dtype=BYTE), r"\[1\] = 255; .* 0 to 9"),
    (Box(0, 255, (2,), BYTE), floats(1, 1, dtype=BYTE), floats(-1, 0, dtype=np.int64), "of dtype int64; .* uint8"),
    (Box(-1, 1, (2,), np.float32), floats(0, 0), floats(0, 0, dtype=np.float64), "of dtype float64; .* wants float32"),
    (Box(-1, 1, (2,), np.float32), floats(0, 0), floats(0), r"of shape \(1,\); .* \(2,\)"),
    (Box(-1, 1, (), np.float32), np.array(0, np.float32), np.array(2, np.float32), r"observation = 2.0; .* to 1.0"),
    (Discrete(3), 2, 3, r"observation = 3; .* an integer from 0 to 2"),
    (Discrete(3, start=1), np.int64(1), np.int64(0), r"observation = 0; .* an integer from 1 to 3"),
    (Discrete(3), 2, 1.5, "observation 1.5 of type float; .* an integer"),
    (Discrete(3), 2, True, "observation True of type bool; .* an integer"),
    (MultiDiscrete([2, 3]), np.array([1, 2]), np.array([2, 2]), r"observation\[0\] = 2; .* from 0 to 1"),
]  # fmt: skip


@pytest.mark.parametrize(("space", "good", "bad", "text"), CASES)
@pytest.mark.parametrize("in_reset", [False, True])
def test_what_does_not_fit_is_refused_where_it_happens(space, good, bad, text, in_reset):
    where = r"reset\(\) returned .*step 0 of episode 1" if in_reset else r"step\(\) returned .*step 3 of episode 0"
    with pytest.raises(EnvContractError, match=rf"environment 'S-v0', index 4: {where}") as caught:
        play(group_of(space, good, bad, in_reset=in_reset), 5)
    assert caught.match(text)


def test_bounds_can_be_left_with_a_word(caplog):
    group = group_of(Box(-1, 1, (2,), np.float32), floats(0, 0), floats(0, 1.5), check="warn")
    with caplog.at_level(logging.WARNING, "shoal"):
        steps = play(group, 9)
    assert steps[3].final_observations.tolist() == [[0, 1.5]] * 2
    (record,) = caplog.records
    assert "environment 'S-v0', index 4: step() returned observation[1] = 1.5" in record.getMessage()


@pytest.mark.parametrize("bad", [floats(0, np.nan), floats(np.inf, 0), floats(0, 0, dtype=np.float64)])
def test_nothing_else_can_be_left(bad):
    with pytest.raises(EnvContractError):
        play(group_of(Box(-1, 1, (2,), np.float32), floats(0, 0), bad, check="warn"), 5)
    with pytest.raises(EnvContractError):
        play(group_of(Discrete(3), 2, 3, check="warn"), 5)


def test_a_narrower_dtype_fits():
    play(group_of(Box(-1, 1, (2,), np.float32), floats(0, 0), floats(0, 1, dtype=np.float16)), 5)
