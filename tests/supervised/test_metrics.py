"""Metrics that users choose: by name, and functions of their own."""

import json

import numpy as np
import pytest
from test_fits import continuous

from shoal import Supervised, runtime
from shoal.rl import evaluate_model
from shoal.rl.supervised.metrics import measured, named_metrics
from shoal.runtime import InputError

TWO = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.8, 0.2]], np.float32)
TRUTH = np.array([0, 1, 0, 1], np.float32)


def share_of_zeros(labels, predictions):
    assert labels.dtype.kind == "i"
    return float((predictions.argmax(1) == 0).mean())


def test_metrics_by_hand():
    # Of label 1: one of two is found, and one of two that are said is right. Pairs of (1, 0) in the right order:
    # .6 > .1, .6 < .7, .2 > .1, .2 < .7, so half of them.
    found = measured("accuracy,f1,precision,recall,auc,zeros=test_metrics:share_of_zeros", TWO, TRUTH)
    assert found == pytest.approx(
        {"accuracy": 0.5, "f1": 0.5, "precision": 0.5, "recall": 0.5, "auc": 0.5, "zeros": 0.5}
    )
    # Three classes, of which the last is not there: f1 of 2/3 and 1 (its mean over those that are said or true), and
    # the mean of the two areas that are defined.
    three = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]], np.float32)
    found = measured("f1,auc", three, np.array([0, 1, 1], np.float32))
    assert found == pytest.approx({"f1": 2 / 3, "auc": 1.0})
    quantities = measured("mape,max_error,rmse", np.array([1.0, 3.0]), np.array([2.0, 4.0]))
    assert quantities == pytest.approx({"mape": 0.375, "max_error": 1.0, "rmse": 1.0})
    assert measured("auc", TWO[:1], TRUTH[:1]) == {}  # one class has no area


def test_metrics_are_given_in_any_form():
    assert named_metrics(["f1", "auc"]) == named_metrics(" f1, auc ") == "f1,auc"
    assert named_metrics({"mine": "test_metrics:share_of_zeros"}) == "mine=test_metrics:share_of_zeros"


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ("f1,acuracy", "metrics name 'acuracy', which is none for this label.* Did you mean 'accuracy'"),
        ("rmse", "metrics name 'rmse', which is none for this label.* Known: accuracy"),
        ("test_metrics:share_of_zeroes", "has no 'share_of_zeroes'. Did you mean 'share_of_zeros'"),
    ],
)
def test_metrics_that_cannot_be_are_refused(metrics, message):
    with runtime.init(engine="serial"), pytest.raises(InputError, match=message):
        Supervised(continuous(50, 3), metrics=metrics)


def test_metrics_are_in_the_curve_and_in_evaluations(tmp_path):
    rows = continuous(100, 3)
    with (
        runtime.init(engine="serial"),
        Supervised(rows, metrics={"auc": "auc", "zeros": "test_metrics:share_of_zeros"}, rounds_per_iteration=5) as fit,
    ):
        _, history = fit._boost(5)
        fit.train(5)
        fit.save(tmp_path)
        scores = fit.evaluate()
    assert list(history["eval"]) == ["loss", "auc", "zeros"]
    assert list(scores) == ["accuracy", "logloss", "auc", "zeros"]
    document = json.loads(next(tmp_path.glob("checkpoints/*/model.json")).read_text())
    assert document["run"]["metrics"] == "auc=auc,zeros=test_metrics:share_of_zeros"
    assert list(evaluate_model(tmp_path, rows)) == list(scores)
