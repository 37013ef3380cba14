"""Blocks as numpy sees them, and the order of permutations."""

import numpy as np
import pyarrow as pa
import pytest

from shoal.data.blocks import column_of, columns_of, compact, joined, rows_of, table_of, table_of_rows
from shoal.data.order import permutation
from shoal.runtime import InputError


def test_columns_go_through_a_table_as_they_are():
    given = {
        "x": np.arange(4.0),
        "image": np.arange(16, dtype=np.uint8).reshape(4, 2, 2),
        "name": np.array(["a", "b", "c", "d"], object),
    }
    table = table_of(given)
    found = columns_of(table)
    assert all(np.array_equal(given[name], found[name]) for name in given)
    assert np.shares_memory(found["image"], table["image"].chunk(0).storage.values.to_numpy())
    assert columns_of(table_of_rows([{"n": 1}, {"n": None}]))["n"].tolist()[0] == 1.0
    assert list(rows_of(table))[2]["image"].tolist() == [[8, 9], [10, 11]]
    assert column_of(np.empty((0, 2, 3), np.float32)).type.shape == [2, 3]
    with pytest.raises(InputError, match=r"different lengths: \{'a': 1, 'b': 2\}"):
        table_of({"a": [1], "b": [1, 2]})


@pytest.mark.parametrize(
    ("values", "row"), [([1, None, "a", 2], 2), ([2**70], 0), ([None, 1.5, object(), object()], 2)]
)
def test_what_does_not_fit_into_a_column_is_told_with_its_row(values, row):
    with pytest.raises(InputError, match=rf"column 'x': row {row} is .*, which cannot be in it"):
        table_of_rows([{"x": value} for value in values])
    with pytest.raises(InputError, match=rf"column 'x': row {row} is"):
        table_of({"x": values})


def test_a_slice_is_compacted_to_its_own_size_and_tables_are_joined():
    whole = pa.table({"x": np.arange(10_000), "t": column_of(np.zeros((10_000, 3), np.float32))})
    part = compact(whole.slice(10, 20))
    assert part.get_total_buffer_size() < 1_000
    assert part["x"].to_pylist() == list(range(10, 30))
    assert joined([whole.slice(0, 0), part, pa.table({"x": [0.5]})])["x"].type == pa.float64()
    with pytest.raises(InputError, match="do not go together"):
        joined([part, pa.table({"x": ["text"]})])


def test_permutations_are_those_of_their_key():
    first = permutation(1_000, 0, "window", 0, 0)
    assert sorted(first) == list(range(1_000))
    assert first[:5].tolist() == permutation(1_000, 0, "window", 0, 0)[:5].tolist()
    others = [permutation(1_000, *key) for key in [(1, "window", 0, 0), (0, "window", 1, 0), (0, "window", 0, 1)]]
    assert all(abs(np.corrcoef(first, other)[0, 1]) < 0.1 for other in [np.arange(1_000), *others])
    # Written down, so that no version of numpy or of this code changes what a dataset of yesterday gives.
    assert permutation(8, 0, "pieces", 0).tolist() == PINNED


PINNED = [4, 6, 3, 1, 2, 7, 5, 0]
