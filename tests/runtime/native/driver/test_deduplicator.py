"""Which of many workers' lines are shown: lines in, lines out, the time is told."""

from shoal.runtime.native.driver.printer import Deduplicator


def test_a_line_is_shown_at_once():
    assert Deduplicator().add("a", ["hello", "world"], 0.0) == [("a", "hello"), ("a", "world")]


def test_the_same_line_of_others_is_counted_and_shown_when_the_window_is_over():
    d = Deduplicator()
    d.add("a", ["step 1 done"], 0.0)
    assert not d.waits
    assert d.add("b", ["step 2 done"], 1.0) == d.add("c", ["step 3 done"], 2.0) == []
    assert d.waits
    assert d.expire(4.9) == []
    [(who, line)] = d.expire(5.0)
    assert who == "c"
    assert line.startswith("step 3 done [repeated 2x across processes] (SHOAL_DEDUP_LOGS=0")
    assert not d.waits


def test_a_single_repetition_is_shown_as_it_is():
    d = Deduplicator()
    d.add("a", ["hello"], 0.0)
    d.add("b", ["hello"], 1.0)
    assert d.expire(6.0) == [("b", "hello")]


def test_what_one_process_repeats_is_all_shown():
    d = Deduplicator()
    assert [d.add("a", ["again"], float(i)) for i in range(3)] == [[("a", "again")]] * 3


def test_after_many_repetitions_the_next_window_begins_at_once():
    d = Deduplicator()
    for who in "abc":
        d.add(who, ["hello"], 0.0)
    assert len(d.expire(5.0)) == 1
    assert d.add("d", ["hello"], 6.0) == []
    assert d.expire(10.0) == [("d", "hello")]
    assert d.add("e", ["hello"], 11.0) == [("e", "hello")]


def test_lines_of_numbers_only_and_empty_lines_are_always_shown():
    d = Deduplicator()
    assert d.add("a", ["", "0.5", "1"], 0.0) + d.add("b", ["", "0.5", "1"], 0.0) == [
        (who, line) for who in "ab" for line in ("", "0.5", "1")
    ]


def test_the_hint_is_given_once():
    d = Deduplicator()
    for line in ("one", "two"):
        for who in "abc":
            d.add(who, [line], 0.0)
    assert [line for _, line in d.flush()] == [
        "one [repeated 2x across processes] (SHOAL_DEDUP_LOGS=0 shows each of them)",
        "two [repeated 2x across processes]",
    ]


def test_nothing_is_lost_at_the_end():
    d = Deduplicator()
    d.add("a", ["x", "y"], 0.0)
    d.add("b", ["y"], 0.0)
    assert d.flush() == [("b", "y")]
    assert d.flush() == []


def test_memory_is_bounded():
    d = Deduplicator(most_patterns=2)
    d.add("a", ["p", "q"], 0.0)
    d.add("b", ["p"], 0.0)
    assert d.add("a", ["r"], 0.0) == [("b", "p"), ("a", "r")]
    assert d.add("b", ["p"], 0.0) == [("b", "p")]
