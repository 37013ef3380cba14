"""Several learners of one network: the same bits for any number, whoever is killed, on tables and streams."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from test_fits import continuous
from test_networks import Wide
from test_streams import games, held_out  # noqa: F401 — fixtures
from torch import nn

from shoal import RunFolder, Supervised, data, runtime
from shoal.cli.main import main
from shoal.envs import derive_seed
from shoal.rl import Callback
from shoal.rl.supervised import network_learners
from shoal.rl.supervised.batch_reader import BEGINNING, BatchReader
from shoal.rl.supervised.flat_network import joined_statistics
from shoal.rl.supervised.minibatches import StreamMinibatch, rows_of_step
from shoal.runtime import InputError

WIDE = {"module": "test_networks:Wide", "module_kwargs": {"outputs": 2}}
NORMALIZED = {
    "rounds_per_iteration": 5, "batch_size": 32, "gradient_shards": 4, "class_weight": "balanced",
    "module": "test_fit_learners:Normalized",
}  # fmt: skip
STREAMED = {
    "label": "won", "rounds_per_iteration": 5, "batch_size": 32, "gradient_shards": 4, "optimizer": "sgd",
    "module_kwargs": {"net_arch": [300, 300], "dropout": 0.1},
}  # fmt: skip
"""Enough parameters for the second round of an exchange."""


class Normalized(nn.Module):
    """Dropout, statistics that the module itself keeps, and a layer that is not learned."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 16), nn.Linear(16, 2)
        self.norm, self.dropout = nn.BatchNorm1d(16), nn.Dropout(0.2)
        self.first.bias.requires_grad_(False)

    def forward(self, rows):
        return self.last(self.dropout(self.norm(self.first(rows)).relu()))


class Kill(Callback):
    """After the second iteration a learner dies, after the third what `also` names."""

    def __init__(self, also=None):
        self.also = also

    def on_iteration_end(self, training, report):
        if report.iteration == 2:
            runtime.kill(training._learners.learner.members[0])
        if report.iteration == 3 and self.also is not None:
            runtime.kill(self.also(training), no_restart=False)


def test_a_fit_is_what_a_loop_of_torch_is():
    with runtime.init(engine="serial"), Supervised(continuous(50, 3), **WIDE, batch_size=16, weight_decay=0.2) as fit:
        fit.train(7)
        found, table = fit.model, fit.train_rows
    torch.manual_seed(derive_seed(0, "init"))
    network = Wide(outputs=2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.2)
    for step in range(7):
        rows = rows_of_step(len(table), 16, 0, step)
        said = network(torch.from_numpy(table.features[rows]))
        optimizer.zero_grad()
        nn.functional.cross_entropy(said, torch.from_numpy(table.labels[rows]).long()).backward()
        optimizer.step()
    wanted = network(torch.from_numpy(table.features)).softmax(1).detach().numpy()
    np.testing.assert_allclose(found.predict(table.features), wanted, rtol=1e-5)


def test_shards_change_the_rounding_alone_and_leave_frozen_layers_alone():
    weighted = {"rounds_per_iteration": 5, "batch_size": 30, "class_weight": "balanced", "learning_rate": 0.05, **WIDE}
    outcomes = []
    with runtime.init(engine="serial"):
        for shards in (1, 4):
            with Supervised(continuous(100, 3), gradient_shards=shards, **weighted) as fit:
                outcomes.append((fit.train(10).weights_sha256, fit.model.predict(fit.table.features)))
        with Supervised(continuous(100, 3), **NORMALIZED, weight_decay=0.5) as fit:
            fit.train(5)
            frozen = runtime.get(fit._state.content.weights.ref)["first.bias"]
            torch.manual_seed(derive_seed(0, "init"))
            np.testing.assert_array_equal(frozen, Normalized().first.bias.detach().numpy())
    (one, predicted), (four, others) = outcomes
    assert one != four
    np.testing.assert_allclose(predicted, others, rtol=1e-4)


