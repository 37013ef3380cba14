"""Which rows come when: independent of readers, engine and deaths, and resumable anywhere."""

import json
import os
import random
import signal
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shoal import data, runtime
from shoal.runtime import InputError

SIZES = (0, 7, 250, 1, 90)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of different sizes, one without rows, in row groups of 40."""
    path = tmp_path_factory.mktemp("numbers")
    first = 0
    for number, size in enumerate(SIZES):
        ids = np.arange(first, first + size)
        pq.write_table(pa.table({"id": ids, "x": ids / 2}), path / f"part-{number}.parquet", row_group_size=40)
        first += size
    return path


@pytest.fixture
def serial():
    with runtime.init(engine="serial"):
        yield


def ids(batches):
    return [int(i) for batch in batches for i in batch["id"]]


def is_odd(row):
    return row["id"] % 2 == 1


def twice(row):
    return [row, {**row, "id": row["id"] + 1_000}]


def noisy(row):
    return {**row, "noise": random.random()}


PLANS = (
    "as it is",
    "shuffled",
    "filtered, then shuffled",
    "shuffled, then mapped",
    "epochs",
    "batches in between",
    "taken",
    "side by side",
    "one after the other",
    "sorted",
    "other resources",
)


def plans(folder):
    numbers = data.read_parquet(folder)
    values = (
        numbers,
        numbers.shuffle(seed=3, window=100),
        numbers.filter(is_odd).shuffle(seed=1, window=33),
        numbers.shuffle(seed=1, window=60).flat_map(twice).map(noisy),
        numbers.shuffle(seed=5, window=64).repeat(3),
        numbers.repeat(2).batch(50).map_batches(dict),
        numbers.shuffle(window=70).take(111).repeat(2),
        numbers.zip(numbers.shuffle(seed=2, window=30).map(noisy)),
        numbers.union(numbers.filter(is_odd), numbers.take(3)),
        numbers.shuffle(seed=1, window=50).sort("id", descending=True),
        numbers.shuffle(window=90).map(noisy, num_cpus=0.5),
    )
    return dict(zip(PLANS, values, strict=True))


def test_every_row_comes_once_an_epoch_in_an_order_of_its_own(serial, folder):
    made = plans(folder)
    everything = list(range(sum(SIZES)))
    assert ids(made["as it is"].iter_batches(10)) == everything
    first, second = (ids(made["shuffled"].iter_batches(7, epoch=epoch)) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == everything
    assert first != second
    assert abs(np.corrcoef(first, everything)[0, 1]) < 0.5
    assert ids(made["epochs"].iter_batches(11)) == [
        row for epoch in range(3) for row in ids(data.read_parquet(folder).shuffle(5, 64).iter_batches(9, epoch=epoch))
    ]
    assert ids(made["sorted"].iter_batches(10)) == everything[::-1]
    assert len(ids(made["taken"].iter_batches(10))) == 222
    assert ids(made["one after the other"].iter_batches()) == everything + everything[1::2] + [0, 1, 2]
    sides = made["side by side"].to_table()
    assert sides.column_names == ["id", "x", "id_1", "x_1", "noise"]
    assert sorted(sides["id_1"].to_pylist()) == sides["id"].to_pylist() == everything


@pytest.mark.parametrize("name", PLANS)
def test_a_reading_goes_on_where_it_was_stopped_also_twice_in_an_epoch(serial, folder, name):
    dataset = plans(folder)[name]
    draw = random.Random(name)
    whole = [batch["id"].tolist() for batch in dataset.iter_batches(13)]
    state, found, stops = None, [], 0
    while True:
        batches = dataset.options(readers=draw.choice([1, 2, 5])).iter_batches(13, state=state)
        steps = draw.randrange(0, 20)
        got = [batch["id"].tolist() for _, batch in zip(range(steps), batches, strict=False)]
        found += got
        state = json.loads(json.dumps(batches.state()))
        assert len(json.dumps(state)) < 1_000
        assert state["batch"] == len(found)
        stops += 1
        if len(got) < steps:
            break
    assert found == whole
    assert stops >= 2
    assert list(dataset.iter_batches(13, state=state)) == []
    with pytest.raises(InputError, match="the state is of another plan"):
        dataset.take(5).iter_batches(13, state=state)


def kill_once(row, marker):
    if row["id"] == 100 and not os.path.exists(marker):
        with open(marker, "x"):
            os.kill(os.getpid(), signal.SIGKILL)
    return row


class Doubling:
    """Stands for a model, held by an actor."""

    def __init__(self, factor, marker):
        self.factor, self.marker = factor, marker

    def __call__(self, batch):
        if 200 in batch["id"] and not os.path.exists(self.marker):
            with open(self.marker, "x"):
                os.kill(os.getpid(), signal.SIGKILL)
        return {**batch, "x": batch["x"] * self.factor}


@pytest.mark.parametrize("counts", [[2], pytest.param([1, 3], marks=pytest.mark.slow)], ids=str)
def test_readers_engines_and_deaths_change_no_bit(folder, tmp_path, counts):
    def plan(name):
        numbers = data.read_parquet(folder).map(kill_once, fn_args=(tmp_path / f"{name} reader",)).map(noisy)
        model = numbers.map_batches(Doubling, fn_args=(2.0, tmp_path / f"{name} actor"), concurrency=counts[-1])
        return model.shuffle(seed=4, window=100).repeat(2)

    def read(dataset):
        return [{name: column.tolist() for name, column in batch.items()} for batch in dataset.iter_batches(32)]

    for name in ("first reader", "first actor"):
        (tmp_path / name).touch()
    with runtime.init(engine="serial", num_cpus=4):
        whole = read(plan("first"))
    with runtime.init(engine="native", num_cpus=3, preload=("pyarrow", "pytest", "shoal.data")):
        for readers in counts:
            assert read(plan(str(readers)).options(readers=readers)) == whole
            assert (tmp_path / f"{readers} reader").exists()
            assert (tmp_path / f"{readers} actor").exists()


def test_all_shares_of_a_split_have_equally_many_batches(serial, folder):
    dataset = data.read_parquet(folder).filter(is_odd).shuffle(window=50).batch(10)
    whole = [batch["id"].tolist() for batch in dataset.iter_batches()]
    for k in (3, len(whole) + 1):
        shares = [[batch["id"].tolist() for batch in share.iter_batches()] for share in dataset.split(k)]
        assert [len(share) for share in shares] == [len(whole) // k] * k
        assert [share[n] for n in range(len(whole) // k) for share in shares] == whole[: len(whole) // k * k]


def test_what_tasks_need_is_imported_where_their_processes_are_made(native):
    data.from_items(range(10)).count()
    loaded = runtime.remote(lambda: "shoal.data.steps" in sys.modules).options(max_calls=1)
    assert all(runtime.get([loaded.remote() for _ in range(4)])), "of the last two at least the processes are new"


def test_tensors_are_made_ahead_as_bytes_allow_or_the_user_says(native):
    for prefetch, width, ahead in ((None, 1 << 20, 2), (None, 1, 32), (3, 1, 3)):
        items = data.from_items(range(ahead + 5), rows_per_piece=1)
        dataset = items.map_batches(lambda batch, width=width: {"x": np.zeros((len(batch["item"]), width))})
        with dataset.to_torch(1, prefetch=prefetch) as batches:
            next(batches)
            deadline = time.monotonic() + 30
            while batches.stats().rows < ahead and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.05)
            assert batches.stats().rows in (ahead, ahead + 1)  # one was taken; four places are filled at once


def test_a_failure_is_raised_after_the_tensors_before_it_and_again(native):
    dataset = data.from_items([{"x": i} for i in range(10)], rows_per_piece=1).map(
        lambda row: {"x": 1 // (5 - row["x"])}
    )
    for prefetch in (None, 1, 2, 5):
        with dataset.to_torch(1, prefetch=prefetch) as batches:
            assert [len(next(batches)["x"]) for _ in range(5)] == [1] * 5
            for _ in range(8):
                with pytest.raises(ZeroDivisionError):
                    next(batches)


def test_on_the_serial_engine_nothing_is_made_beside_the_learner(serial):
    """Functions find generators seeded for them alone: a thread that ran them would seed the learner's."""
    dataset = data.from_items([{"x": i} for i in range(40)], rows_per_piece=1).map_batches(dict)
    with dataset.to_torch(1) as batches:
        next(batches)
        time.sleep(0.02)
        assert batches.stats().rows == 1
