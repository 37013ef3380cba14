"""When rollouts begin, what is learned from and what is dropped: events in, commands out."""

import random

import pytest

from shoal.rl.asynchronous.admission import Admission, Limits
from shoal.rl.asynchronous.schedule import Record, Recorded, Trajectory, from_lines
from shoal.rl.clock import Clock
from shoal.runtime import InputError


def admission(groups=3, **limits):
    return Admission(Limits(**{"per_update": 2, "queue": 4, "max_lag": 2} | limits), [0] * groups, 0)


def groups_of(trajectories):
    return [each.group for each in trajectories]


def test_every_idle_group_begins_under_the_newest_weights():
    core = admission()
    assert core.begin() == [Trajectory(0, 0, 0), Trajectory(1, 0, 0), Trajectory(2, 0, 0)]
    assert core.begin() == []
    core.arrived(Trajectory(1, 0, 0))
    core.arrived(Trajectory(2, 0, 0))
    assert core.choose().learned == (Trajectory(1, 0, 0), Trajectory(2, 0, 0))
    core.learned(0)
    assert core.begin() == [Trajectory(1, 1, 1), Trajectory(2, 1, 1)]


def test_the_learner_gets_nothing_until_there_is_enough_and_then_the_oldest_first():
    core = admission(groups=4, per_update=2)
    begun = core.begin()
    core.arrived(begun[3])
    assert core.choose() is None
    core.arrived(begun[0])
    core.arrived(begun[2])
    assert groups_of(core.choose().learned) == [3, 0]
    assert core.waiting == 1


def test_where_the_queue_is_full_the_oldest_is_dropped_and_no_group_waits():
    core = admission(groups=6, queue=4)
    begun = core.begin()
    assert [core.arrived(each) for each in begun] == [None] * 4 + begun[:2]
    assert groups_of(core.begin()) == [0, 1, 2, 3, 4, 5]
    choice = core.choose()
    assert (groups_of(choice.dropped), groups_of(choice.learned)) == ([0, 1], [2, 3])
    assert core.choose().dropped == ()


def test_with_wait_groups_stay_idle_at_the_bound_and_nothing_is_dropped():
    core = admission(groups=6, queue=4, waits=True)
    first = core.begin()
    assert groups_of(first) == [0, 1, 2, 3]
    for each in first:
        assert core.arrived(each) is None
    assert core.begin() == []
    assert groups_of(core.choose().learned) == [0, 1]
    assert groups_of(core.begin()) == [4, 5]


def test_a_rollout_that_is_more_than_max_lag_versions_old_is_dropped():
    core = admission(groups=3, per_update=1, max_lag=1)
    slow, *fast = core.begin()
    for _ in range(2):
        core.arrived(fast[0])
        assert core.choose().learned == (fast[0],)
        core.learned(0)
        fast = core.begin()
    core.arrived(slow)  # made under version 0; the learner is at 2
    assert core.choose() is None
    core.arrived(fast[0])
    choice = core.choose()
    assert (choice.dropped, choice.learned) == ((slow,), (fast[0],))


def test_a_batch_is_used_as_often_as_allowed_and_only_so_many_are_kept():
    core = admission(groups=1, per_update=1, uses=3, batches=2, max_lag=9)
    chosen = []
    for arrivals in (1, 0, 1, 1, 0, 0, 0):
        for _ in range(arrivals):
            [trajectory] = core.begin()
            core.arrived(trajectory)
        choice = core.choose()
        chosen.append(choice and choice.learned[0].rollout)
        if choice:
            core.learned(0)
    # 0 goes when 2 comes, with a use left; of 1 and 2, each used once, 1 is the older one
    assert chosen == [0, 0, 1, 2, 1, 2, 1]


def test_a_batch_that_has_become_too_old_is_not_used_again():
    core = admission(groups=1, per_update=1, uses=9, batches=1, max_lag=1)
    [trajectory] = core.begin()
    core.arrived(trajectory)
    for _ in range(2):
        assert core.choose().learned == (trajectory,)
        core.learned(0)
    assert core.choose() is None
    assert not core.needs(trajectory)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_lags_and_the_queue_keep_to_their_bounds_and_the_records_can_be_followed(seed):
    generator = random.Random(seed)
    per_update, max_lag, uses = generator.randint(1, 4), generator.randint(0, 4), generator.randint(1, 3)
    limits = {"per_update": per_update, "queue": per_update + generator.randint(0, 3), "max_lag": max_lag, "uses": uses}
    core = admission(groups=5, waits=generator.random() < 0.5, batches=2, **limits)
    flying, records, version, seen = [], [], 0, set()
    for _ in range(300):
        flying += core.begin()
        if flying and generator.random() < 0.8:
            core.arrived(flying.pop(generator.randrange(len(flying))))
            assert core.waiting <= limits["queue"]
        elif (choice := core.choose()) is not None:
            assert len(choice.learned) == per_update
            assert all(version - each.version <= max_lag for each in choice.learned)
            assert not seen.intersection(choice.dropped)
            seen.update(choice.dropped)
            version += 1
            records.append(Record(version, Clock(version, 1000), choice))
            core.learned(0)
    assert version > 10
    lines = [record.to_json() for record in records]
    assert from_lines(lines) == records
    follower, begun = Recorded(records), []
    for record in records:
        begun += follower.begin()
        assert follower.choose() == record.choice
        assert {*record.choice.learned, *record.choice.dropped} <= set(begun)
        follower.learned(0)
    assert not any(follower.needs(each) for each in begun)


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([{"iteration": 2, "learned": [[0, 0, 0]]}], "goes from update 0 on with 2"),
        ([{"iteration": 1, "learned": [[0, 1, 0]]}], "takes rollout 1 of group 0.*next comes rollout 0"),
        ([{"iteration": 1, "learned": [[0, 0, 1]]}], "under version 1.*under one before 1"),
        ([{"iteration": 1, "learned": [[0, 0]]}], "damaged"),
        ([{"iteration": 1, "learned": [[0, 0, "x"]]}], "damaged"),
        ([{"iteration": True, "learned": []}], "damaged"),
    ],
)
def test_records_that_are_no_schedule_are_refused(lines, text):
    whole = [{"timesteps": 0, "total_timesteps": 9, "dropped": []} | line for line in lines]
    with pytest.raises(InputError, match=text):
        Recorded(from_lines(whole))
