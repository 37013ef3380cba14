"""Networks of tables: minibatches, losses, the same bits when resumed, modules of one's own."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_fits import Kill, continuous, table  # noqa: F401 — a fixture
from torch import nn

from shoal import RunFolder, Supervised, runtime, serve
from shoal.rl import evaluate_model, load_model
from shoal.rl.supervised.losses import Recipe, loss_of, row_weights
from shoal.rl.supervised.minibatches import rows_of_step
from shoal.rl.supervised.modules import TableNetwork

RECIPE = Recipe("cross_entropy", (1.0, 3.0))


class Wide(nn.Module):
    """Outputs of another width than is wanted."""

    def __init__(self, outputs=3):
        super().__init__()
        self.layer = nn.Linear(3, outputs)

    def forward(self, rows):
        return self.layer(rows)


def test_each_epoch_is_all_rows_in_an_order_of_its_own():
    steps = [rows_of_step(5, 2, 1, step).tolist() for step in range(6)]
    assert [len(rows) for rows in steps] == [2, 2, 1, 2, 2, 1]
    first, second = ([row for rows in part for row in rows] for part in (steps[:3], steps[3:]))
    assert sorted(first) == sorted(second) == [0, 1, 2, 3, 4]
    assert first != second


def test_class_weights_and_losses_by_hand():
    said, labels = torch.tensor([[0.0, 0.0], [0.0, float(np.log(3))]]), torch.tensor([0, 1])
    wanted = (1 * np.log(2) + 3 * np.log(4 / 3)) / 4
    weights = row_weights(RECIPE, labels)
    assert weights.tolist() == [0.5, 1.5]
    assert loss_of(RECIPE)(said, labels, weights).item() == pytest.approx(wanted)
    assert loss_of(replace(RECIPE, loss="l1"))(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 2.0]), None).item() == 1.5


def test_missing_values_are_the_mean_and_said_to_be_missing():
    network = TableNetwork([0, 2], [5.0, 0.0], [2.0, 1.0], 1, net_arch=(), embedding=1)
    with torch.no_grad():
        network.layers[-1].weight.copy_(torch.tensor([[1.0, 10.0, 100.0]]))
        network.layers[-1].bias.zero_()
        network.embeddings[0].weight.copy_(torch.tensor([[7.0], [1.0], [2.0]]))  # missing, and both categories
        said = network(torch.tensor([[9.0, 0.0], [float("nan"), 1.0], [5.0, float("nan")]]))
    assert said.flatten().tolist() == [2 + 100, 10 + 200, 700]


def test_a_fit_goes_on_in_the_middle_of_an_epoch_with_the_same_bits_and_is_served(table, tmp_path):  # noqa: F811
    settings = {"label": "won", "rounds_per_iteration": 7, "module_kwargs": {"net_arch": [16], "dropout": 0.1}}
    with runtime.init(engine="serial"):
        before = torch.random.get_rng_state()
        with Supervised(str(table), **settings) as fit:
            whole = fit.train(21)
        assert torch.equal(before, torch.random.get_rng_state())
        with Supervised(str(table), **settings) as fit, RunFolder(tmp_path / "run") as folder:
            fit.train(7, callbacks=[folder])
        with Supervised.load(tmp_path / "run") as fit, RunFolder(tmp_path / "run", resume=True) as folder:
            assert fit.train(14, callbacks=[folder]).weights_sha256 == whole.weights_sha256
            row = fit.table.features[:1]
            wanted = fit.model.predict(row)[0]
        document = json.loads((tmp_path / "run/checkpoints/000000000021/model.json").read_text())
        assert document["details"]["module"] == "mlp"
        np.testing.assert_array_equal(load_model(tmp_path / "run").predict(row)[0], wanted)
        with serve(tmp_path / "run") as served:
            finite = np.nan_to_num(row[0])
            assert served.act(finite)["probabilities"].sum() == pytest.approx(1)


def test_early_stopping_keeps_the_weights_that_were_best(tmp_path):
    features, labels = continuous(200, 3)
    labels = np.random.default_rng(1).permutation(labels)  # nothing can be learned
    settings = {"rounds_per_iteration": 10, "early_stopping_rounds": 30, "learning_rate": 0.05}
    with runtime.init(engine="serial"), Supervised((features, labels), **settings) as fit:
        assert fit.train(500).timesteps < 500
        best, rounds = fit._state.best
        assert fit.model.version == rounds == fit.timesteps - 30
        assert fit.evaluate()["logloss"] == pytest.approx(best, abs=1e-4)
        fit.save(tmp_path)
        loaded = Supervised.load(tmp_path, (features, labels))
        assert loaded.evaluate() == fit.evaluate()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "mse"}, "loss is 'mse', but for this label must be one of cross_entropy"),
        ({"input_shape": (2, 2)}, r"input_shape is \[2, 2\], which is 4 numbers, but a row has 3"),
        ({"module": "test_networks:Wise"}, "has no 'Wise'. Did you mean 'Wide'"),
        ({"workers": 2}, "workers is 2, but must be 1"),
    ],
)
def test_what_cannot_work_is_refused(settings, message):
    with runtime.init(engine="serial"), pytest.raises(runtime.InputError, match=message):
        Supervised(continuous(50, 3), **settings)


def test_a_module_of_another_width_is_told_what_is_wanted():
    with (
        runtime.init(engine="serial"),
        Supervised(continuous(50, 3), module="test_networks:Wide") as fit,
        pytest.raises(runtime.InputError, match=r"shape \[40, 3\] for 40 rows, but must give \[40, 2\]"),
    ):
        fit.train(1)


@pytest.mark.parametrize(
    ("named", "readers"),
    [
        ("module", [Supervised.load, load_model, serve, evaluate_model]),
        ("loss", [Supervised.load]),
        ("dataset", [Supervised.load, evaluate_model]),
    ],
)
def test_what_lies_in_a_runs_folder_is_not_run(named, readers, tmp_path, monkeypatch):
    run, mark = tmp_path / "run", tmp_path / "was imported"
    rows = tmp_path / f"rows_{named}.py"
    rows.write_text(
        "import torch\nfrom shoal import data\n"
        "class Wide(torch.nn.Linear):\n    def __init__(self):\n        super().__init__(1, 2)\n"
        "loss = torch.nn.functional.cross_entropy\n"
        "def made(): return data.from_items([{'x': float(i), 'label': i % 2} for i in range(9)])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    names = {"module": f"{rows.stem}:Wide", "loss": f"{rows.stem}:loss"}
    with runtime.init(engine="serial"):
        with Supervised(f"{rows.stem}:made", **{name: path for name, path in names.items() if name == named}) as fit:
            fit.train(1)
            fit.save(run)
        del sys.modules[rows.stem]
        rows.rename(run / rows.name)
        monkeypatch.syspath_prepend(run)
        (run / rows.name).write_text(f"open({str(mark)!r}, 'w')")
        for read in readers:
            with pytest.raises(runtime.InputError, match="what a run holds is not run"):
                read(run)
    assert not mark.exists()


@pytest.mark.slow
def test_a_killed_learner_and_a_module_of_ones_own_give_the_same_weights():
    settings = {"rounds_per_iteration": 10, "module": "test_networks:Wide", "module_kwargs": {"outputs": 2}}
    hashes = []
    for engine, callback in (
        ("serial", None),
        ("native", None),
        ("native", Kill(lambda fit: fit._learners.learner.actor)),
    ):
        with runtime.init(engine=engine), Supervised(continuous(300, 3), **settings) as fit:
            hashes.append(fit.train(50, callbacks=callback).weights_sha256)
    assert len(set(hashes)) == 1
