"""Stages by hand-made numbers, values as sources, errors, memory and tensors; on the serial engine."""

import functools
import gc
import gzip
import json
import math
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shoal import data, runtime
from shoal.data.credits import Credits
from shoal.runtime import InputError


@pytest.fixture(autouse=True)
def serial():
    with runtime.init(engine="serial", num_cpus=2):
        yield


def rows(dataset):
    return list(dataset.iter_rows())


def test_rows_of_no_common_type_are_told_with_the_function_that_made_them():
    made = data.from_items([{"x": i} for i in range(4)]).map(lambda row: {"y": "b" if row["x"] == 2 else 1})
    with pytest.raises(InputError, match="column 'y': row 2 is 'b'") as told:
        made.count()
    assert told.value.__notes__ == [
        "in map(test_rows_of_no_common_type_are_told_with_the_function_that_made_them.<locals>.<lambda>), of 4 items, "
        "items 0 to 3"
    ]


def test_functions_of_batches_may_yield_several():
    def halves(batch):
        yield {"x": batch["x"][:2]}
        yield pa.table({"x": batch["x"][2:]})
        yield [{"x": -1}]

    def nothing(batch):
        yield from ()

    table = data.from_items([{"x": i} for i in range(6)], rows_per_piece=3)
    assert [row["x"] for row in rows(table.map_batches(halves))] == [0, 1, 2, -1, 3, 4, 5, -1]
    assert table.map_batches(nothing).count() == 0
    with pytest.raises(InputError, match="a batch is a dictionary"):
        table.map_batches(lambda batch: iter([1])).count()


def test_groups_are_those_of_all_units_together():
    values = [("a", 1.0), ("b", 10.0), ("a", 2.0), ("c", None), ("a", 6.0), ("b", 30.0)]
    table = data.from_items([{"k": k, "x": x} for k, x in values], rows_per_piece=2)
    found = table.groupby("k").aggregate(
        n=("x", "count"), t=("x", "sum"), m=("x", "mean"), v=("x", "var"), s=("x", "std"), lo=("x", "min")
    )
    # a: 1, 2, 6 has mean 3 and squares 4 + 1 + 9 = 14, over 2; b: 10, 30 has 100 + 100, over 1.
    assert rows(found) == [
        {"k": "a", "n": 3, "t": 9.0, "m": 3.0, "v": 7.0, "s": math.sqrt(7.0), "lo": 1.0},
        {"k": "b", "n": 2, "t": 40.0, "m": 20.0, "v": 200.0, "s": math.sqrt(200.0), "lo": 10.0},
        {"k": "c", "n": 0, "t": None, "m": None, "v": None, "s": None, "lo": None},
    ]
    far = data.from_items([{"k": 0, "x": 1e9 + i % 3} for i in range(300)], rows_per_piece=7)
    [row] = rows(far.groupby("k").aggregate(v=("x", "var")))
    assert row["v"] == pytest.approx(200 / 299, rel=1e-6)  # 100 each of −1, 0, 1
    with pytest.raises(InputError, match=r"no function 'men'\. Did you mean 'mean'"):
        table.groupby("k").aggregate(m=("x", "men"))


def test_sorting_is_stable_and_puts_what_cannot_be_compared_last(monkeypatch):
    monkeypatch.setattr("shoal.data.barriers.RANGE_BYTES", 64)  # several ranges
    keys = [3.0, None, 1.0, math.nan, 2.0, 1.0, 3.0, -1.0, 2.0, 1.0]
    table = data.from_items([{"k": k, "i": i} for i, k in enumerate(keys)], rows_per_piece=3)
    assert [row["i"] for row in rows(table.sort("k"))] == [7, 2, 5, 9, 4, 8, 0, 6, 3, 1]
    assert [row["i"] for row in rows(table.sort("k", descending=True))] == [0, 6, 4, 8, 2, 5, 9, 7, 3, 1]
    assert len(list(table.sort("k").iter_batches())) > 1


def test_batches_are_what_map_batches_gets():
    numbers = data.from_items(range(10), rows_per_piece=4)
    sizes = numbers.batch(3, drop_last=True).map_batches(lambda batch: {"n": [len(batch["item"])]})
    assert [row["n"] for row in rows(sizes)] == [3, 3, 3]
    assert [len(batch["item"]) for batch in numbers.batch(3).iter_batches()] == [3, 3, 3, 1]
    assert numbers.map_batches(lambda rows: rows[:1], batch_format="rows", batch_size=2).count() == 5
    with pytest.raises(InputError, match=r"zip: the left side has more rows"):
        rows(numbers.zip(numbers.take(9)))
    with pytest.raises(InputError, match=r"map has no option 'num_cpu'. Did you mean 'num_cpus'"):
        numbers.map(dict, num_cpu=2)
    for option, value in (("num_cpus", -1), ("num_gpus", "2"), ("resources", 5), ("fn_args", 3), ("fn_kwargs", [1])):
        with pytest.raises((InputError, TypeError), match=option):
            numbers.map(dict, **{option: value})
    for wrong in (lambda: numbers.zip([1]), lambda: numbers.union([numbers]), lambda: numbers.iter_batches(epoch=-1)):
        with pytest.raises((InputError, TypeError), match="is wanted"):
            wrong()
    with pytest.raises(runtime.InfeasibleError, match=r"^map\(dict\): task .* can never run: it asks for CPU 99"):
        numbers.map(dict, num_cpus=99).count()
    assert numbers.take(0).count() == 0
    assert numbers.filter(lambda row: False).repeat().count() == 0


