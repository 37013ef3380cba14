"""The replay buffer as part of a checkpoint."""

import hashlib
import logging
import shutil
import tracemalloc

import numpy as np
import pytest
from learning_envs import Parts

from shoal import runtime
from shoal.algorithms import DQN, PPO
from shoal.cli.main import main
from shoal.rl import Batch, Callback, Column, cycles
from shoal.rl.data.replay import transition_columns
from shoal.rl.learn.log import LearnerLog, Piece
from shoal.rl.runs.checkpoint import REPLAY_FILE, find_checkpoint, read_training
from shoal.rl.runs.files import write_summed
from shoal.rl.runs.replay_file import SavedReplay, describe_replay, replay_parts
from shoal.runtime import InputError, state

NESTED = {"image": Column((4, 4), np.uint8), "more": (Column((), np.int64), Column((2,), np.float64))}
COLUMNS = transition_columns(NESTED, Column((), np.int64))
SETTINGS = {
    "preset": "none", "n_envs": 4, "train_freq": 4, "learning_starts": 64, "batch_size": 8, "buffer_size": 300,
    "n_step": 3, "prioritized_replay": True, "target_update_interval": 100, "seed": 2, "device": "cpu",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _serial(one_cycle_each):
    runtime.init(engine="serial", ignore_reinit_error=True)


def batch(columns, rows, seed):
    generator = np.random.default_rng(seed)
    made = Batch.allocate(columns, rows)

    def fill(tree):
        if isinstance(tree, np.ndarray):
            tree[:] = generator.integers(0, 100, tree.shape)
        else:
            for part in tree.values() if isinstance(tree, dict) else tree:
                fill(part)

    fill(dict(made))
    return made


def pieces_of(columns, *rows):
    ends = np.cumsum(rows).tolist()
    return [
        Piece(end, count, runtime.put(batch(columns, count, seed)))
        for seed, (end, count) in enumerate(zip(ends, rows, strict=True))
    ]


def test_pieces_of_nested_observations_come_back(tmp_path):
    pieces = pieces_of(COLUMNS, 3, 1, 5)
    write_summed(tmp_path, {REPLAY_FILE: replay_parts(pieces, {"": COLUMNS})})
    described = describe_replay(pieces, {"": COLUMNS})
    assert described == {"transitions": 9, "bytes": 9 * (2 * (16 + 8 + 16) + 8 + 4 + 4), "ends": [3, 4, 9]}
    back = list(SavedReplay(tmp_path / REPLAY_FILE, described["ends"]).pieces({"": COLUMNS}))
    assert [(piece.end, piece.rows) for piece in back] == [(3, 3), (4, 1), (9, 5)]
    for before, after in zip(pieces, back, strict=True):
        one, two = runtime.get(before.ref), runtime.get(after.ref)
        assert repr(one) == repr(two)
        np.testing.assert_array_equal(one["observations"]["more"][1], two["observations"]["more"][1])
        np.testing.assert_array_equal(one["next_observations"]["image"], two["next_observations"]["image"])
        np.testing.assert_array_equal(one["actions"], two["actions"])


def test_records_come_back(tmp_path):
    kind = np.dtype([("image", np.uint8, (2, 2)), ("more", [("number", np.int64), ("switch", np.bool_)])])
    columns = {"observations": Column((), kind), "pairs": Column((3,), kind), "rewards": Column()}
    made = {name: np.zeros((2, *column.shape), column.dtype) for name, column in columns.items()}
    made["observations"]["image"][1], made["pairs"]["more"]["number"][:, 2] = 7, [5, 6]
    write_summed(tmp_path, {REPLAY_FILE: replay_parts([Piece(2, 2, runtime.put(Batch(made)))], {"": columns})})
    (piece,) = SavedReplay(tmp_path / REPLAY_FILE, [2]).pieces({"": columns})
    for name, array in runtime.get(piece.ref).items():
        assert array.dtype == made[name].dtype
        np.testing.assert_array_equal(array, made[name])


def test_it_is_written_and_read_piece_by_piece(tmp_path):
    columns = transition_columns(Column((10_000,)), Column((), np.int64))  # 80 KB a transition
    pieces = pieces_of(columns, *[20] * 10)
    tracemalloc.start()
    write_summed(tmp_path, {REPLAY_FILE: replay_parts(pieces, {"": columns})})
    for _ in SavedReplay(tmp_path / REPLAY_FILE, [piece.end for piece in pieces]).pieces({"": columns}):
        pass  # none is kept
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / REPLAY_FILE).stat().st_size > 10 * 20 * 80_000
    assert most < 5 * 20 * 80_000  # some copies of one piece, never all ten


def test_the_log_keeps_the_pieces_that_hold_something():
    log = LearnerLog()
    for end in (4, 8, 12):
        log = log.at(end, "snapshot", f"to {end}", inserted=end, size=min(end, 6))
    assert [(piece.end, piece.rows) for piece in log.transitions] == [(8, 4), (12, 4)]
    assert log.at(12, "snapshot", "nothing new", inserted=12, size=6).transitions == log.transitions
    (only,) = log.at(13, "snapshot", "much", inserted=99, size=6).transitions  # more than it holds
    assert (only.end, only.rows, only.ref) == (99, 6, "much")
    assert LearnerLog().at(1, "snapshot", None, inserted=0, size=0).transitions == ()  # without a buffer


