"""joblib's parallel calls on the runtime's tasks."""

import os

import joblib
import numpy as np
import pytest
from conftest import wait_until

from shoal import runtime
from shoal.runtime.api import joblib_backend


def call(function, *columns, **options):
    return joblib.Parallel(**options)(joblib.delayed(function)(*row) for row in zip(*columns, strict=True))


def where(array, index):
    return os.getpid(), array.flags.writeable, float(array[index])


def sum_of_squares(i):
    return sum(call(pow, [i] * 3, [2] * 3, n_jobs=2))


def test_calls_become_tasks_and_large_arrays_travel_once(engine, monkeypatch):
    stored = []
    monkeypatch.setattr(joblib_backend, "put", lambda value: stored.append(value.nbytes) or runtime.put(value))
    large = np.arange(1 << 17, dtype=float)
    with runtime.joblib():
        told = call(where, [large] * 6, range(6))
        small = call(where, [large[:6].copy()] * 6, range(6), n_jobs=2)
    assert [value for *_, value in told] == list(range(6)) == [value for *_, value in small]
    assert stored == [large.nbytes]
    assert {writeable for _, writeable, _ in told} == {False}
    assert {writeable for _, writeable, _ in small} == {True}
    assert ({pid for pid, *_ in told} == {os.getpid()}) is (engine == "serial")


def test_calls_within_tasks_do_not_wait_for_ever(engine):
    with runtime.joblib():
        assert call(sum_of_squares, range(6)) == [3 * i * i for i in range(6)]
        assert (
            list(joblib.Parallel(return_as="generator_unordered", n_jobs=2)([joblib.delayed(abs)(-1)] * 5)) == [1] * 5
        )


def test_an_exception_comes_through_and_cancels_the_rest(engine, concurrent):
    def fail_or_stay(i):
        if i == 1:
            raise ValueError(f"row {i}")
        while True:
            os.sched_yield()

    with runtime.joblib(), pytest.raises(ValueError, match="row 1"):
        call(fail_or_stay, range(6))
    wait_until(lambda: runtime.available_resources()["CPU"] == 2)


def test_what_cannot_be_is_refused(engine, monkeypatch):
    with pytest.raises(runtime.InputError, match="joblib: n_jobs=0: want how many"), runtime.joblib(0):
        pass
    monkeypatch.setattr(joblib_backend, "find_spec", lambda name: None)
    with pytest.raises(runtime.InputError, match="pip install joblib"), runtime.joblib():
        pass


@pytest.mark.slow
def test_grid_search_and_forests_run_unchanged(engine):
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    rows, labels = load_digits(return_X_y=True)
    rows, labels = rows[:500], labels[:500]
    found = []
    for on in (joblib.parallel_config(backend="sequential"), runtime.joblib()):
        with on:
            search = GridSearchCV(SVC(), {"C": [1, 10], "gamma": [1e-4, 1e-3]}).fit(rows, labels)
            forest = RandomForestClassifier(20, random_state=0).fit(rows, labels)
            importances = permutation_importance(forest, rows[:100], labels[:100], n_repeats=2, random_state=0)
        found.append((search.best_params_, search.cv_results_["mean_test_score"], importances.importances))
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])
    np.testing.assert_array_equal(found[0][2], found[1][2])