def test_columns_that_are_not_there_are_named_when_the_plan_is_made_if_they_are_known():
    known = data.from_items([{"name": "a", "x": 1}]).shuffle().filter(bool).batch(2)
    for wrong in (
        lambda: known.sort("nam"),
        lambda: known.groupby(["x", "nam"]),
        lambda: known.groupby("x").aggregate(n=("nam", "count")),
        lambda: known.map(dict).sort("nam").count(),  # what a function gives is known when it is read
        lambda: known.map(dict).groupby("x").aggregate(n=("nam", "count")).count(),
        lambda: known.groupby("x").aggregate(y=("x", "sum")).sort(["y", "nam"]),
    ):
        with pytest.raises(InputError, match=r"(sort|groupby|aggregate): there is no column 'nam'\. (Did|Known: x, y)"):
            wrong()
    with pytest.raises(InputError, match="the groups' key has that name already"):
        known.groupby("x").aggregate(x=("x", "sum"))
    twice = data.from_items([{"x_sum": i % 2, "x": i} for i in range(5)], rows_per_piece=2)
    assert rows(twice.groupby("x_sum").aggregate(s=("x", "sum"))) == [{"x_sum": 0, "s": 6}, {"x_sum": 1, "s": 4}]


def test_what_a_function_is_given_tells_plans_apart():
    numbers = data.from_items(range(3))

    def prints(call, **options):
        return numbers.map_batches(call, **options).fingerprint()

    one, two = functools.partial(add, 1), functools.partial(add, 2)
    assert prints(one) == prints(functools.partial(add, 1)) != prints(two)
    assert prints(add, fn_args=(1,)) == prints(add, fn_args=(1,)) != prints(add, fn_args=(2,))
    assert prints(add) != prints(dict)


def add(batch, number):
    return {"item": batch["item"] + number}


def noise(row):
    return {"noise": random.random()}


def test_stages_draw_apart_and_those_that_follow_change_nothing():
    numbers = data.from_items(range(4), rows_per_piece=2).map(noise)
    left, right = zip(*(row.values() for row in rows(numbers.zip(numbers))), strict=True)
    again = [row["noise"] for row in rows(numbers.union(numbers).batch(3))]
    assert len({*left, *right}) == 8
    assert [*left, *right] == again
    assert list(left) == [row["noise"] for row in rows(numbers)]


def test_a_state_is_where_the_next_batch_begins_also_after_an_error_and_a_damaged_one_is_refused():
    batches = data.from_items(range(6), rows_per_piece=1).map(picky).iter_batches(2)
    assert next(batches)["item"].tolist() == [0, 1]
    state = batches.state()
    for _ in range(2):
        with pytest.raises(ValueError, match="I do not like 3"):
            next(batches)
        assert batches.state() == state
    for part in ({"cursor": [0, [5]]}, {"cursor": [0, ["a"]]}, {"batch": 2}, {"epoch": None}, {"check": ""}):
        with pytest.raises(InputError, match="is damaged: no iterator's state"):
            data.from_items(range(6), rows_per_piece=1).map(picky).iter_batches(2, state={**state, **part})
    tensors = data.from_items(range(6)).to_torch(2)
    next(tensors)
    state = tensors.state()
    tensors.close()
    assert (next(tensors, None), tensors.state()) == (None, state)


def test_tensors_that_are_missing_are_nan_or_none():
    pictures = data.from_items([{"x": np.full((2, 2), i)} for i in range(2)])
    both = data.from_items([{"y": 1}]).union(pictures)
    [batch] = both.iter_batches(3)
    assert batch["x"].dtype == np.float64
    assert np.isnan(batch["x"][0]).all()
    assert batch["x"][2].tolist() == [[1, 1], [1, 1]]
    [batch] = both.iter_batches(3, batch_format="rows")
    assert [row["x"] is None for row in batch] == [True, False, False]


