"""On which nodes the bundles of a placement group go."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.runtime.core.resources.amounts import in_units
from shoal.runtime.core.resources.capacity import Capacity
from shoal.runtime.core.resources.placement import place
from shoal.runtime.core.scheduling import GROUP_STRATEGIES


def nodes(*amounts):
    return [Capacity(in_units(amount)) for amount in amounts]


def where(strategy, bundles, *amounts):
    return place([in_units(bundle) for bundle in bundles], strategy, nodes(*amounts))


CPU = {"CPU": 1}


def test_pack_takes_as_few_nodes_as_possible():
    assert where("PACK", [CPU] * 3, {"CPU": 2}, {"CPU": 3}, {"CPU": 2}) == [1, 1, 1]
    assert len(set(where("PACK", [CPU] * 4, {"CPU": 2}, {"CPU": 1}, {"CPU": 2}))) == 2


def test_spread_takes_as_many_as_possible_and_then_evenly():
    assert sorted(where("SPREAD", [CPU] * 3, {"CPU": 4}, {"CPU": 4}, {"CPU": 4})) == [0, 1, 2]
    assert sorted(where("SPREAD", [CPU] * 4, {"CPU": 4}, {"CPU": 4})) == [0, 0, 1, 1]
    assert sorted(where("SPREAD", [CPU] * 3, {"CPU": 3}, {"GPU": 3})) == [0, 0, 0]


def test_strict_pack_takes_one_node_or_none():
    assert where("STRICT_PACK", [CPU] * 3, {"CPU": 2}, {"CPU": 3}) == [1, 1, 1]
    assert where("STRICT_PACK", [CPU] * 4, {"CPU": 2}, {"CPU": 3}) is None


def test_strict_spread_takes_a_node_for_each_or_none():
    assert where("STRICT_SPREAD", [CPU, {"GPU": 1}], {"CPU": 1, "GPU": 1}, {"CPU": 1}) == [1, 0]
    assert where("STRICT_SPREAD", [CPU, CPU], {"CPU": 9}) is None


def test_a_share_of_a_gpu_is_of_one_gpu():
    assert where("PACK", [{"GPU": 0.6}] * 3, {"GPU": 2}) is None
    assert where("PACK", [{"GPU": 0.4}, {"GPU": 0.4}, {"GPU": 0.6}, {"GPU": 0.6}], {"GPU": 2}) == [0] * 4


def test_nothing_is_taken_by_asking():
    machine = nodes({"CPU": 2, "GPU": 1})
    place([in_units({"CPU": 2, "GPU": 0.5})], "PACK", machine)
    assert machine[0].free == machine[0].total


def test_many_bundles_are_placed_soon_and_many_that_do_not_fit_refused_soon():
    assert where("PACK", [CPU] * 200, *[{"CPU": 2}] * 100) is not None
    assert where("SPREAD", [{"CPU": 0.7}] * 30, *[{"CPU": 2}] * 10) is None


def fits(bundles, chosen, machine):
    trial = [node.copy() for node in machine]
    for index, node in enumerate(trial):
        mine = {i: bundles[i] for i in range(len(bundles)) if chosen[i] == index}
        if node.take_all(mine) is None:
            return False
    return True


AMOUNTS = st.fixed_dictionaries({"CPU": st.integers(0, 3), "GPU": st.integers(0, 2)})
BUNDLES = st.fixed_dictionaries({"CPU": st.sampled_from([0, 1, 2]), "GPU": st.sampled_from([0, 0, 0.5, 1])})


@settings(max_examples=100, deadline=None)
@given(st.lists(AMOUNTS, min_size=1, max_size=3), st.lists(BUNDLES, min_size=1, max_size=4))
def test_finds_what_trying_everything_finds(amounts, wanted):
    machine, bundles = nodes(*amounts), [in_units(bundle) or in_units(CPU) for bundle in wanted]
    possible = [
        chosen
        for chosen in itertools.product(range(len(machine)), repeat=len(bundles))
        if fits(bundles, chosen, machine)
    ]
    best = {
        "PACK": min((len(set(chosen)) for chosen in possible), default=None),
        "SPREAD": min((max(map(chosen.count, chosen)) for chosen in possible), default=None),
        "STRICT_PACK": min((1 for chosen in possible if len(set(chosen)) == 1), default=None),
        "STRICT_SPREAD": min((1 for chosen in possible if len(set(chosen)) == len(chosen)), default=None),
    }
    for strategy in GROUP_STRATEGIES:
        found = place(bundles, strategy, machine)
        assert (found is None) == (best[strategy] is None), strategy
        if found is None:
            continue
        assert fits(bundles, found, machine)
        score = len(set(found)) if strategy == "PACK" else max(map(found.count, found))
        assert score == best[strategy] if strategy in ("PACK", "SPREAD") else tuple(found) in possible


@pytest.mark.parametrize("strategy", GROUP_STRATEGIES)
def test_no_nodes_hold_nothing(strategy):
    assert place([in_units(CPU)], strategy, []) is None


def test_bundles_may_be_more_than_calls_can_be_nested():
    assert place([in_units({"CPU": 1})] * 5000, "PACK", [Capacity(in_units({"CPU": 5000}))]) == [0] * 5000
    assert place([in_units({"CPU": 1})] * 5001, "PACK", [Capacity(in_units({"CPU": 5000}))]) is None
