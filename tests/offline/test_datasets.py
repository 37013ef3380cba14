"""Datasets on the disk: Minari reads what is written here, and what is read is what was written."""

import json
import tracemalloc
from dataclasses import replace

import minari
import numpy as np
import pytest
from datasets import episode, write_dataset
from gymnasium import spaces

from shoal import runtime
from shoal.envs import SpaceMismatchError, codec, stream
from shoal.rl import Dataset
from shoal.rl.data.columns import action_columns, observation_columns
from shoal.rl.data.dataset_reader import DatasetReader
from shoal.rl.data.piece_reader import PieceReader, piece_at
from shoal.runtime import InputError

pytestmark = pytest.mark.usefixtures("datasets")

BOX, CHOICE = spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(3, start=1)
IMAGE = spaces.Box(0, 255, (40, 40, 3), np.uint8)
NESTED = spaces.Dict({"pixels": IMAGE, "pair": spaces.Tuple([BOX, spaces.MultiBinary(2)])})
MOVES = spaces.Tuple([spaces.Box(-2, 3, (2,), np.float32), spaces.MultiDiscrete([2, 3])])


@pytest.mark.parametrize(
    ("observations", "actions"), [(BOX, CHOICE), (NESTED, MOVES), (spaces.Discrete(5), spaces.MultiBinary(3))]
)
def test_what_is_read_is_what_was_written(observations, actions):
    written = [episode(observations, actions, length, seed=length) for length in (3, 1)]
    dataset = Dataset(write_dataset("nested/test-v0", written, observations, actions))
    assert (dataset.episodes, dataset.steps, dataset.lengths.tolist()) == (2, 4, [3, 1])
    assert (dataset.observation_space, dataset.action_space) == (observations, actions)
    for index, read in enumerate(dataset.read([1, 0])):
        for name in ("observations", "actions", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(getattr(read, name), getattr(written[1 - index], name))


def test_minari_reads_it_bit_for_bit_and_with_seeds():
    """Images, too, which Minari compresses with losses unless told otherwise."""
    written = [episode(NESTED, MOVES, length, seed=length) for length in (3, 2)]
    write_dataset("nested/test-v0", written, NESTED, MOVES)
    loaded = minari.load_dataset("nested/test-v0")
    assert "nested/test-v0" in minari.list_local_datasets()
    assert (loaded.total_episodes, loaded.total_steps) == (2, 5)
    for own, read in zip(written, loaded.iterate_episodes(), strict=True):
        mine = codec(NESTED).unpack(own.observations)
        np.testing.assert_array_equal(read.observations["pixels"], mine["pixels"])
        np.testing.assert_array_equal(read.observations["pair"][1], mine["pair"][1])
        np.testing.assert_array_equal(read.actions[1], codec(MOVES).unpack(own.actions)[1])
        np.testing.assert_array_equal(read.terminations, own.terminations)
    assert [entry["seed"] for entry in loaded.storage.get_episode_metadata(range(2))] == [3, 2]


def test_a_dataset_of_minaris_own_is_read():
    buffers = [
        minari.data_collector.EpisodeBuffer(
            observations=np.arange(8.0, dtype=np.float32).reshape(4, 2) / 8,
            actions=np.array([1, 2, 3]),
            rewards=[1.0, 2.0, 3.0],
            terminations=[False] * 3,
            truncations=[False, False, True],
        )
    ]
    with pytest.warns(UserWarning, match="is set to None|env_spec is None"):
        minari.create_dataset_from_buffers("own/made-v0", buffers, observation_space=BOX, action_space=CHOICE)
    dataset = Dataset("own/made-v0")
    (read,) = dataset.read([0])
    assert read.rewards.tolist() == [1, 2, 3]
    assert read.truncations.tolist() == [False, False, True]
    assert dataset.environment().id == "own/made-v0"  # it names none, and needs none


def test_a_dataset_by_its_folder_and_several_as_one(datasets):
    for name, length in (("a/one-v0", 2), ("a/two-v0", 3)):
        write_dataset(name, [episode(BOX, CHOICE, length)], BOX, CHOICE)
    both = Dataset(f"{datasets / 'a/one-v0'}, a/two-v0")
    assert (both.episodes, both.steps) == (2, 5)
    assert [len(read) for read in both.read([1, 0, 1])] == [3, 2, 3]
    write_dataset("a/other-v0", [episode(BOX, spaces.Discrete(4), 1)], BOX, spaces.Discrete(4))
    with pytest.raises(
        SpaceMismatchError, match=r"'a/one-v0' has the action space Discrete\(3, start=1\), but dataset"
    ):
        Dataset("a/one-v0,a/other-v0")


def test_what_is_no_dataset(datasets):
    write_dataset("cart/expert-v0", [episode(BOX, CHOICE, 2)], BOX, CHOICE)
    with pytest.raises(InputError, match=r"no dataset 'cart/expect-v0'.*Did you mean 'cart/expert-v0'\? Record one"):
        Dataset("cart/expect-v0")
    with pytest.raises(InputError, match="no dataset is given"):
        Dataset("")
    with pytest.raises(InputError, match="is there already"):
        write_dataset("cart/expert-v0", [], BOX, CHOICE)
    with pytest.raises(InputError, match="must be NAME-vNUMBER"):
        write_dataset("../x", [], BOX, CHOICE)
    metadata = datasets / "cart/expert-v0/data/metadata.json"
    whole = json.loads(metadata.read_text())
    metadata.write_text(json.dumps(whole | {"total_steps": 0}))
    with pytest.raises(InputError, match="is empty: it has 1 episodes, of 0 steps"):
        Dataset("cart/expert-v0")
    metadata.write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        Dataset("cart/expert-v0")


def test_nothing_is_left_of_a_dataset_that_was_not_finished(datasets):
    def failing():
        yield episode(BOX, CHOICE, 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset("cart/expert-v0", failing(), BOX, CHOICE)
    assert not list((datasets / "cart").iterdir())


@pytest.fixture
def serial():
    with runtime.init(engine="serial", num_cpus=2):
        yield


def test_transitions_of_two_episodes_by_hand(serial):
    """The first is cut off, so its last step bootstraps with the observation after it; the second terminates. No step
    pairs with the other episode's."""
    first = episode(BOX, CHOICE, 2, seed=1, terminated=False, rewards=[1, 2])
    second = episode(BOX, CHOICE, 3, seed=2, rewards=[4, 8, 16])
    names = ("observations", "actions", "rewards", "next_observations", "discounts")
    rest = ("returns", "end_discounts", "end_observations")
    dataset = Dataset(write_dataset("two/test-v0", [first, second], BOX, CHOICE))
    taken = reader(dataset, 5)._block_of(0).take(np.arange(5), (*names, *rest))
    seen = np.concatenate([first.observations[:-1], second.observations[:-1]])
    after = np.concatenate([first.observations[1:], second.observations[1:]])
    np.testing.assert_array_equal(taken["observations"], seen)
    np.testing.assert_array_equal(taken["next_observations"], after)
    np.testing.assert_array_equal(taken["actions"], np.concatenate([first.actions, second.actions]) - 1)
    assert taken["rewards"].tolist() == [1, 2, 4, 8, 16]
    assert taken["discounts"].tolist() == [0.5, 0.5, 0.5, 0.5, 0]
    assert taken["returns"].tolist() == [1 + 0.5 * 2, 2, 4 + 0.5 * 8 + 0.25 * 16, 8 + 0.5 * 16, 16]
    assert taken["end_discounts"].tolist() == [0.25, 0.5, 0, 0, 0]
    ends = [first.observations[-1]] * 2 + [second.observations[-1]] * 3
    np.testing.assert_array_equal(taken["end_observations"], ends)


def _raise_lost():
    raise runtime.exceptions.OwnerDiedError("gone")


def reader(dataset, capacity, rows=2, observations=BOX):
    return DatasetReader(
        dataset,
        capacity=capacity,
        rows=rows,
        stream=lambda purpose, *indices: stream(0, purpose, *indices),
        observations=observation_columns(observations),
        actions=action_columns(CHOICE),
        own_actions=lambda actions: actions - 1,
        gamma=0.5,
    )


def test_a_dataset_larger_than_memory_is_read_in_blocks_of_another_order_each_pass(serial):
    """Rewards name their episodes, of 4, 3, 3 and 2 steps. Never more than 5 steps lie in memory; each pass has all
    episodes, and minibatch n is the same whatever was read before it."""
    lengths = (4, 3, 3, 2)
    written = [episode(BOX, CHOICE, length, rewards=np.full(length, k)) for k, length in enumerate(lengths)]
    dataset = Dataset(write_dataset("many/test-v0", written, BOX, CHOICE))
    streaming = reader(dataset, 5)
    batches, places, blocks = [], [], {}
    for number in range(40):
        batches.append(streaming.sample(number, ("rewards",))["rewards"])
        places.append(streaming.place())
        held = streaming._block
        assert held.steps <= 5
        blocks[streaming._place.first] = held._rewards[: held.steps][held._ends[: held.steps]].tolist()
    read = [name for first in sorted(blocks) for name in blocks[first]]
    passes = [tuple(read[at : at + 4]) for at in range(0, len(read) - 3, 4)]
    assert all(sorted(names) == [0, 1, 2, 3] for names in passes)
    assert len(set(passes)) > 2
    assert max(place.nbytes for place in places) < 200
    for number in (31, 7, 39, 0):
        fresh = reader(dataset, 5)
        fresh.go_to(places[number], number)
        for one in (fresh, reader(dataset, 5), streaming):
            np.testing.assert_array_equal(one.sample(number, ("rewards",))["rewards"], batches[number])

    pieces_of_others = np.frombuffer(places[29].tobytes().replace(b'"plan": "', b'"plan": "0'), np.uint8)
    assert pieces_of_others.size > places[29].size
    for place in (pieces_of_others, None):  # of another capacity, and of one that held all
        other = reader(dataset, 5)
        other.go_to(place, 31)
        assert other.sample(31, ("rewards",))["rewards"].shape == (2,)
        assert other._place.first == 31


def test_pieces_are_read_once_for_all_who_take_them_and_again_for_who_comes_late(serial, monkeypatch):
    written = [episode(BOX, CHOICE, 3, rewards=np.full(3, k)) for k in range(12)]
    dataset = Dataset(write_dataset("many/test-v0", written, BOX, CHOICE))
    rows, opened = dataset.transitions(3).shuffle(0, window=1), []
    read = type(rows).iter_batches
    monkeypatch.setattr(type(rows), "iter_batches", lambda self, **how: opened.append(how) or read(self, **how))

    def taken(turns):
        """The reward that each of two learners finds in its pieces, if they take one in these turns."""
        reader, places, found = PieceReader(shares=True), [None, None], [[], []]
        for one in turns:
            piece = reader.take(rows, places[one])
            places[one] = None if piece is None else piece.following
            found[one].append(None if piece is None else float(runtime.get(piece.columns)["rewards"][0]))
        return found

    first, second = taken([0, 1, 1, 0, 0, 0, 1, 1, *(8 * [0, 1]), 1, 0])
    assert first == second
    assert first[-1] is None
    assert sorted(first[:-1]) == [*range(12)]
    assert len(opened) == 1
    monkeypatch.setattr("shoal.rl.data.piece_reader._KEPT", 1)  # no more than one piece
    assert taken([0, 0, 0, 1, 1, 1, 0]) == [first[:4], first[:3]]
    assert [how["state"] for how in opened] == [None] * 3


def test_what_a_reader_that_died_has_given_is_read_again_by_the_next_one(serial):
    written = [episode(BOX, CHOICE, 3, rewards=np.full(3, k)) for k in range(3)]
    rows = Dataset(write_dataset("many/test-v0", written, BOX, CHOICE)).transitions(3)
    reader, calls = PieceReader(shares=True), []

    class Lost(dict):
        """Columns of which the first reader's are gone when they are looked at."""

        def __reduce__(self):
            return _raise_lost, ()

    class Actor:
        class take:
            @staticmethod
            def remote(*arguments):
                calls.append(arguments)
                piece = reader.take(*arguments)
                return runtime.put(replace(piece, columns=lost) if len(calls) == 1 else piece)

    lost = runtime.put(Lost())
    piece, columns = piece_at(Actor, rows, None)
    assert columns["rewards"].tolist() == [0, 0, 0]
    assert piece.following["batch"] == 1
    assert calls == [(rows, None)] * 2


@pytest.mark.slow
def test_streaming_draws_each_step_as_often_as_any_other(serial):
    lengths = (4, 3, 3, 2)
    written = [episode(BOX, CHOICE, length, rewards=np.full(length, k)) for k, length in enumerate(lengths)]
    dataset = Dataset(write_dataset("many/test-v0", written, BOX, CHOICE))
    streaming = reader(dataset, 5, rows=1)
    drawn = np.concatenate([streaming.sample(number, ("rewards",))["rewards"] for number in range(12 * 30)])
    counts = np.bincount(drawn.astype(int), minlength=4)
    expected = 30 * np.array(lengths)
    assert ((counts - expected) ** 2 / expected).sum() < 16.3  # chi², 3 degrees of freedom, p = 0.001


@pytest.mark.slow
def test_no_more_than_a_block_is_in_memory(serial, monkeypatch):
    """40 episodes of 50 steps of 1,024 numbers are 8 MB; read in blocks of 200 steps, 0.8 MB, and as much ahead: less
    than a third."""
    monkeypatch.setattr("shoal.rl.data.dataset_reader._AHEAD", 1 << 20)
    space = spaces.Box(-1, 1, (1024,), np.float32)
    written = [episode(space, CHOICE, 50, seed=seed) for seed in range(40)]
    dataset = Dataset(write_dataset("many/test-v0", written, space, CHOICE))
    whole = sum(made.observations.nbytes for made in written)
    streaming = reader(dataset, 200, rows=16, observations=space)
    streaming.sample(0, ("observations",))  # what Minari and h5py load
    del written
    tracemalloc.start()
    for number in range(0, 200, 11):
        streaming.sample(number, ("observations",))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert whole / 20 < peak < whole / 3
