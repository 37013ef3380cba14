"""Levels of a plan in states that timing alone brings about, made by hand; and plans with pieces of all sizes."""

import json
import random

import numpy as np
import pyarrow as pa
import pytest

from shoal import data, runtime
from shoal.data.credits import Estimate
from shoal.data.flow import Answer, Run, Unit
from shoal.data.levels import Stage, Zipped
from shoal.data.rows import Rows
from shoal.data.steps import Meta


class Sizes:
    """A source of one piece for each size; `known` tells whether it says them."""

    def __init__(self, sizes, known=True):
        self.sizes, self.known = tuple(sizes), known

    def pieces(self):
        ends = np.cumsum(self.sizes).tolist()
        rows = [size if self.known else None for size in self.sizes]
        return tuple(
            data.Piece("sizes", (end - size, end), f"part {part}", rows[part])
            for part, (size, end) in enumerate(zip(self.sizes, ends, strict=True))
        )

    def read(self, piece, bad):
        yield pa.table({"id": np.arange(*piece.place)})


class Given:
    """A level of units that are there."""

    def __init__(self, *units):
        self.units = list(units)

    def pull(self):
        return self.units.pop(0) if self.units else Answer.END


@pytest.fixture
def serial():
    with runtime.init(engine="serial", num_cpus=2):
        yield


def ids(batches):
    return [int(i) for batch in batches for i in batch["id"]]


def test_a_unit_without_rows_has_nothing_beside_it_even_if_the_other_side_is_not_made_yet():
    run = Run(1 << 20, 2, None)

    def unit(rows):
        grant = run.grant(Estimate(), 0, 0, "")
        facts = None if rows is None else Meta(rows, 0, "")
        return Unit(None, None, "", 0, [0], grant, Estimate(), facts=facts)

    right = Rows(run, Given(unit(None)))
    right.fill()
    zipped = Zipped(Stage(run, 0, None, Estimate()), Rows(run, Given(unit(0))), right)
    assert zipped.pull() is Answer.LATER  # whether the right side has more rows is not known


def test_a_zip_whose_last_pieces_are_empty_goes_on_behind_its_end(serial):
    numbers = data.from_source(Sizes([3, 0, 2, 0, 0]))
    zipped = numbers.zip(numbers.shuffle(seed=1, window=2))
    with zipped.iter_batches(2) as batches:
        assert ids(batches) == [0, 1, 2, 3, 4]
        state = json.loads(json.dumps(batches.state()))
    assert ids(zipped.iter_batches(2, state=state)) == []


def test_windows_may_be_made_of_any_number_of_pieces(serial):
    few = data.from_source(Sizes([0] * 70 + [1] * 90))
    assert sorted(ids(few.shuffle(window=80).iter_batches(7))) == list(range(90))
    assert ids(few.batch(66).zip(few).iter_batches(7)) == list(range(90))


def test_what_fails_later_is_raised_later(serial):
    def picky(batch):
        if 5 in batch["id"]:
            raise ValueError("I do not like 5")
        return batch

    numbers = data.from_source(Sizes([4, 4, 4]))
    broken = numbers.union(data.from_source(Sizes([4])).zip(numbers))  # the right side is longer
    for readers in (1, 5):
        batches = broken.options(readers=readers).iter_batches(4)
        assert [next(batches)["id"].tolist()[0] for _ in range(3)] == [0, 4, 8]
        with pytest.raises(runtime.InputError, match="the right side has more rows"):
            list(batches)
        with pytest.raises(ValueError, match="I do not like 5"):
            list(broken.batch(4).map_batches(picky).options(readers=readers).iter_batches())


def test_shares_of_any_layout_are_equal_and_make_up_the_whole(serial):
    draw = random.Random(0)
    for number in range(100):
        sizes = [draw.choice([0, 0, 1, 2, 3, 9, 40]) for _ in range(draw.randrange(6))]
        numbers = data.from_source(Sizes(sizes, known=draw.random() < 0.5))
        if number % 4 == 0:
            numbers = numbers.shuffle(seed=number, window=draw.randrange(1, 30))
        size, k, drop_last = draw.choice([1, 2, 5, 16]), draw.randrange(1, 5), draw.random() < 0.5
        whole = [batch["id"].tolist() for batch in numbers.iter_batches(size, drop_last=drop_last)]
        assert len(whole) == (sum(sizes) // size if drop_last else -(-sum(sizes) // size))
        shares = [
            [batch["id"].tolist() for batch in share.iter_batches(size, drop_last=drop_last)]
            for share in numbers.split(k)
        ]
        rounds = len(whole) // k
        assert [len(share) for share in shares] == [rounds] * k
        assert [share[n] for n in range(rounds) for share in shares] == whole[: rounds * k]