class StopAt(Callback):
    def __init__(self, timesteps):
        self.timesteps = timesteps

    def on_iteration_end(self, training, report):
        return report.timesteps < self.timesteps


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A training that was stopped and saved at 400 of 640 steps, and the weights after all of them."""
    runtime.init(engine="serial", ignore_reinit_error=True)
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch, DQN("CartPole-v1", **SETTINGS, save_replay=True) as dqn:
        patch.setattr(cycles, "ITERATION_STEPS", 1)
        dqn.train(640, callbacks=StopAt(400))
        dqn.save(folder)
    with DQN("CartPole-v1", **SETTINGS) as dqn:
        return folder, dqn.train(640).weights_sha256


def test_exploration_and_learning_go_on_as_if_it_had_not_stopped(run, tmp_path, caplog):
    folder, whole = run
    with caplog.at_level(logging.WARNING), DQN.load(folder) as dqn:
        dqn.train(240, callbacks=StopAt(480))
        dqn.save(tmp_path)
    with DQN.load(tmp_path) as dqn:  # resumed twice
        assert dqn.train(160).weights_sha256 == whole
    assert "fills again" not in caplog.text
    document, _ = read_training(folder)
    kept = document["replay"]["transitions"]
    assert 300 <= kept < 300 + 16  # the oldest piece may hold some that the buffer has dropped
    assert document["replay"]["bytes"] == kept * (16 + 8 + 4 + 16 + 4)


@pytest.mark.slow
def test_observations_with_parts_go_on_bit_for_bit(tmp_path):
    settings = SETTINGS | {"buffer_size": 150}
    with DQN(Parts, **settings) as dqn:
        whole = dqn.train(256).weights_sha256
    with DQN(Parts, **settings, save_replay=True) as dqn:
        dqn.train(256, callbacks=StopAt(192))
        dqn.save(tmp_path)
    with DQN.load(tmp_path, env=Parts) as dqn:
        assert dqn.train(64).weights_sha256 == whole


def test_a_damaged_buffer_is_noticed(run, tmp_path):
    shutil.copytree(find_checkpoint(run[0]), tmp_path / "copy")
    file = tmp_path / "copy" / REPLAY_FILE
    content = bytearray(file.read_bytes())
    assert hashlib.sha256(content).hexdigest() in (file.parent / "SHA256SUMS").read_text()
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"{REPLAY_FILE}' is damaged"):
        DQN.load(file.parent)
    file.unlink()
    with pytest.raises(InputError, match=rf"lacks the file {REPLAY_FILE}"):
        DQN.load(file.parent)


def test_it_is_saved_on_request_only(run, tmp_path, caplog):
    with DQN.load(run[0], save_replay=False) as dqn:
        assert not (dqn.save(tmp_path / "without") / REPLAY_FILE).exists()
        assert (dqn.save(tmp_path / "with", save_replay=True) / REPLAY_FILE).exists()
    assert "replay buffer" not in caplog.text
    DQN.load(tmp_path / "without")
    assert "does not hold the replay buffer (--save-replay): it fills again" in caplog.text


@pytest.mark.parametrize(("setting", "value"), [("buffer_size", 200), ("n_step", 1), ("prioritized_replay", False)])
def test_it_goes_on_only_with_the_settings_that_it_was_made_with(run, setting, value):
    with pytest.raises(InputError, match=rf"{setting} is {value}, but must be .* as the saved replay buffer was made"):
        DQN.load(run[0], **{setting: value})


def test_an_algorithm_without_one_says_so(tmp_path):
    with PPO("CartPole-v1", preset="none", n_envs=2, n_steps=16, batch_size=16, n_epochs=1) as ppo:
        ppo.train(32)
        with pytest.raises(InputError, match="save_replay is True, but ppo has no replay buffer"):
            ppo.save(tmp_path, save_replay=True)


def test_the_command_saves_and_resumes_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runtime.shutdown()  # the command starts its own
    flags = ["--n-envs=4", "--learning-starts=64", "--batch-size=8", "--save-replay", "--engine=serial"]
    flags += ["--exploration-final-eps=1", "--preset=none"]  # so that nothing depends on how long it is
    assert main(["train", "dqn", "CartPole-v1", *flags, "--run-dir=run", "--total-timesteps=160"]) == 0
    assert (find_checkpoint("run") / REPLAY_FILE).exists()
    capsys.readouterr()
    assert main(["train", "--resume", "run", "--total-timesteps", "192", "--engine", "serial"]) == 0
    assert "fills again" not in capsys.readouterr().err
    assert main(["train", "ppo", "CartPole-v1", "--save-replay"]) == 2


def test_how_full_it_is_is_shown_while_it_trains():
    seen = []

    class Look(Callback):
        def on_iteration_end(self, training, report):
            seen.append({gauge.name: gauge.value for gauge in state.status().gauges})

    with DQN("CartPole-v1", **SETTINGS | {"n_step": 1}) as dqn:
        dqn.train(64, callbacks=Look())
    row, priorities = 16 + 8 + 4 + 16 + 4, 8 * 1023  # a tree of 512 leaves
    assert [gauges["replay_transitions"] for gauges in seen] == [16, 32, 48, 64]
    assert seen[-1]["replay_bytes"] == 64 * row + priorities
