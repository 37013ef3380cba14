"""Which node takes what another cannot grant: events in, moves out."""

import itertools

from shoal.runtime.core.resources.amounts import in_units
from shoal.runtime.native.node.spreading import BANDWIDTH, NodeState, Spreading, choose, estimated_wait
from shoal.runtime.native.protocol.messages import ActorWanted, Job, NodeLoad, Placement, WantLeases, Wish

HEAD, OTHER, THIRD = b"head", b"othr", b"thrd"
CPU = in_units({"CPU": 1})


def state(total, free, *, waiting=0, seconds=1.0):
    wishes = [wish(count=waiting)] if waiting else []
    return NodeState(in_units(total), {"CPU": 0} | in_units(free), wishes, seconds)


def wish(demand=CPU, count=1, actor=None, in_group=False, spread=False):
    placement = Placement(b"group") if in_group else None
    if actor is None:
        return Wish(b"asker-01", count, WantLeases(0, demand, count, Job(), placement=placement, spread=spread))
    return Wish(b"asker-01", count, ActorWanted(actor, b"asker-01", "Actor", demand, Job(), placement=placement))


def spreading(**totals):
    table = Spreading(HEAD)
    for name, total in totals.items():
        table.joined({"head": HEAD, "other": OTHER, "third": THIRD}[name], {"CPU": 0} | in_units(total))
    return table


def report(table, node, free, *wishes, seen=0):
    table.nodes[node].report(NodeLoad({"CPU": 0} | in_units(free), list(wishes), 1.0, seen))


def moves(table):
    return [(move.home, move.to) for move in table.moves()]


def test_the_wait_is_queue_times_average_plus_missing_input_over_bandwidth():
    assert estimated_wait(state({"CPU": 2}, {"CPU": 1}), CPU, 0) == 0
    assert estimated_wait(state({"CPU": 2}, {"CPU": 1}), CPU, BANDWIDTH) == 1
    assert estimated_wait(state({"CPU": 2}, {}, waiting=3, seconds=0.5), CPU, 0) == 4 * 0.5 / 2
    assert estimated_wait(state({"CPU": 2}, {"CPU": 2}), in_units({"GPU": 1}), 0) == float("inf")


def test_the_lowest_wait_wins_and_in_doubt_home():
    free, busy = state({"CPU": 1}, {"CPU": 1}), state({"CPU": 1}, {}, waiting=1)
    assert choose({HEAD: busy, OTHER: free}, HEAD, CPU, {}) == OTHER
    assert choose({HEAD: free, OTHER: free}, OTHER, CPU, {}) == OTHER
    assert choose({HEAD: free}, HEAD, in_units({"B": 1}), {}) is None


def test_a_short_queue_beside_the_input_beats_an_idle_node_without_it():
    near, far = state({"CPU": 1}, {}, seconds=0.01), state({"CPU": 1}, {"CPU": 1})
    assert choose({HEAD: far, OTHER: near}, HEAD, CPU, {OTHER: int(BANDWIDTH)}) == OTHER
    assert choose({HEAD: far, OTHER: near}, HEAD, CPU, {OTHER: 1000}) == HEAD


def test_what_asks_for_nothing_runs_where_there_is_a_cpu():
    assert choose({HEAD: state({}, {}), OTHER: state({"CPU": 1}, {})}, HEAD, {}, {}) == OTHER
    assert choose({HEAD: state({}, {})}, HEAD, {}, {}) == HEAD


def test_as_much_is_moved_as_has_room():
    table = spreading(head={"CPU": 1}, other={"CPU": 2})
    report(table, HEAD, {}, wish(count=5))
    assert moves(table) == [(HEAD, OTHER)] * 2
    assert moves(table) == []


def test_a_report_from_before_a_decision_does_not_undo_it():
    table = spreading(head={"CPU": 1}, other={"CPU": 1})
    report(table, HEAD, {}, wish(count=2))
    assert moves(table) == [(HEAD, OTHER)]
    report(table, OTHER, {"CPU": 1}, seen=0)
    report(table, HEAD, {}, wish(count=2), seen=0)
    assert moves(table) == []
    report(table, HEAD, {}, wish(count=1), seen=1)
    report(table, OTHER, {"CPU": 1}, seen=1)
    assert moves(table) == [(HEAD, OTHER)]


def test_an_actor_that_a_dead_node_was_to_make_is_given_back():
    table = spreading(head={"CPU": 1}, other={"B": 1, "CPU": 1}, third={"CPU": 1})
    actor = wish(in_units({"B": 1}), actor=b"actor-01")
    report(table, HEAD, {"CPU": 1}, actor)
    assert moves(table) == [(HEAD, OTHER)]
    assert table.died(OTHER) == [actor]
    assert table.died(THIRD) == []


def test_what_runs_in_a_placement_group_goes_to_the_head():
    table = spreading(head={"CPU": 1}, other={"CPU": 1})
    report(table, OTHER, {"CPU": 1}, wish(in_group=True))
    assert moves(table) == [(OTHER, HEAD)]


def test_what_is_to_be_spread_goes_in_turn_first_to_those_with_room():
    table = spreading(head={"CPU": 1}, other={"CPU": 3}, third={})
    report(table, HEAD, {"CPU": 1}, wish(count=7, spread=True))
    assert [to for _, to in moves(table)] == [HEAD, OTHER, OTHER, OTHER, HEAD, OTHER, HEAD]


def test_one_at_a_time_is_spread_all_the_same():
    table = spreading(head={"CPU": 2}, other={"CPU": 2})
    taken = []
    for _ in range(4):
        report(table, HEAD, {"CPU": 2}, wish(spread=True), seen=9)
        report(table, OTHER, {"CPU": 2}, seen=9)
        taken += [to for _, to in moves(table)]
    assert taken == [HEAD, OTHER] * 2


def test_what_is_to_be_spread_and_asks_for_nothing_goes_where_there_is_a_cpu():
    table = spreading(head={}, other={"CPU": 1}, third={"CPU": 1})
    assert [table.next_node({}) for _ in range(3)] == [OTHER, THIRD, OTHER]


def test_a_node_that_does_not_say_what_it_has_seen_is_given_no_more_after_a_while():
    table = spreading(head={"CPU": 1}, other={})
    report(table, OTHER, {}, wish({}, count=1 << 40))
    first = list(itertools.islice(table.moves(), 5000))
    assert len(first) == 1000
    assert moves(table) == []
    report(table, OTHER, {}, wish({}, count=(1 << 40) - 10), seen=10)
    assert moves(table) == [(OTHER, HEAD)] * 10
