"""Samples for each insert: bounds that hold whatever the speeds, and settings that would lock up."""

import random

import pytest

from shoal.rl import RateLimit, ReplayAdmission, ReplayLimits
from shoal.runtime import InputError


def test_by_hand():
    limit = RateLimit(samples_per_insert=2, tolerance=50, insert=10, sample=30)
    assert limit.may_insert(inserted=15, sampled=0)  # 2 · 25 ≤ 50
    assert not limit.may_insert(inserted=16, sampled=0)
    assert limit.may_insert(inserted=16, sampled=2)
    assert limit.may_sample(inserted=0, sampled=20)  # 0 − 50 ≥ −50
    assert not limit.may_sample(inserted=0, sampled=21)


def test_settings_with_which_both_would_wait_for_ever_are_refused_with_the_arithmetic():
    RateLimit(samples_per_insert=2, tolerance=25, insert=10, sample=30)
    with pytest.raises(InputError, match=r"samples_tolerance is 24\.9.*\(2 · 10 \+ 30\) / 2 = 25 is the least"):
        RateLimit(samples_per_insert=2, tolerance=24.9, insert=10, sample=30)


def test_below_the_least_tolerance_both_do_wait():
    limit = object.__new__(RateLimit)
    for name, value in {"samples_per_insert": 2, "tolerance": 24, "insert": 10, "sample": 30}.items():
        object.__setattr__(limit, name, value)
    assert not limit.may_insert(inserted=10, sampled=15)
    assert not limit.may_sample(inserted=10, sampled=15)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_speeds_it_goes_on_and_the_proportion_keeps_to_its_bounds(seed):
    generator = random.Random(seed)
    steps, drawn, ratio = generator.randint(1, 40), generator.randint(1, 200), generator.choice([0.3, 1, 4, 17])
    least = (ratio * steps + drawn) / 2
    rate = RateLimit(ratio, least * generator.choice([1, 1.5, 4]), insert=steps, sample=drawn)
    core = ReplayAdmission(ReplayLimits(rate, steps, max_lag=generator.choice([None, 3])), [0] * 4, 0)
    how_often = generator.uniform(0.1, 1)
    flying, late, inserted, sampled, filled, seen = [], [], 0, 0, False, set()
    for _ in range(500):
        flying += core.begin()
        choice = core.choose() if generator.random() < how_often or not flying else None
        if choice is None:
            flying += core.begin()
            assert flying  # else nothing would ever happen again
            core.arrived(flying.pop(generator.randrange(len(flying))))
            continue
        assert not seen.intersection((*choice.learned, *choice.dropped))
        seen.update(choice.learned, choice.dropped)
        inserted += len(set(choice.learned) - set(late)) * steps if filled else 0
        sampled += drawn if filled else 0
        core.learned(drawn if len(seen) > 5 else 0)
        if len(seen) > 5 and not filled:  # the first draw: what is under way by now belongs to the filling
            filled, late = True, [*flying, *core._waiting]
        assert abs(ratio * inserted - sampled) <= rate.tolerance + 1e-6
    assert sampled > drawn


def test_until_the_first_draw_nothing_waits_and_what_has_come_is_stored():
    rate = RateLimit(samples_per_insert=1, tolerance=10, insert=8, sample=8)
    core = ReplayAdmission(ReplayLimits(rate, 8, max_lag=None), [3, 0], version=5)
    for rollout in range(4):
        begun = core.begin()
        assert [tuple(each) for each in begun] == [(0, 3 + rollout, 5 + rollout), (1, rollout, 5 + rollout)]
        assert core.choose() is None
        for each in begun:
            core.arrived(each)
        assert core.choose().learned == tuple(begun)
        core.learned(0)
    begun = core.begin()
    core.learned(8)  # the first draw
    for each in begun:
        core.arrived(each)
    assert core.choose().learned == tuple(begun)  # which had begun before; the tolerance allows one draw more
    core.learned(8)
    assert core.choose() is None
    assert len(core.begin()) == 2  # 16 steps are not more than 8 draws and 10