def test_what_functions_may_not_return_is_told_by_function_and_row():
    numbers = data.from_items(range(3))
    for kind, made, message in (
        ("map", lambda row: None, "it returned None; a dictionary of values by column is wanted"),
        ("flat_map", lambda row: [row, 5], "it returned a row that is 5; a dictionary is wanted"),
        ("filter", lambda row: np.arange(2), "truth value"),
        ("map_batches", lambda batch: {"x": batch["item"].sum()}, r"column 'x' of a batch is .*3\)?; a list or array"),
        ("map_batches", lambda batch: {"x": "abc"}, "column 'x' of a batch is 'abc'; a list or array"),
    ):
        with pytest.raises((TypeError, ValueError), match=message) as caught:
            getattr(numbers, kind)(made).count()
        assert any(f"in {kind}(" in note for note in caught.value.__notes__)
    days = data.from_items([{"day": np.datetime64("2026-11-29")}, {"day": None}])
    assert [str(row["day"]) for row in rows(days)] == ["2026-11-29", "None"]


def test_items_are_tables_that_all_pieces_share():
    assert len(data.from_items(range(10), rows_per_piece=3).plan.source.tables) == 1
    given = [{"x": 1}, {"x": 2}, {"x": 0.5}, {"y": "a"}, {"x": 3}]
    mixed = data.from_items(given, rows_per_piece=1)
    assert rows(mixed) == given
    assert mixed.to_table()["x"].to_pylist() == [1.0, 2.0, 0.5, None, 3.0]
    assert rows(data.from_items([])) == []


def test_numpy_files_and_torch_datasets(tmp_path):
    import torch

    np.save(tmp_path / "a.npy", np.arange(24, dtype=np.float32).reshape(4, 3, 2))
    np.savez(tmp_path / "b.npz", x=np.arange(3), y=np.ones((3, 2)))
    found = data.read_numpy(tmp_path / "a.npy").to_torch(3, prefetch=1)
    assert [batch["data"].shape for batch in found] == [(3, 3, 2), (1, 3, 2)]
    assert data.read_numpy(tmp_path / "b.npz").schema().names == ["x", "y"]
    pairs = torch.utils.data.TensorDataset(torch.arange(12.0).reshape(6, 2), torch.arange(6))
    dataset = data.from_torch(pairs, columns=("x", "label"), rows_per_piece=4).shuffle(seed=1, window=3)
    with dataset.to_torch(4, prefetch=2) as batches:
        first = next(batches)
        rest = list(dataset.to_torch(4, prefetch=0, state=batches.state()))
    assert torch.equal(first["x"][:, 0], 2.0 * first["label"])
    first["x"].add_(1)  # its memory is its own
    assert sorted(torch.cat([first["label"], rest[0]["label"]]).tolist()) == list(range(6))
    assert rest[0]["label"].dtype == torch.int64


def test_tensors_for_a_gpu_come_from_pinned_memory(monkeypatch):
    import torch

    asked, empty = [], torch.empty
    monkeypatch.setattr(
        torch, "empty", lambda *shape, pin_memory, **of: asked.append(pin_memory) or empty(*shape, **of)
    )
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device, **how: asked.append((device, how)) or self)
    items = [{"x": np.full((2, 2), i, np.float32), "name": "a", "n": i} for i in range(3)]
    with data.from_items(items).to_torch(3, device="cuda:1") as batches:
        batch = next(batches)
    assert asked == [True, ("cuda:1", {"non_blocking": True})] * 2
    assert batch["x"][:, 0, 1].tolist() == batch["n"].tolist() == [0, 1, 2]
    assert (batch["x"].dtype, batch["n"].dtype, batch["name"]) == (torch.float32, torch.int64, ["a"] * 3)


def picky(row):
    if row["item"] == 3:
        raise ValueError("I do not like 3")
    return row


def even(row):
    if row["item"] % 2:
        raise ValueError("odd")
    return row


def test_what_is_bad_is_named_or_counted_and_set_aside(tmp_path):
    numbers = data.from_items(range(6), rows_per_piece=2)
    with pytest.raises(ValueError, match="I do not like 3") as caught:
        rows(numbers.map(picky))
    assert caught.value.__notes__ == ["in map(picky), row 1 of 6 items, items 2 to 3"]

    pq.write_table(
        pa.table({"a": np.arange(300), "b": np.random.rand(300)}), tmp_path / "x.parquet", row_group_size=100
    )
    whole = (tmp_path / "x.parquet").read_bytes()
    place = pq.ParquetFile(tmp_path / "x.parquet").metadata.row_group(1).column(1).dictionary_page_offset
    (tmp_path / "x.parquet").write_bytes(whole[:place] + b"\xff" * 40 + whole[place + 40 :])
    with pytest.raises(data.DataError, match=r"x\.parquet, row group 1, column 'b': it cannot be read"):
        data.read_parquet(tmp_path / "x.parquet").count()
    aside = tmp_path / "bad.jsonl"
    batches = data.read_parquet(tmp_path / "x.parquet", on_error="skip", bad_rows=aside).iter_batches()
    assert sum(len(batch["a"]) for batch in batches) == 200
    assert batches.stats().bad_rows == {str(tmp_path / "x.parquet"): 100}
    [row] = map(json.loads, aside.read_text().splitlines())
    assert (row["where"], row["column"]) == ("row group 1", "b")

    evens = data.from_torch(range(40), rows_per_piece=4, on_error="skip").map(even)
    batches = evens.take(7).map_batches(dict, num_cpus=0.5).iter_batches()
    assert sum(len(batch["item"]) for batch in batches) == 7
    assert batches.stats().bad_rows == {"range": 8}  # of the four pieces that rows were taken of, each once


