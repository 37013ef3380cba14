"""The same datasets on a real Ray of this machine."""

import importlib.util

import pytest

from shoal import data, runtime

if importlib.util.find_spec("ray") is None:
    pytest.skip("run by `make test-ray`", allow_module_level=True)


def test_datasets_give_the_same_rows_as_on_the_serial_engine():
    class Tripling:  # here, since Ray's workers cannot import a file of tests
        """Stands for a model, held by an actor."""

        def __call__(self, batch):
            return {**batch, "x": batch["x"] * 3}

    rows = [{"id": i, "k": i % 3, "x": i / 7} for i in range(500)]
    numbers = data.from_items(rows, rows_per_piece=40)
    plans = [
        numbers.filter(lambda row: row["id"] % 5).shuffle(seed=1, window=100).repeat(2),
        numbers.map_batches(Tripling, concurrency=1).sort("x", descending=True),
        numbers.zip(numbers.shuffle(seed=2, window=30)).batch(25).map_batches(dict),
        numbers.groupby("k").aggregate(mean=("x", "mean"), spread=("x", "std")),
    ]
    found = []
    for engine in ("serial", "ray"):
        with runtime.init(engine=engine, num_cpus=2):
            found.append(
                [[table.to_pydict() for table in plan.iter_batches(32, batch_format="pyarrow")] for plan in plans]
            )
    assert found[0] == found[1]