def test_statistics_of_shards_are_joined_by_hand():
    # Running means 0.1 · mean of the shard's rows: 0.1 · 1 and 0.1 · 4, of one and three rows; both count a minibatch.
    each = {"mean": torch.tensor([[0.1], [0.4]]), "count": torch.tensor([7, 7])}
    joined = joined_statistics(each, torch.tensor([0.25, 0.75]))
    assert joined["mean"].tolist() == pytest.approx([0.325])
    assert joined["count"].tolist() == 7


def test_a_reader_gives_what_was_taken_before_and_finds_its_place_again(games):  # noqa: F811
    with runtime.init(engine="serial"):
        with Supervised(games, label="won") as fit:
            rows = fit.table
        reader = BatchReader(rows, 32, parts=3)
        assert reader.take(0) is None  # nobody has said where
        first = reader.take(0, BEGINNING)
        second = reader.take(1)
        assert reader.take(0) is first
        assert [begin for begin, _ in second.parts] == [0, 10, 21]
        other = BatchReader(rows, 32)
        assert other.take(1) is None
        again = other.take(1, first.place)
        np.testing.assert_array_equal(again.features(10, 21), second.features(10, 21))
        np.testing.assert_array_equal(again.labels, second.labels)
        assert again.place == second.place


def test_rows_of_a_reader_that_has_died_are_asked_for_again():
    class Gone:
        labels = np.zeros(4)

        def features(self, start, stop):
            raise runtime.exceptions.OwnerDiedError("gone")

    class Read:
        def features(self, start, stop):
            return np.arange(4)[start:stop]

    assert StreamMinibatch(None, Gone(), Read).features(1, 3).tolist() == [1, 2]


def test_who_asks_ahead_is_not_told_what_is_wrong_there():
    rows = [{"x": 1.0, "y": 0}, {"x": 2.0, "y": 1}, {"x": 3.0, "y": None}, {"x": 4.0, "y": 1}]
    given = data.from_items(rows, rows_per_piece=2)
    with runtime.init(engine="serial"):
        with Supervised(given, label="y", described_rows=2) as fit:
            reader = BatchReader(fit.table, 2)
        first = reader.take(0, BEGINNING)
        assert reader.take(1) is None
        for _ in range(2):
            with pytest.raises(InputError, match="batch 1 of dataset: row 0 has a label 'y' that is missing"):
                reader.take(1, first.place)
        assert reader.take(0, BEGINNING).place == first.place


def test_the_driver_reads_weights_only_to_tell_and_to_save_them(monkeypatch, tmp_path):
    read = []
    monkeypatch.setattr(network_learners, "get", lambda ref: read.append(ref) or runtime.get(ref))
    with runtime.init(engine="serial"), Supervised(continuous(50, 3), **WIDE, rounds_per_iteration=2) as fit:
        fit.train(10)
        assert len(read) == 1  # for their hash, in the end
        fit.save(tmp_path)
        assert len(read) == 2


def test_what_learners_cannot_be_is_refused():
    cases = {
        "learners is 2, but gradient_shards is 1": {"learners": 2},
        "the serial engine has one learner": {"learners": 2, "gradient_shards": 2, "reproducible": "world"},
        "weight_decay is 0.1, but must be 0 with optimizer 'adam'": {"weight_decay": 0.1, "optimizer": "adam"},
        "workers is 2, but must be 1: several share the gradients by learners=2": {"workers": 2},
    }
    with runtime.init(engine="serial"):
        for message, settings in cases.items():
            with pytest.raises(InputError, match=message):
                Supervised(continuous(50, 3), **settings)


def test_early_stopping_that_is_switched_on_later_begins_anew(tmp_path):
    features, labels = continuous(200, 3)
    labels = np.random.default_rng(1).permutation(labels)
    settings = {"rounds_per_iteration": 5, "learning_rate": 0.05}
    with runtime.init(engine="serial"):
        with Supervised((features, labels), **settings) as fit:
            fit.train(20)
            fit.save(tmp_path)
            last = fit.evaluate()
            assert fit._state.best[0] < last["logloss"]
        with Supervised.load(tmp_path, (features, labels), early_stopping_rounds=10) as fit:
            assert fit.evaluate() == last
            fit.train(5)
            assert fit.model.version == 25


