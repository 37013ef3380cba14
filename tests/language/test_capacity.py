"""Admission by capacity: how far generators run ahead, whatever they take."""

import random

import pytest

from shoal.rl.language.capacity import Capacity


@pytest.mark.parametrize("max_lag", [0, 1, 3])
def test_the_lag_is_bounded_nothing_is_lost_and_nobody_waits_for_ever(max_lag):
    for seed in range(20):
        drawn, groups = random.Random(seed), 3
        pacing = Capacity(groups, max_lag, [0] * groups, version=7)  # as after a resume
        flying, learned, version = [], [], 7
        for _ in range(200):
            flying += pacing.begin()
            assert len(flying) + pacing.waiting <= (max_lag + 1) * groups
            choice = pacing.choose() if drawn.random() < 0.6 else None
            if choice is not None:
                assert all(0 <= version - each.version <= max_lag for each in choice.learned)
                assert not any(pacing.needs(each) for each in choice.learned)
                learned += choice.learned
                version += 1
                pacing.learned(0)
            elif flying:
                pacing.arrived(flying.pop(drawn.randrange(len(flying))))
        assert version > 20
        assert len(set(learned)) == len(learned) == (version - 7) * groups
        for group in range(groups):  # each group's rollouts in order, none left out
            own = [each.rollout for each in learned if each.group == group]
            assert own == list(range(len(own)))


def test_without_a_lag_generators_and_learner_take_turns():
    pacing = Capacity(2, 0, [0, 0], version=0)
    first = pacing.begin()
    for each in reversed(first):
        pacing.arrived(each)
        assert pacing.begin() == []
    assert pacing.choose().learned == tuple(first)
    assert pacing.begin() == []
    pacing.learned(0)
    assert [(each.group, each.rollout, each.version) for each in pacing.begin()] == [(1, 1, 1), (0, 1, 1)]
