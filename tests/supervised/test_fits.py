"""XGBoost and LightGBM: the same bits for any number of actors, whoever dies, and from a run folder."""

import json
import urllib.request
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import needs
from nodes import joined
from pyarrow import parquet

from shoal import LightGBM, RunFolder, XGBoost, runtime, serve
from shoal.cli.main import main
from shoal.rl import Callback, load_model
from shoal.rl.runs.checkpoint import list_checkpoints

pytestmark = needs("xgboost")


def continuous(rows, columns=20, seed=0):
    """Rows for which the number of ranks shows in the model."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(rows, columns)).astype(np.float32)
    score = features[:, 0] + np.sin(3 * features[:, 1]) + features[:, 2] * (features[:, 0] > 0)
    return features, (score + 0.3 * random.normal(size=rows) > 0).astype(int)


def few():
    return {"rounds_per_iteration": 2, "max_depth": 3, "subsample": 0.5, "ranks": 2}


@pytest.fixture
def table(tmp_path):
    features, labels = continuous(400, 3)
    columns = {f"x{i}": features[:, i] for i in range(3)}
    columns["x0"] = pa.array(features[:, 0], mask=features[:, 1] > 1)
    columns["kind"] = np.where(features[:, 2] > 0, "up", "down")
    parquet.write_table(pa.table(columns | {"won": np.where(labels, "yes", "no")}), tmp_path / "games.parquet")
    return tmp_path / "games.parquet"


class Kill(Callback):
    """Kills an actor before the third iteration."""

    def __init__(self, actor):
        self._actor = actor

    def on_iteration_end(self, training, report):
        if report.iteration == 2:
            runtime.kill(self._actor(training), no_restart=False)


def test_a_fit_is_resumed_evaluated_and_served_by_its_run_folder(table, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = [
        "--label",
        "won",
        "--engine",
        "serial",
        "--rounds-per-iteration",
        "2",
        "--ranks",
        "2",
        "--subsample",
        "0.5",
    ]
    assert main(["fit", "xgboost", str(table), *flags, "--rounds", "6", "--run-dir", "whole", "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert main(["fit", "xgboost", str(table), *flags, "--rounds", "4", "--run-dir", "parts"]) == 0
    assert main(["fit", "--resume", "parts", "--rounds", "6", "--engine", "serial", "--json"]) == 0
    parts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert parts["weights_sha256"] == whole["weights_sha256"]
    lines = (tmp_path / "parts/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["timesteps"] for line in lines] == [2, 4, 6]
    assert (tmp_path / "parts/learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert main(["evaluate", "parts", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == whole["scores"] == parts["scores"]
    assert main(["fit", "--resume=parts", "--max-depth", "2"]) == 2
    assert "--max-depth cannot be given with --resume" in capsys.readouterr().err
    assert main(["train", "--resume", "parts"]) == 2
    assert "that run is of xgboost: continue it with shoal fit --resume" in capsys.readouterr().err
    row = [0.1, 0.2, 0.3, 1.0]
    predicted = load_model("parts").predict(np.asarray([row], np.float32))[0]
    with runtime.init(engine="serial"), serve("parts", http="127.0.0.1:0") as served:
        request = urllib.request.Request(f"{served.http_address}/act", json.dumps({"observation": row}).encode())
        answer = json.loads(urllib.request.urlopen(request, timeout=10).read())["action"]
    assert answer["label"] == predicted.argmax()
    assert answer["probabilities"] == pytest.approx(predicted.tolist())
    assert main(["evaluate", "parts", "--env", "CartPole-v1", "--video", "v.mp4"]) == 2
    assert "--env is for policies, and 'parts' holds a model of a table: give --dataset" in capsys.readouterr().err
    good, newest = list_checkpoints(Path("parts"))
    (newest / "model.ubj").write_bytes(b"")
    assert main(["evaluate", "parts"]) == 2
    assert f"Continue from it with: shoal fit --resume {good}" in capsys.readouterr().err


def test_a_fit_that_fails_saves_what_was_done(table, tmp_path, capsys, monkeypatch):
    boost = XGBoost.boost

    def fails_later(fit, content, rounds):
        if fit.timesteps == 4:
            raise OSError("no more")
        return boost(fit, content, rounds)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(XGBoost, "boost", fails_later)
    flags = ["--label", "won", "--engine", "serial", "--rounds-per-iteration", "2", "--run-dir", "run"]
    assert main(["fit", "xgboost", str(table), *flags]) == 1
    assert [folder.name for folder in list_checkpoints(Path("run"))] == ["000000000004"]
    assert "failed after 4 rounds; checkpoint:" in capsys.readouterr().err


def test_bad_settings_are_refused_before_anything_starts(table, monkeypatch):
    with runtime.init(engine="serial"):
        with pytest.raises(runtime.InputError, match="workers is 5, but must be at most 4, the number of ranks"):
            XGBoost(str(table), label="won", workers=5)
        with pytest.raises(runtime.InputError, match=r"no setting 'max_deph'\. Did you mean 'max_depth'"):
            XGBoost(str(table), label="won", max_deph=5)
        with pytest.raises(runtime.InputError, match="engine is 'native', but the runtime runs on 'serial'"):
            XGBoost(str(table), label="won", engine="native")
        monkeypatch.setattr(XGBoost, "module", "xgbust")
        with pytest.raises(runtime.InputError, match=r'pip install "shoal\[xgboost\]"'):
            XGBoost(str(table), label="won")


def test_early_stopping_predicts_with_the_best_rounds():
    features, labels = continuous(300, 3)
    labels = np.random.default_rng(1).permutation(labels)  # nothing can be learned
    with runtime.init(engine="serial"), XGBoost((features, labels), early_stopping_rounds=3, **few()) as fit:
        result = fit.train(100)
        best, rounds = fit._state.best
        assert fit.model.version == rounds <= result.timesteps - 3
        assert result.timesteps < 20
        assert fit.evaluate()["logloss"] == pytest.approx(best, abs=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_xgboost_has_one_hash_for_any_number_of_actors_and_one_killed():
    import xgboost

    features, labels = continuous(100_000)
    settings = {"max_depth": 4, "rounds_per_iteration": 5}
    hashes, accuracies = [], []
    with runtime.init(num_cpus=3):
        for workers, callback in ((1, None), (2, None), (3, None), (2, Kill(lambda fit: fit._ranks.hosts[1]))):
            with XGBoost((features, labels), workers=workers, **settings) as fit:
                hashes.append(fit.train(20, callbacks=callback).weights_sha256)
                accuracies.append(fit.evaluate()["accuracy"])
        train, out = fit.train_rows, fit.held_out_rows
    assert len(set(hashes)) == 1
    parameters = {"max_depth": 4, "objective": "binary:logistic", "tree_method": "hist", "nthread": 1}
    plain = xgboost.train(parameters, xgboost.DMatrix(train.features, train.labels), 20)
    accuracy = ((plain.predict(xgboost.DMatrix(out.features)) > 0.5) == out.labels).mean()
    assert accuracies[0] == pytest.approx(accuracy, abs=0.002)


@pytest.mark.slow
def test_actors_on_several_nodes_meet_in_the_network_and_only_if_they_are_let():
    rows, settings = continuous(2_000), few() | {"workers": 2}
    with runtime.init(engine="serial"), XGBoost(rows, **settings) as fit:
        wanted = fit.train(4).weights_sha256
    with runtime.init("native", num_cpus=1, listen="127.0.0.1:0"), joined("--num-cpus", "1"):
        with pytest.raises(runtime.InputError, match="workers is 2, but nodes is 'one', and none has so many CPUs"):
            XGBoost(rows, **settings).train(2)
        with XGBoost(rows, nodes="all", **settings) as fit:
            assert fit.train(4).weights_sha256 == wanted
            homes = {row.node_id for row in runtime.state.list_actors() if row.class_name == "RankHost"}
            assert len(homes) == 2


@pytest.mark.slow
def test_lightgbm_has_the_same_bits_when_it_is_killed_and_resumed(table, tmp_path):
    pytest.importorskip("lightgbm")
    settings = {"label": "won", "rounds_per_iteration": 2, "num_leaves": 7}
    with runtime.init(num_cpus=2):
        with LightGBM(str(table), **settings) as fit:
            whole = fit.train(8).weights_sha256
        with LightGBM(str(table), **settings) as fit:
            killed = fit.train(8, callbacks=Kill(lambda fit: fit._actor.actor)).weights_sha256
        with LightGBM(str(table), **settings) as fit, RunFolder(tmp_path / "run") as folder:
            fit.train(4, callbacks=[folder])
        with LightGBM.load(tmp_path / "run") as fit:
            resumed = fit.train(4).weights_sha256
            scores = fit.evaluate()
    assert whole == killed == resumed
    assert scores["accuracy"] > 0.7