def test_what_does_not_fit_into_the_budget_is_refused_with_its_size(tmp_path):
    pq.write_table(pa.table({"a": np.random.rand(40_000)}), tmp_path / "x.parquet", row_group_size=20_000)
    numbers = data.read_parquet(tmp_path / "x.parquet")
    with pytest.raises(data.BudgetError, match=r"x.parquet, row group 0 takes 197.6 KB, .* budget of 100.0 KB"):
        numbers.options(memory=100_000).count()
    with pytest.raises(data.BudgetError, match=r"window 0 of epoch 0 takes about \d+.\d KB"):
        numbers.shuffle(window=40_000).options(memory=500_000).count()
    many = data.from_items(range(40_000), rows_per_piece=500).shuffle(window=20_000)
    # A window takes 160 KB, and is made of as much: pieces must not fill the rest before there is one.
    for dataset, memory in ((numbers.shuffle(window=5_000), 1_000_000), (many, 400_000)):
        batches = dataset.options(memory=memory, readers=2).iter_batches(100)
        assert sum(1 for _ in batches) == 400
        assert batches.stats().peak_bytes <= memory
    few = data.from_items(range(5_000), rows_per_piece=500).options(memory=40_000, readers=2)
    for some in (few.take(700), few.shuffle(window=500).take(700), few.batch(900, drop_last=True)):
        # Pieces that are read in vain hold no memory in the next epochs.
        assert some.repeat(10).count() == 10 * some.count()


def test_what_nobody_declares_is_expected_to_be_as_large_as_what_was_seen(tmp_path):
    for part in range(8):
        (tmp_path / f"{part}.jsonl.gz").write_bytes(gzip.compress(b'{"x": 1.5}\n' * 10_000))  # 80 KB of numbers each
    packed = data.read_json(tmp_path).options(memory=400_000, readers=4)
    with packed.iter_batches() as batches:
        assert sum(len(batch["x"]) for batch in batches) == 80_000
        assert 160_000 <= batches.stats().peak_bytes <= 400_000  # two that run, or four that wait


def test_what_is_granted_is_among_the_metrics():
    def shown():
        return {gauge.name: gauge.value for gauge in runtime.state.status().gauges}

    gc.collect()  # readings of other tests that failed half-way, as they were to
    numbers = data.from_items(range(6_000), rows_per_piece=2_000).options(memory=10**6)
    with numbers.iter_batches(1_000) as first, numbers.iter_batches(1_000) as second:
        next(first)
        next(second)
        found = shown()
        assert found["data_budget_bytes"] == 2 * 10**6
        assert 2 * 16_000 <= found["data_bytes"] <= first.stats().peak_bytes + second.stats().peak_bytes
    assert (shown()["data_bytes"], shown()["data_budget_bytes"]) == (0, 0)


def test_credits_are_bounded_and_kept_back_for_the_last_stages():
    ledger = Credits(100)
    ledger.keep_back(0, 10)
    first = ledger.grant(30, depth=1)
    assert ledger.total == 60
    assert ledger.grant(11, depth=1) is None  # 22 would be left free of the 20 that are kept back
    assert ledger.grant(20, depth=0) is not None
    ledger.settle(first, 30)
    assert (ledger.total, ledger.peak) == (70, 100)
    assert ledger.grant(30, depth=1) is None
    assert ledger.grant(30, depth=1, alone=True) is not None


def test_a_dataset_shows_its_stages_in_a_line(tmp_path):
    numbers = data.from_items(range(100), rows_per_piece=1)
    assert repr(numbers.batch(2).filter(bool)) == (
        "Dataset(TableSource(100 items) → batch(size=2, drop_last=False) → filter(bool))"
    )
    for number in range(100):
        (tmp_path / f"{number}.txt").write_text("a line\n")
    texts = data.read_text(str(tmp_path))
    assert repr(texts) == "Dataset(TextSource(100 files))", "of a hundred files not their names"
    [_, second] = texts.union(numbers.take(3)).split(2)
    assert repr(second) == "Dataset(union(TextSource(100 files), TableSource(100 items) → take(rows=3)), share 1 of 2)"
