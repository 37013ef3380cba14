"""The node's scheduler: who gets which resources, in which order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.runtime.core.resources.amounts import UNIT, in_units
from shoal.runtime.native.node.scheduler import PATIENCE, GrantGroup, Lease, Scheduler
from shoal.runtime.native.protocol.wire import Placement

A, B = b"driver-a", b"driver-b"
CPU = in_units({"CPU": 1})
BOTH = in_units({"CPU": 2})


@pytest.fixture
def scheduler():
    return Scheduler(in_units({"CPU": 2, "GPU": 1}), idle_slots=3)


def grants(scheduler, most=1000):
    """Return whom resources were granted to, as (asker, key)."""
    return [(lease.asker, lease.key) for lease in scheduler.grant(most)]


def take(scheduler, demand, count=1, key=99, asker=b"other"):
    """Return leases that somebody else has taken."""
    scheduler.want(asker, key, demand, count)
    return [lease for lease in scheduler.grant() if (lease.asker, lease.key) == (asker, key)]


def test_grants_as_many_as_fit_and_the_rest_when_something_is_given_back(scheduler):
    scheduler.want(A, 0, CPU, 3)
    first, second = scheduler.grant()
    assert (first.asker, first.key, first.demand) == (A, 0, CPU)
    assert scheduler.available() == {"CPU": 0, "GPU": UNIT}
    assert scheduler.grant() == []
    scheduler.release(second)
    assert grants(scheduler) == [(A, 0)]


def test_askers_take_turns(scheduler):
    scheduler.want(A, 0, CPU, 10)
    scheduler.want(B, 0, CPU, 10)
    assert grants(scheduler) == [(A, 0), (B, 0)]


def test_a_request_that_does_not_fit_lets_others_pass(scheduler):
    take(scheduler, CPU)
    scheduler.want(A, 0, BOTH, 1)
    scheduler.want(A, 1, CPU, 1)
    assert grants(scheduler) == [(A, 1)]


def test_a_new_wish_replaces_the_old_one(scheduler):
    (lease,) = take(scheduler, BOTH)
    scheduler.want(A, 0, CPU, 5)
    scheduler.want(A, 0, CPU, 1)
    scheduler.release(lease)
    assert len(scheduler.grant()) == 1
    scheduler.want(A, 0, CPU, 5)
    scheduler.want(A, 0, CPU, 0)
    assert scheduler.grant() == []


def test_a_worker_that_never_came_up_is_still_wanted(scheduler):
    (lease,) = take(scheduler, BOTH)
    scheduler.want(lease.asker, lease.key, BOTH, 1)
    scheduler.release(lease)
    scheduler.want_again(lease)
    (first,) = scheduler.grant()
    scheduler.release(first)
    (second,) = scheduler.grant()
    scheduler.release(second)
    assert scheduler.grant() == []


def test_actors_are_granted_beside_tasks(scheduler):
    scheduler.want_actor(A, b"actor", in_units({"GPU": 1}))
    scheduler.want_actor(A, b"free", {})
    scheduler.want_actor(A, b"later", in_units({"GPU": 0.5}))
    first, second = scheduler.grant()
    assert (first.key, second.key) == (b"actor", b"free")
    scheduler.forget_actor(b"later")
    scheduler.release(first)
    assert scheduler.grant() == []


def test_a_dead_asker_gets_nothing(scheduler):
    scheduler.want(A, 0, CPU, 1)
    scheduler.want_actor(A, b"actor", CPU)
    scheduler.want(B, 0, CPU, 1)
    scheduler.forget(A)
    assert grants(scheduler) == [(B, 0)]


def test_tasks_that_ask_for_nothing_are_limited_all_the_same(scheduler):
    scheduler.want(A, 0, {}, 10)
    leases = scheduler.grant()
    assert len(leases) == 3
    scheduler.release(leases[0])
    assert len(scheduler.grant()) == 1


@pytest.mark.parametrize(("amount", "fit"), [(0.1, 20), (0.0001, 20_000), (1 / 3, 6), (0.7, 2), (1 / 6, 12)])
def test_fractions_add_up_without_drift(scheduler, amount, fit):
    demand = in_units({"CPU": amount})
    scheduler.want(A, 0, demand, fit + 1)
    for _ in range(2):
        leases = scheduler.grant()
        assert len(leases) == fit
        for lease in leases:
            scheduler.release(lease)
        scheduler.want(A, 0, demand, fit + 1)
    assert scheduler.available()["CPU"] == 2 * UNIT


def test_a_task_that_wakes_up_may_overdraw_but_nothing_is_granted_until_it_is_paid_back(scheduler):
    (sleeper,) = take(scheduler, BOTH)
    scheduler.set_blocked(sleeper, True)
    scheduler.want(B, 0, BOTH, 1)
    (second,) = scheduler.grant()
    scheduler.set_blocked(sleeper, False)
    assert scheduler.available()["CPU"] == 0
    scheduler.want(A, 1, CPU, 1)
    scheduler.release(second)
    assert scheduler.grant() == []
    scheduler.release(sleeper)
    assert len(scheduler.grant()) == 1


def test_a_task_that_ends_while_it_is_blocked_gives_nothing_back_twice(scheduler):
    (lease,) = take(scheduler, BOTH)
    scheduler.set_blocked(lease, True)
    scheduler.set_blocked(lease, True)
    scheduler.release(lease)
    assert scheduler.available() == scheduler.total


# GPUs -----------------------------------------------------------------------------------------------------------------


def gpus_of(scheduler, *amounts):
    """Take GPUs one after the other; return the indices that each got."""
    result = []
    for number, amount in enumerate(amounts):
        leases = take(scheduler, in_units({"GPU": amount}), key=number)
        result.append(sorted(leases[0].gpus) if leases else None)
    return result


def test_whole_gpus_are_exclusive_and_shares_go_together():
    assert gpus_of(Scheduler(in_units({"CPU": 1, "GPU": 3}), 1), 0.5, 1, 0.25, 1, 0.25) == [[0], [1], [0], [2], [0]]


def test_shares_of_different_gpus_do_not_make_a_whole_one():
    scheduler = Scheduler(in_units({"CPU": 1, "GPU": 2}), 1)
    assert gpus_of(scheduler, 0.6, 0.6, 0.5, 1, 0.4, 0.4) == [[0], [1], None, None, [0], [1]]


def test_several_gpus_are_whole():
    assert gpus_of(Scheduler(in_units({"CPU": 1, "GPU": 4}), 1), 0.1, 2, 2, 1) == [[0], [1, 2], None, [3]]


# Placement groups -----------------------------------------------------------------------------------------------------


def grant_group(scheduler, group, *bundles):
    scheduler.want_group(group, {index: in_units(bundle) for index, bundle in enumerate(bundles)})
    return GrantGroup(group) in scheduler.grant()


def test_bundles_are_reserved_all_together_or_not_at_all(scheduler):
    (lease,) = take(scheduler, CPU)
    assert not grant_group(scheduler, b"group", {"CPU": 1}, {"CPU": 1})
    assert scheduler.available()["CPU"] == UNIT
    scheduler.release(lease)
    assert scheduler.grant() == [GrantGroup(b"group")]
    assert scheduler.available()["CPU"] == 0


def test_who_runs_in_a_bundle_draws_from_it_alone(scheduler):
    assert grant_group(scheduler, b"group", {"CPU": 1}, {"GPU": 1})
    scheduler.want(A, 0, CPU, 5, Placement(b"group", 0))
    scheduler.want(A, 1, CPU, 5, Placement(b"group", 1))
    scheduler.want(B, 0, CPU, 5)
    leases = scheduler.grant()
    assert [(lease.asker, lease.key, lease.bundle) for lease in leases] == [(A, 0, 0), (B, 0, -1)]
    scheduler.release(leases[0])
    assert grants(scheduler) == [(A, 0)]


def test_any_bundle_will_do(scheduler):
    assert grant_group(scheduler, b"group", {"CPU": 1}, {"CPU": 1})
    scheduler.want(A, 0, CPU, 5, Placement(b"group"))
    assert [lease.bundle for lease in scheduler.grant()] == [0, 1]


def test_gpus_of_a_bundle_are_those_that_it_reserved():
    scheduler = Scheduler(in_units({"CPU": 1, "GPU": 3}), 1)
    take(scheduler, in_units({"GPU": 1}))
    assert grant_group(scheduler, b"group", {"GPU": 0.5}, {"GPU": 1})
    scheduler.want(A, 0, in_units({"GPU": 0.5}), 5, Placement(b"group"))
    assert [(lease.bundle, *lease.gpus) for lease in scheduler.grant()] == [(0, 2), (1, 1), (1, 1)]


def test_a_group_that_is_dropped_gives_all_back_as_its_leases_end(scheduler):
    assert grant_group(scheduler, b"group", {"CPU": 1, "GPU": 1}, {"CPU": 1})
    scheduler.want(A, 0, CPU, 1, Placement(b"group", 0))
    scheduler.want_actor(A, b"actor", CPU, Placement(b"group", 0))
    (lease,) = scheduler.grant()
    scheduler.set_blocked(lease, True)
    assert scheduler.drop_group(b"group") == [lease]
    assert not scheduler.waits
    scheduler.set_blocked(lease, False)
    assert scheduler.available() == in_units({"CPU": 1, "GPU": 1})
    scheduler.release(lease)
    assert scheduler.available() == scheduler.total


def test_a_group_that_waits_can_be_dropped(scheduler):
    take(scheduler, CPU)
    assert not grant_group(scheduler, b"group", {"CPU": 2})
    scheduler.want(A, 0, CPU, 1, Placement(b"group", 0))
    assert scheduler.grant() == []
    assert scheduler.drop_group(b"group") == []
    assert not scheduler.waits


# Growing old ----------------------------------------------------------------------------------------------------------


def grow_old(scheduler, passes=PATIENCE):
    return [lease for _ in range(passes) for lease in scheduler.pass_by()]


@pytest.mark.parametrize("big", ["task", "actor", "group"])
def test_an_old_request_holds_what_becomes_free_and_calls_back_what_is_kept(scheduler, big):
    leases = take(scheduler, CPU, 2)
    if big == "task":
        scheduler.want(A, 0, BOTH, 1)
    elif big == "actor":
        scheduler.want_actor(A, b"actor", BOTH)
    else:
        scheduler.want_group(b"group", {0: CPU, 1: CPU})
    scheduler.want(b"other", 99, CPU, 10)
    assert set(grow_old(scheduler)) == set(leases), "both are in its way, and kept by one who has more to do"
    assert grow_old(scheduler, 1) == [], "nobody is asked twice"
    scheduler.release(leases[0])
    assert scheduler.grant() == []
    scheduler.release(leases[1])
    (granted,) = scheduler.grant()
    assert granted.asker == A if isinstance(granted, Lease) else granted == GrantGroup(b"group")


def test_who_has_got_something_does_not_grow_old(scheduler):
    take(scheduler, CPU, 1, key=0, asker=A)
    take(scheduler, CPU, 1, key=0, asker=B)
    scheduler.want(A, 0, CPU, 10)
    scheduler.want(B, 0, CPU, 10)
    assert grow_old(scheduler, 100) == []


def test_a_newcomer_gets_one_of_many_leases(scheduler):
    take(scheduler, in_units({"CPU": 0.5}), 3)
    (lonely,) = take(scheduler, in_units({"CPU": 0.5}), 1, key=5)
    scheduler.want(A, 0, in_units({"CPU": 0.5}), 1)
    (recalled,) = grow_old(scheduler)
    assert recalled is not lonely


def test_a_request_holds_only_what_it_needs(scheduler):
    (gpu,) = take(scheduler, in_units({"GPU": 1}))
    scheduler.want(A, 0, in_units({"GPU": 1}), 1)
    assert grow_old(scheduler) == [gpu]
    assert len(take(scheduler, CPU, 2, key=1)) == 2


@pytest.mark.parametrize("holder", ["actor", "blocked task", "group"])
def test_nothing_is_held_for_what_may_never_end(scheduler, holder):
    if holder == "actor":
        scheduler.want_actor(B, b"actor", CPU)
        scheduler.grant()
    elif holder == "group":
        grant_group(scheduler, b"group", {"CPU": 1})
    else:
        demand = in_units({"GPU": 1})
        scheduler.set_blocked(take(scheduler, demand)[0], True)
    scheduler.want(A, 0, in_units({"GPU": 1, "CPU": 1}) if holder == "blocked task" else BOTH, 1)
    assert grow_old(scheduler) == []
    assert len(take(scheduler, CPU, 1, key=1)) == 1


def test_whoever_holds_lets_others_pass_again_after_a_while(scheduler):
    take(scheduler, CPU, 1)
    scheduler.want(A, 0, BOTH, 1)
    scheduler.want(B, 0, CPU, 10**6)
    passed = []
    for _ in range(20 * PATIENCE):
        scheduler.pass_by()
        granted = [lease for lease in scheduler.grant() if lease.asker == B]
        passed.append(bool(granted))
        for lease in granted:
            scheduler.release(lease)
    changes = [i for i in range(1, len(passed)) if passed[i] != passed[i - 1]]
    assert changes == [PATIENCE - 1, 2 * PATIENCE - 1, 4 * PATIENCE - 1, 8 * PATIENCE - 1, 16 * PATIENCE - 1]


def test_old_requests_of_a_group_hold_its_bundle_only(scheduler):
    assert grant_group(scheduler, b"group", {"CPU": 1})
    (small,) = take_in(scheduler, in_units({"CPU": 0.5}), key=0)
    scheduler.want(A, 1, CPU, 1, Placement(b"group"))
    assert grow_old(scheduler) == [small]
    assert take_in(scheduler, in_units({"CPU": 0.5}), key=2) == []
    assert len(take(scheduler, CPU)) == 1


def take_in(scheduler, demand, key):
    scheduler.want(B, key, demand, 1, Placement(b"group", 0))
    return [lease for lease in scheduler.grant() if (lease.asker, lease.key) == (B, key)]


# Explaining -----------------------------------------------------------------------------------------------------------


def test_each_that_waits_is_told_why(scheduler):
    take(scheduler, CPU, 2)
    scheduler.want(A, 0, CPU, 3)
    scheduler.want_actor(A, b"actor", in_units({"GPU": 1, "CPU": 0.5}))
    scheduler.want_group(b"group", {0: in_units({"GPU": 2})})
    scheduler.want(A, 1, CPU, 1, Placement(b"group"))
    task, actor, group, inside = scheduler.waiting()
    held = "held by 2 workers for tasks and 0 actors"
    assert (task.required_resources, task.actor_id, task.count) == ({"CPU": 1}, None, 3)
    assert task.note == f"CPU 1 wanted, 0 of 2 free; {held}; number 1 of 4 in the queue"
    assert actor.actor_id == b"actor".hex()
    assert actor.note == f"CPU 0.5 wanted, 0 of 2 free; {held}; number 2 of 4 in the queue"
    assert group.note == f"GPU 2 wanted, 1 of 1 free; {held}; number 3 of 4 in the queue"
    assert inside.note == "its placement group has not been reserved yet; number 4 of 4 in the queue"


# All of it ------------------------------------------------------------------------------------------------------------

DEMANDS = [in_units(d) for d in ({"CPU": 1}, {"CPU": 2}, {"CPU": 0.5, "GPU": 1}, {"GPU": 0.3}, {"CPU": 0.3, "GPU": 2})]
GROUPS = {b"g0": [{"CPU": 1}, {"GPU": 1}], b"g1": [{"CPU": 1, "GPU": 0.5}, {"CPU": 1}]}
STEP = st.one_of(
    st.tuples(st.just("want"), st.sampled_from([A, B]), st.integers(0, 4), st.integers(0, 4)),
    st.tuples(st.just("actor"), st.sampled_from([A, B]), st.integers(0, 4)),
    st.tuples(st.just("group"), st.sampled_from(sorted(GROUPS))),
    st.tuples(st.just("drop"), st.sampled_from(sorted(GROUPS))),
    st.tuples(st.just("in group"), st.sampled_from(sorted(GROUPS)), st.integers(-1, 1), st.integers(0, 3)),
    st.tuples(st.just("release"), st.integers(0, 20)),
    st.tuples(st.just("block"), st.integers(0, 20), st.booleans()),
    st.tuples(st.just("pass")),
)


class Model:
    """Drives a scheduler and checks after each step that no resource is lent twice."""

    def __init__(self):
        self.scheduler = Scheduler(in_units({"CPU": 2, "GPU": 2}), idle_slots=2)
        self.leases, self.groups, self.wanted, self.actors = [], {}, set(), 0

    def step(self, kind, *rest):
        scheduler = self.scheduler
        if kind == "want":
            scheduler.want(rest[0], rest[1], DEMANDS[rest[1]], rest[2])
        elif kind == "actor":
            self.actors += 1
            scheduler.want_actor(rest[0], b"actor%d" % self.actors, DEMANDS[rest[1]])
        elif kind == "group" and rest[0] not in self.wanted:
            self.wanted.add(rest[0])
            scheduler.want_group(rest[0], {i: in_units(bundle) for i, bundle in enumerate(GROUPS[rest[0]])})
        elif kind == "drop":
            self.wanted.discard(rest[0])
            self.groups.pop(rest[0], None)
            assert all(lease in self.leases for lease in scheduler.drop_group(rest[0]))
        elif kind == "in group" and rest[0] in self.wanted:
            key = 10 + 10 * (rest[0] == b"g1") + rest[1]
            scheduler.want(A, key, in_units({"CPU": 0.5}), rest[2], Placement(rest[0], rest[1]))
        elif kind == "release" and self.leases:
            scheduler.release(self.leases.pop(rest[0] % len(self.leases)))
        elif kind == "block" and self.leases:
            lease = self.leases[rest[0] % len(self.leases)]
            if isinstance(lease.key, int):
                scheduler.set_blocked(lease, rest[1])
        elif kind == "pass":
            for lease in scheduler.pass_by():
                assert lease in self.leases
                assert isinstance(lease.key, int)
        for grant in scheduler.grant():
            if isinstance(grant, GrantGroup):
                self.groups[grant.group] = None
            else:
                self.leases.append(grant)

    def check(self):
        for name, total in self.scheduler.total.items():
            lent = sum(lease.held().get(name, 0) for lease in self.leases if lease.group is None)
            reserved = sum(in_units(bundle).get(name, 0) for group in self.groups for bundle in GROUPS[group])
            blocked = any(lease.blocked for lease in self.leases)
            assert lent + reserved <= total or (blocked or name == "CPU")
            assert self.scheduler.available()[name] == max(0, total - lent - reserved)
        shares = {}
        for lease in self.leases:
            for index, units in lease.gpus.items():
                shares[index] = shares.get(index, 0) + units
            assert sum(lease.gpus.values()) == lease.demand.get("GPU", 0)
        assert all(units <= UNIT for units in shares.values()), "a GPU is lent twice"


@given(st.lists(STEP, max_size=40))
def test_nothing_is_lent_twice_and_all_comes_back(steps):
    model = Model()
    for step in steps:
        model.step(*step)
        model.check()
    scheduler = model.scheduler
    # Whatever waits now is served in the end: nobody is passed for ever.
    for group in list(model.wanted):
        model.step("drop", group)
    for _ in range(1000):
        while model.leases:
            scheduler.release(model.leases.pop())
        model.step("pass")
        if not scheduler.waits and not model.leases:
            break
    assert not scheduler.waits
    assert scheduler.available() == scheduler.total


def test_what_is_to_be_spread_waits_for_the_head_where_there_are_several_nodes():
    scheduler = Scheduler({"CPU": UNIT}, idle_slots=1)
    scheduler.leaves_spreading = True
    scheduler.want(b"a", 1, {"CPU": UNIT}, 2, spread=True)
    assert scheduler.grant() == []
    assert scheduler.wishes() == [(b"a", 1, 2, True)]
    scheduler.want_more(b"a", 1, {"CPU": UNIT}, settled=True)
    assert scheduler.wishes() == [(b"a", 1, 2, True)]
    assert scheduler.withdraw(b"a", 1, spread=True)
    [lease] = scheduler.grant()
    assert (lease.asker, lease.key) == (b"a", 1)
    assert scheduler.wishes() == [(b"a", 1, 1, True)]
    scheduler.release(lease)
    scheduler.leaves_spreading = False
    assert len(scheduler.grant()) == 1
