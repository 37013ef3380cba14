"""Networks on datasets that are streamed: the same bits for any readers and deaths, in mid-epoch, and from pictures."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet
from test_fits import Kill, continuous
from torch import nn

from shoal import RunFolder, Supervised, data, runtime
from shoal.cli.main import main
from shoal.data.reader import Batches
from shoal.rl import evaluate_model, load_model
from shoal.runtime import InputError

FEW = {"rounds_per_iteration": 7, "batch_size": 32, "module_kwargs": {"net_arch": [16], "dropout": 0.1}}


class Pixels(nn.Module):
    """A layer on pictures [B, 6, 8, 3]."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6 * 8 * 3, 2)

    def forward(self, pictures):
        assert pictures.shape[1:] == (6, 8, 3)
        return self.layer(pictures.flatten(1) / 255 - 0.5)


class KillOnce:
    """A stage of a plan whose first call ends the process."""

    def __init__(self, flag):
        self._flag = flag

    def __call__(self, columns):
        try:
            self._flag.touch(exist_ok=False)
        except FileExistsError:
            return columns
        os.kill(os.getpid(), signal.SIGKILL)
        return columns


def write_games(folder, rows=300, seed=0):
    """Parquet with numbers, gaps, texts and tensors, in pieces of 64 rows."""
    features, labels = continuous(rows, 3, seed)
    columns = {
        "x": pa.array(features[:, 0], mask=features[:, 1] > 1),
        "kind": pa.array(np.where(features[:, 2] > 0, "up", "down")),
        "board": pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(features.reshape(-1, 1, 3))),
        "won": pa.array(np.where(labels, "yes", "no")),
    }
    parquet.write_table(pa.table(columns), folder / f"games{seed}.parquet", row_group_size=64)
    return folder / f"games{seed}.parquet"


@pytest.fixture
def games(tmp_path):
    return data.read_parquet(write_games(tmp_path)).shuffle(seed=3, window=100)


@pytest.fixture
def held_out(tmp_path):
    return data.read_parquet(write_games(tmp_path, 100, seed=1))


def test_a_fit_goes_on_in_the_middle_of_a_window_and_reads_no_other_again(games, held_out, tmp_path, monkeypatch):
    with runtime.init(engine="serial"):
        with Supervised(games, held_out, label="won", **FEW) as fit:
            whole = fit.train(21).weights_sha256  # 2.2 epochs of 300 rows
            scores = fit.evaluate()
            assert fit.evaluate(tmp_path / "games1.parquet") == scores  # a table of the same rows
            with pytest.raises(
                InputError, match=r"'board' of batch 0 of dataset is of .* want numbers of shape \(1, 3\)"
            ):
                fit.evaluate(held_out.map(lambda row: row | {"board": row["board"][0]}))
        with Supervised(games, held_out, label="won", **FEW) as fit, RunFolder(tmp_path / "run") as folder:
            fit.train(14, callbacks=[folder])
        opened = []
        begin = Batches.__init__

        def noted(self, *arguments):
            begin(self, *arguments)
            opened.append((arguments[-1], self))

        monkeypatch.setattr(Batches, "__init__", noted)
        with Supervised.load(tmp_path / "run", games, held_out) as fit:
            assert not opened  # what the columns are is known
            assert fit.train(7).weights_sha256 == whole
            assert fit.evaluate() == scores
            state, batches = opened[0]
            assert len(json.dumps(state)) < 1000
            assert (state["batch"], state["cursor"][0]) == (14, 14 * 32 % 300 % 100)
            # The rows after: those left of the second window, the third one, and the next epoch's first, of 100 each.
            assert batches.stats().rows == 7 * 32
            assert batches.stats().bytes == pytest.approx(games.to_table().nbytes, rel=0.1)
        assert evaluate_model(tmp_path / "run", held_out)["logloss"] > scores["logloss"] > 0


def test_early_stopping_measures_the_held_out_stream(games, held_out):
    settings = FEW | {"early_stopping_rounds": 14, "learning_rate": 0.3}
    with runtime.init(engine="serial"), Supervised(games, held_out, label="won", **settings) as fit:
        assert fit.train(700).timesteps < 700
        best, rounds = fit._state.best
        assert fit.model.version == rounds == fit.timesteps - 14
        assert fit.evaluate()["logloss"] == pytest.approx(best, abs=1e-4)


