"""The graph of waits: which processes can never go on."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.runtime.native.node.deadlocks import WaitGraph
from shoal.runtime.native.protocol.wire import Awaited

A, B, C, D = b"a", b"b", b"c", b"d"


def on(*makers):
    return [Awaited(list(ms) if isinstance(ms, tuple) else [ms], f"call of {ms!r}") for ms in makers]


def graph(**waits):
    result = WaitGraph()
    for name, awaited in waits.items():
        result.waits(name.encode(), 0, name, len(awaited), awaited)
    return result


def test_a_cycle_is_stuck_and_so_is_who_waits_for_it():
    waits = graph(a=on(B), b=on(A), c=on(A), d=on(b"x"))
    assert waits.stuck() == {A, B, C}
    assert waits.cycles() == [[A, B]]


def test_a_process_that_waits_for_itself_is_a_cycle():
    assert graph(a=on(A)).cycles() == [[A]]


def test_a_chain_is_no_cycle():
    assert graph(a=on(B), b=on(C)).cycles() == []


def test_a_wait_for_some_is_stuck_only_if_too_many_are():
    waits = graph(b=on(A))
    waits.waits(A, 0, "a", 1, on(B, C))
    assert waits.cycles() == []
    waits.waits(A, 0, "a", 2, on(B, C))
    assert waits.cycles() == [[A, B]]


def test_an_object_that_needs_several_processes_is_stuck_if_one_is():
    assert graph(a=on((C, B)), b=on(A)).cycles() == [[A, B]]


def test_of_two_cycles_the_one_that_the_other_waits_for_comes_first():
    waits = graph(a=on(B, C), b=on(A), c=on(D), d=on(C))
    assert waits.cycles() == [[C, D]]


def test_whoever_goes_on_frees_the_others():
    waits = graph(a=on(B), b=on(A))
    waits.goes_on(A)
    assert waits.stuck() == set()


def test_a_cycle_is_confirmed_when_all_have_reported_after_all_had_begun():
    waits = graph(a=on(B), b=on(A))
    assert not waits.is_confirmed([A, B])
    waits.waits(B, 0, "b", 1, on(A))
    assert not waits.is_confirmed([A, B])
    waits.waits(A, 0, "a", 1, on(B))
    assert waits.is_confirmed([A, B])
    waits.waits(A, 1, "a", 1, on(B))
    assert not waits.is_confirmed([A, B]), "that is another wait"


def test_the_whole_cycle_is_named():
    assert graph(a=on(B, C), b=on(A)).describe([A, B]) == "a waits for call of b'b'; b waits for call of b'a'"


PROCESSES = [A, B, C, D]
WAITS = st.dictionaries(
    st.sampled_from(PROCESSES),
    st.tuples(
        st.integers(1, 3), st.lists(st.lists(st.sampled_from([*PROCESSES, b"x"]), max_size=2), min_size=1, max_size=3)
    ),
)


@settings(max_examples=150, deadline=None)
@given(WAITS)
def test_stuck_is_whoever_no_order_of_events_can_free(waits):
    waits = {process: (min(needed, len(refs)), refs) for process, (needed, refs) in waits.items()}
    made = WaitGraph()
    for process, (needed, refs) in waits.items():
        made.waits(process, 0, "", needed, [Awaited(makers, "") for makers in refs])
    # Brute force: the largest set in which nobody gets enough from outside it.
    best = set()
    for size in range(len(waits) + 1):
        for candidate in itertools.combinations(sorted(waits), size):
            chosen = set(candidate)
            if all(
                sum(chosen.isdisjoint(makers) for makers in waits[process][1]) < waits[process][0] for process in chosen
            ):
                best |= chosen
    assert made.stuck() == best
    cycles = made.cycles()
    assert bool(cycles) == bool(best)
    for cycle in cycles:
        assert set(cycle) <= best
