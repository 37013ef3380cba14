"""The node's scheduler: who gets which resources, in which order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.runtime.native.scheduler import GrantActor, GrantLease, Scheduler

A, B = b"driver-a", b"driver-b"
CPU = {"CPU": 1.0}


@pytest.fixture
def scheduler():
    return Scheduler({"CPU": 2.0, "GPU": 1.0}, idle_slots=3)


def test_grants_as_many_as_fit_and_the_rest_when_something_is_given_back(scheduler):
    scheduler.want(A, 0, CPU, 3)
    assert scheduler.grant() == [GrantLease(A, 0, CPU)] * 2
    assert scheduler.available() == {"CPU": 0.0, "GPU": 1.0}
    assert scheduler.grant() == []
    scheduler.give_back(CPU)
    scheduler.end_lease(CPU)
    assert scheduler.grant() == [GrantLease(A, 0, CPU)]


def test_askers_take_turns(scheduler):
    scheduler.want(A, 0, CPU, 10)
    scheduler.want(B, 0, CPU, 10)
    assert [grant.asker for grant in scheduler.grant()] == [A, B]


def test_a_request_that_does_not_fit_lets_others_pass(scheduler):
    scheduler.take(CPU)
    scheduler.want(A, 0, {"CPU": 2.0}, 1)
    scheduler.want(A, 1, CPU, 1)
    assert scheduler.grant() == [GrantLease(A, 1, CPU)]


def test_a_new_wish_replaces_the_old_one(scheduler):
    scheduler.take({"CPU": 2.0})
    scheduler.want(A, 0, CPU, 5)
    scheduler.want(A, 0, CPU, 1)
    scheduler.give_back({"CPU": 2.0})
    assert len(scheduler.grant()) == 1
    scheduler.want(A, 0, CPU, 5)
    scheduler.want(A, 0, CPU, 0)
    assert scheduler.grant() == []


def test_one_more_adds_to_what_is_still_wanted(scheduler):
    scheduler.take({"CPU": 2.0})
    scheduler.want(A, 0, CPU, 1)
    scheduler.want_again(A, 0, CPU)
    scheduler.give_back({"CPU": 2.0})
    assert len(scheduler.grant()) == 2
    scheduler.give_back({"CPU": 2.0})
    scheduler.want_again(A, 0, CPU)
    assert scheduler.grant() == [GrantLease(A, 0, CPU)]


def test_actors_are_granted_beside_tasks(scheduler):
    scheduler.want_actor(A, b"actor", {"GPU": 1.0})
    scheduler.want_actor(A, b"free", {})
    scheduler.want_actor(A, b"later", {"GPU": 0.5})
    assert scheduler.grant() == [GrantActor(b"actor"), GrantActor(b"free")]
    scheduler.forget_actor(b"later")
    scheduler.give_back({"GPU": 1.0})
    assert scheduler.grant() == []


def test_a_dead_asker_gets_nothing(scheduler):
    scheduler.want(A, 0, CPU, 1)
    scheduler.want_actor(A, b"actor", CPU)
    scheduler.want(B, 0, CPU, 1)
    scheduler.forget(A)
    assert scheduler.grant() == [GrantLease(B, 0, CPU)]


def test_tasks_that_ask_for_nothing_are_limited_all_the_same(scheduler):
    scheduler.want(A, 0, {}, 10)
    assert len(scheduler.grant()) == 3
    scheduler.give_back({})
    scheduler.end_lease({})
    assert len(scheduler.grant()) == 1


def test_fractions_add_up(scheduler):
    scheduler.want(A, 0, {"CPU": 0.1}, 30)
    assert len(scheduler.grant()) == 20


def test_a_task_that_wakes_up_may_overdraw_but_nothing_is_granted_until_it_is_paid_back(scheduler):
    scheduler.want(A, 0, {"CPU": 2.0}, 1)
    scheduler.grant()
    scheduler.give_back({"CPU": 2.0})  # it blocks
    scheduler.want(B, 0, {"CPU": 2.0}, 1)
    assert len(scheduler.grant()) == 1
    scheduler.take({"CPU": 2.0})  # it goes on
    assert scheduler.available()["CPU"] == 0
    scheduler.want(A, 1, CPU, 1)
    scheduler.give_back({"CPU": 2.0})
    assert scheduler.grant() == []
    scheduler.give_back({"CPU": 2.0})
    assert len(scheduler.grant()) == 1


@given(
    st.lists(
        st.tuples(st.sampled_from([A, B]), st.integers(0, 2), st.integers(0, 4), st.booleans()), min_size=1, max_size=30
    )
)
def test_never_more_is_granted_than_there_is_and_everyone_is_served_in_the_end(steps):
    demands = [{"CPU": 1.0}, {"CPU": 2.0}, {"CPU": 0.5, "GPU": 1.0}]
    scheduler = Scheduler({"CPU": 2.0, "GPU": 1.0}, idle_slots=2)
    held = []
    wanted = {}
    for asker, key, count, release in steps:
        scheduler.want(asker, key, demands[key], count)
        wanted[asker, key] = count
        for grant in scheduler.grant():
            wanted[grant.asker, grant.key] -= 1
            held.append(grant.demand)
        for name, total in scheduler.total.items():
            assert sum(demand.get(name, 0) for demand in held) <= total
        if release and held:
            demand = held.pop()
            scheduler.give_back(demand)
            scheduler.end_lease(demand)
    while any(count > 0 for count in wanted.values()):
        while held:
            demand = held.pop()
            scheduler.give_back(demand)
            scheduler.end_lease(demand)
        grants = scheduler.grant()
        assert grants, "something is wanted and everything is free, but nothing is granted"
        for grant in grants:
            wanted[grant.asker, grant.key] -= 1
            held.append(grant.demand)