def test_the_command_streams_pictures(tmp_path, monkeypatch, capsys):
    random = np.random.default_rng(0)
    for index in range(40):
        folder = tmp_path / "pictures" / ("bright" if index % 2 else "dark")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 128, (6, 8, 3), dtype=np.uint8) + 127 * (index % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
    (tmp_path / "streamed_pictures.py").write_text(
        "from shoal import data\n\ndef train():\n"
        "    return data.read_images('pictures', labels=True).shuffle(seed=0, window=16)\n\n"
        "def held_out():\n    return data.read_images('pictures', labels=True).take(30)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    few = ["--engine", "serial", "--module", "test_streams:Pixels", "--batch-size", "8", "--learning-rate", "0.01"]
    given = ["streamed_pictures:train", "--eval-dataset", "streamed_pictures:held_out", *few]
    assert main(["fit", "supervised", *given, "--rounds", "40", "--run-dir", "whole", "--json"]) == 0
    whole = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert main(["fit", "supervised", *given, "--rounds", "13", "--run-dir", "parts"]) == 0
    assert main(["fit", "--resume", "parts", "--rounds", "40", "--engine", "serial", "--json"]) == 0
    parts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert parts["weights_sha256"] == whole["weights_sha256"]
    assert parts["scores"] == whole["scores"]
    assert whole["scores"]["accuracy"] == 1
    with runtime.init(engine="serial"):
        assert evaluate_model("parts") == whole["scores"]
    assert load_model("parts").observation_space.shape == (6, 8, 3)


def items(**columns):
    names = list(columns)
    return data.from_items([dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)])


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (lambda: items(x=[1.0, 2.0], y=[0, 1]), {"label": "z"}, "dataset has no column 'z'"),
        (lambda: items(x=[[1.0], [2.0, 3.0]], y=[0, 1]), {}, r"column 'x' of dataset holds values such as array"),
        (lambda: items(x=[np.ones(2), np.ones(2)], y=[0, None]), {}, "row 1 has a label 'y' that is missing"),
        (lambda: items(y=[0, 1]), {}, "has the column 'y' alone"),
        (lambda: items(x=[1.0], y=[0]).filter(lambda row: False), {}, "dataset has no rows"),
        (lambda: items(x=[1.0, 2.0], y=[0, 1]), {"early_stopping_rounds": 3}, "none where no rows are held out"),
        (lambda: "test_streams:FEW", {}, "gives a dict, but must give a Dataset"),
        (lambda: "test_streams:write_game", {}, "has no 'write_game'. Did you mean 'write_games'"),
    ],
)
def test_what_cannot_be_streamed_is_refused(make, settings, message):
    with runtime.init(engine="serial"), pytest.raises(InputError, match=message):
        Supervised(make(), **{"label": "y"} | settings)


def test_later_rows_of_another_kind_are_refused_by_their_batch():
    first = {"x": 1.0, "kind": "a", "y": 0}
    wrong = {
        "batch 1 of dataset has no column 'x'": [{"kind": "a", "y": 0}] * 2,
        "column 'x' of batch 1 of dataset holds object, but held numbers": [first | {"x": "one"}] * 2,
        "column 'kind' of batch 1 of dataset holds int64, but held texts": [first | {"kind": 3}] * 2,
        "batch 1 of dataset: row 1 has a label 'y' that is missing or none of the classes": [first, first | {"y": 7}],
    }
    settings = {"label": "y", "batch_size": 2, "described_rows": 2}
    with runtime.init(engine="serial"):
        for message, rows in wrong.items():
            given = data.from_items([first, first | {"y": 1}, *rows], rows_per_piece=2).batch(2)
            with Supervised(given, **settings) as fit, pytest.raises(InputError, match=message):
                fit.train(2)


def test_a_fit_goes_on_with_its_own_plan_only(games, held_out, tmp_path):
    with runtime.init(engine="serial"):
        with pytest.raises(InputError, match="repeats without end"):
            Supervised(games, held_out.repeat(), label="won")
        with Supervised(games, label="won", **FEW) as fit:
            fit.train(2)
            fit.save(tmp_path / "run")
            with pytest.raises(InputError, match="repeats without end"):
                fit.evaluate(held_out.repeat())
        with pytest.raises(InputError, match="repeats without end"):
            evaluate_model(tmp_path / "run", held_out.repeat())
        with pytest.raises(InputError, match=r"pass it to load\(…, dataset=…\)"):
            Supervised.load(tmp_path / "run")
        with pytest.raises(InputError, match="the files, the stages or their settings have changed"):
            Supervised.load(tmp_path / "run", games.shuffle(seed=4, window=100))
        with (
            Supervised.load(tmp_path / "run", games, batch_size=16) as fit,
            pytest.raises(InputError, match="no rows are held out"),
        ):
            fit.evaluate()


@pytest.mark.slow
def test_one_hash_for_any_readers_whoever_is_killed(games, held_out, tmp_path):
    def whole(plan, engine, callback=None):
        with runtime.init(engine=engine), Supervised(plan, held_out, label="won", **FEW) as fit:
            return fit.train(35, callbacks=callback).weights_sha256

    flag = Path(tmp_path / "killed")
    flag.touch()
    staged = games.map_batches(KillOnce(flag))
    wanted = whole(staged, "serial")
    assert [whole(staged.options(readers=readers), "native") for readers in (1, 2)] == [wanted] * 2
    flag.unlink()
    assert whole(staged, "native") == wanted
    assert flag.exists()
    assert whole(staged, "native", Kill(lambda fit: fit._learners.learner.actor)) == wanted
