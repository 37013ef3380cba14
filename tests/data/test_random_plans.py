"""Random plans on random layouts, stopped and resumed anywhere, against lists of plain Python."""

import json
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal import data, runtime
from shoal.data.order import permutation


class Pieces:
    """A source of these rows, a piece for each list; `known` tells whether it says how many they are."""

    def __init__(self, pieces, known):
        self.rows, self.known = pieces, known

    def pieces(self):
        return tuple(
            data.Piece("rows", (index,), f"part {index}", len(part) if self.known else None, 8 * len(part) or None)
            for index, part in enumerate(self.rows)
        )

    def read(self, piece, bad):
        [index] = piece.place
        yield pa.table({"x": pa.array(self.rows[index], pa.int64())})


class Model:
    """A plan as a dataset, and as a function from (epoch, seed of the pieces' order) to the values of `x`."""

    def __init__(self, dataset, values):
        self.dataset, self.values = dataset, values


def source(pieces, known):
    def values(epoch, seed):
        order = range(len(pieces)) if seed is None else permutation(len(pieces), seed, "pieces", epoch)
        return [x for index in order for x in pieces[index]]

    return Model(data.from_source(Pieces(pieces, known)), values)


def shuffled(of, seed, window):
    def values(epoch, _):
        rows = of.values(epoch, seed)
        cuts = [*range(0, len(rows), window), len(rows)]
        return [
            rows[start + int(index)]
            for number, (start, stop) in enumerate(pairwise(cuts))
            for index in permutation(stop - start, seed, "window", epoch, number)
        ]

    return Model(of.dataset.shuffle(seed, window), values)


def batched(of, size, drop_last):
    def values(epoch, seed):
        rows = of.values(epoch, seed)
        return rows[: len(rows) // size * size] if drop_last else rows

    # What a function over batches sees are exactly these: it adds the length of its batch.
    def longer(epoch, seed):
        rows = values(epoch, seed)
        return [x + min(size, len(rows) - at // size * size) for at, x in enumerate(rows)]

    counted = of.dataset.batch(size, drop_last).map_batches(lambda batch: {"x": batch["x"] + len(batch["x"])})
    return Model(counted, longer)


def grouped(of):
    made = of.dataset.map(lambda row: {"k": row["x"] % 5, "x": row["x"]})
    summed = made.groupby("k").aggregate(total=("x", "sum"))

    def values(epoch, _):
        rows = of.values(epoch, None)
        return [sum(x for x in rows if x % 5 == k) for k in sorted({x % 5 for x in rows})]

    return Model(summed.map(lambda row: {"x": row["total"]}), values)


def zipped(of, size):
    other = of.dataset.batch(size).map(lambda row: {"x": row["x"] % 7})  # the same rows in other units
    both = of.dataset.zip(other).map(lambda row: {"x": row["x"] * 10 + row["x_1"]})
    return Model(both, lambda epoch, seed: [x * 10 + x % 7 for x in of.values(epoch, seed)])


small = st.integers(1, 12)


@st.composite
def models(draw):
    sizes = draw(st.lists(st.sampled_from([0, 0, 1, 2, 5, 17]), max_size=6))
    ends = [sum(sizes[:index]) for index in range(len(sizes) + 1)]
    numbers = [(x * 37) % 101 for x in range(ends[-1])]
    made = source([numbers[start:stop] for start, stop in pairwise(ends)], draw(st.booleans()))
    for _ in range(draw(st.integers(0, 4))):
        made = draw(st.sampled_from(STAGES))(draw, made)
    return made


def _map(_, of):
    return Model(
        of.dataset.map(lambda row: {"x": row["x"] + 1}), lambda epoch, seed: [x + 1 for x in of.values(epoch, seed)]
    )


def _filter(_, of):
    return Model(
        of.dataset.filter(lambda row: row["x"] % 2), lambda epoch, seed: [x for x in of.values(epoch, seed) if x % 2]
    )


def _flat_map(_, of):
    return Model(
        of.dataset.flat_map(lambda row: [row] * (row["x"] % 3)),
        lambda epoch, seed: [x for x in of.values(epoch, seed) for _ in range(x % 3)],
    )


def _apart(_, of):
    return Model(
        of.dataset.map(lambda row: {"x": row["x"] * 2}, num_cpus=0.5),
        lambda epoch, seed: [x * 2 for x in of.values(epoch, seed)],
    )


def _take(draw, of):
    rows = draw(st.integers(0, 30))
    return Model(of.dataset.take(rows), lambda epoch, seed: of.values(epoch, seed)[:rows])


def _repeat(draw, of):
    epochs = draw(st.integers(1, 3))
    return Model(
        of.dataset.repeat(epochs),
        lambda epoch, seed: [x for number in range(epochs) for x in of.values(epoch * epochs + number, seed)],
    )


def _endless(draw, of):
    rows = draw(st.integers(0, 40))

    def values(epoch, seed):
        found = of.values(epoch, seed)
        while found and len(found) < rows and (more := of.values(epoch := epoch + 1, seed)):
            found = found + more
        return found[:rows]

    return Model(of.dataset.repeat().take(rows), values)


def _union(draw, of):
    rows = draw(st.integers(0, 9))
    return Model(
        of.dataset.union(of.dataset, of.dataset.take(rows)),
        lambda epoch, seed: of.values(epoch, seed) * 2 + of.values(epoch, seed)[:rows],
    )


def _sort(draw, of):
    descending = draw(st.booleans())
    return Model(of.dataset.sort("x", descending), lambda epoch, _: sorted(of.values(epoch, None), reverse=descending))


STAGES = (
    _map,
    _filter,
    _flat_map,
    _apart,
    _take,
    _repeat,
    _endless,
    _union,
    _sort,
    lambda draw, of: shuffled(of, draw(st.integers(0, 3)), draw(small)),
    lambda draw, of: batched(of, draw(small), draw(st.booleans())),
    lambda draw, of: zipped(of, draw(small)),
    lambda _, of: grouped(of),
)


@pytest.fixture(scope="module", autouse=True)
def serial():
    with runtime.init(engine="serial", num_cpus=2):
        yield


@settings(max_examples=25, deadline=None)
@given(models(), small, st.booleans(), st.integers(0, 2), st.lists(st.integers(0, 6), max_size=4), st.integers(1, 3))
def test_plans_give_the_rows_that_plain_python_does_wherever_they_are_stopped(
    model, size, drop_last, epoch, stops, readers
):
    rows = model.values(epoch, None)
    wanted = [rows[at : at + size] for at in range(0, len(rows), size)]
    if drop_last and wanted and len(wanted[-1]) < size:
        wanted.pop()
    dataset = model.dataset.options(readers=readers)
    found, state = [], None
    for stop in [*stops, None]:
        with dataset.iter_batches(size, drop_last=drop_last, epoch=epoch, state=state) as batches:
            left = len(wanted) - len(found)
            taken = list(batches) if stop is None else [next(batches) for _ in range(min(stop, left))]
            found += [batch["x"].tolist() for batch in taken]
            state = json.loads(json.dumps(batches.state()))
    assert found == wanted
    if stops and stops[0]:
        rounds = len(wanted) // stops[0]
        shares = [
            [batch["x"].tolist() for batch in share.iter_batches(size, drop_last=drop_last, epoch=epoch)]
            for share in dataset.split(stops[0])
        ]
        assert [share[n] for n in range(rounds) for share in shares] == wanted[: rounds * stops[0]]
        assert {len(share) for share in shares} == {rounds}
