"""Tables as models take them, scores, and early stopping, by hand."""

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from shoal.rl.supervised.algorithm import FitState
from shoal.rl.supervised.scores import scores
from shoal.rl.supervised.table import TableSchema, read_table, split_rows
from shoal.runtime import InputError

COLUMNS = {
    "size": pa.array([1.5, None, 3.0, 4.0]),
    "count": pa.array([1, None, 3, 4]),
    "city": pa.array(["Bonn", "Aachen", None, "Bonn"]),
    "sold": pa.array(["no", "yes", "yes", "no"]),
}


def test_missing_values_are_nan_and_categories_are_codes(tmp_path):
    table = pa.table(COLUMNS)
    parquet.write_table(table, tmp_path / "homes.parquet")
    csv.write_csv(table, tmp_path / "homes.csv", csv.WriteOptions(quoting_style="needed"))
    nan = np.nan
    wanted = np.asarray([[1.5, 1, 1], [nan, nan, 0], [3, 3, nan], [4, 4, 1]], np.float32)
    for given in (table, tmp_path / "homes.parquet"):
        found = read_table(given, "sold")
        np.testing.assert_array_equal(found.features, wanted)
        np.testing.assert_array_equal(found.labels, [0, 1, 1, 0])
        assert found.schema.classes == ("no", "yes")
    assert TableSchema.from_json(found.schema.to_json()) == found.schema
    unknown = read_table(pa.table({**COLUMNS, "city": ["Köln"] * 4}), "sold", schema=found.schema)
    assert np.isnan(unknown.features[:, 2]).all()
    from_csv = read_table(tmp_path / "homes.csv", "sold").features
    np.testing.assert_array_equal(from_csv[:, :2], wanted[:, :2])


def test_what_is_predicted_follows_from_the_label():
    rows = np.zeros((200, 1))
    assert read_table((rows, np.arange(200) % 3 + 5), "y").schema.classes == (5, 6, 7)
    assert read_table((rows, np.arange(200)), "y").schema.classes is None
    assert read_table((rows, np.arange(200) / 2), "y").schema.classes is None
    assert read_table((rows, np.arange(200) % 3), "y", task="regression").schema.classes is None


@pytest.mark.parametrize(
    ("change", "label", "message"),
    [
        ({}, "sould", r"no column 'sould'. Did you mean 'sold'"),
        ({"sold": pa.array(["no", None, "yes", "no"])}, "sold", "row 1 has a label 'sold' that is missing"),
        ({"city": pa.array([[1], [2], [3], [4]])}, "sold", "column 'city' of table"),
    ],
)
def test_a_table_that_no_model_takes_is_refused(change, label, message):
    with pytest.raises(InputError, match=message):
        read_table(pa.table(COLUMNS | change), label)


def test_scores_by_hand():
    found = scores(np.asarray([[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]]), np.asarray([0, 1, 1]))
    assert found == pytest.approx({"accuracy": 2 / 3, "logloss": -np.log([0.75, 0.5, 0.75]).mean()})
    found = scores(np.asarray([1.0, 2, 5]), np.asarray([1.0, 2, 3]))
    assert found == pytest.approx({"rmse": (4 / 3) ** 0.5, "mae": 2 / 3, "r2": 1 - 4 / 2})


def test_rows_are_held_out_by_the_seed():
    table = read_table((np.arange(10.0)[:, None], np.arange(10.0)), "y")
    train, out = split_rows(table, 0.2, seed=0)
    assert sorted([*train.labels, *out.labels]) == list(range(10))
    assert len(out) == 2
    assert list(train.labels) == sorted(train.labels)
    assert split_rows(table, 0.2, seed=0)[1].checksum == out.checksum != split_rows(table, 0.2, seed=1)[1].checksum


def test_the_best_round_is_counted_over_all_iterations():
    state = FitState().after(b"1", 3, {"train": {"rmse": [9, 9, 9]}, "eval": {"rmse": [3.0, 1.0, 2.0]}}, b"1")
    assert (state.rounds, state.best) == (3, (1.0, 2))
    assert state.after(b"2", 2, {"eval": {"rmse": [1.0, 0.5]}}, b"2").best == (0.5, 5)
    at_the_end = state.after(b"2", 10, {"eval": {"loss": [0.5]}}, b"weights")
    assert (at_the_end.best, at_the_end.best_model) == ((0.5, 13), b"weights")
    assert at_the_end.after(b"3", 10, {"eval": {"loss": [0.7]}}, b"worse").best_model == b"weights"