def hashes(rows, out, settings, runs, rounds=25):
    """What each of the runs (engine, learners, callbacks) ends with."""
    found = []
    for engine, learners, callbacks in runs:
        with (
            runtime.init(engine=engine, num_cpus=4),
            Supervised(rows, out, learners=learners, **settings) as fit,
        ):
            found.append(fit.train(rounds, callbacks=callbacks).weights_sha256)
    return set(found)


@pytest.mark.slow
def test_a_table_has_one_hash_for_any_learners_kills_and_resumes(tmp_path):
    rows = continuous(300, 3)
    runs = [("serial", 1, None), ("native", 1, None), ("native", 2, None), ("native", 3, Kill())]
    wanted = hashes(rows, None, NORMALIZED, runs)
    assert len(wanted) == 1
    with runtime.init(num_cpus=4):
        with Supervised(rows, learners=2, **NORMALIZED) as fit, RunFolder(tmp_path / "run") as folder:
            fit.train(12, callbacks=folder)
        with Supervised.load(tmp_path / "run", rows, learners=3) as fit:
            assert {fit.train(13).weights_sha256} == wanted


@pytest.mark.slow
def test_a_stream_has_one_hash_for_any_learners_kills_and_resumes(games, held_out, tmp_path):  # noqa: F811
    runs = [
        ("serial", 1, None),
        ("native", 2, Kill(lambda fit: fit._learners._reader)),
        ("native", "1:3", None),
    ]
    wanted = hashes(games, held_out, STREAMED, runs)
    assert len(wanted) == 1
    divided = STREAMED | {"optimizer": "adamw", "shard_optimizer": True}
    assert len(hashes(games, held_out, divided, [("serial", 1, None), ("native", 2, Kill())])) == 1
    with runtime.init(num_cpus=4):
        with Supervised(games, held_out, learners=3, **STREAMED) as fit:
            fit.train(12)
            fit.save(tmp_path)
        with Supervised.load(tmp_path, games, held_out, learners=2) as fit:
            assert {fit.train(13).weights_sha256} == wanted


@pytest.mark.slow
def test_a_command_that_is_killed_in_mid_epoch_goes_on_with_the_same_bits(games, tmp_path, monkeypatch, capsys):  # noqa: F811
    """First with one learner and a second that joins, each with its part of the moments; then with others."""
    (tmp_path / "streamed_games.py").write_text(
        "from shoal import data\n\ndef train():\n"
        "    return data.read_parquet('games0.parquet').shuffle(seed=3, window=100)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    given = ["fit", "supervised", "streamed_games:train", "--label", "won", "--batch-size", "32"]
    given += ["--rounds-per-iteration", "3", "--gradient-shards", "4", "--module-kwargs", '{"net_arch": [300, 300]}']
    assert main([*given, "--engine", "serial", "--rounds", "60", "--run-dir", "whole", "--json"]) == 0
    whole = json.loads(capsys.readouterr().out.splitlines()[-1])
    command = [*given, "--rounds", "100000", "--run-dir", "killed", "--checkpoint-seconds", "0.01"]
    command += ["--learners", "1:2", "--shard-optimizer"]
    with subprocess.Popen(
        [sys.executable, "-m", "shoal.cli.main", *command], env=os.environ | {"PYTHONPATH": "."}
    ) as fit:
        deadline = time.monotonic() + 100
        while not (saved := sorted((tmp_path / "killed" / "checkpoints").glob("0*"))) or int(saved[-1].name) < 12:
            assert time.monotonic() < deadline
            assert fit.poll() is None
            time.sleep(0.02)
        fit.send_signal(signal.SIGKILL)
    begun = int(max((tmp_path / "killed" / "checkpoints").glob("0*")).name)
    assert begun < 60, "this machine is too fast for this test: it was to be killed before"
    assert begun * 32 % 300
    assert main(["fit", "--resume", "killed", "--rounds", "60", "--learners", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["weights_sha256"] == whole["weights_sha256"]
