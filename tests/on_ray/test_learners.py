"""Groups of learners, classic models and joblib's calls on a real Ray of this machine."""

import importlib.util

import joblib
import numpy as np
import pytest
from datasets import episode, write_dataset
from gymnasium import spaces

from shoal import XGBoost, runtime
from shoal.algorithms import BC, PPO
from shoal.rl import Callback

if importlib.util.find_spec("ray") is None:
    pytest.skip("run by `make test-ray`", allow_module_level=True)

pytestmark = pytest.mark.timeout(600)  # Ray's own start takes most of it

SETTINGS = {"preset": "none", "n_envs": 4, "group_size": 2, "n_steps": 16, "batch_size": 32, "n_epochs": 2, "seed": 5}


class KillLearner(Callback):
    """Kills the first learner of a group after the first iteration."""

    def on_iteration_end(self, training, report):
        if report.iteration == 1:
            runtime.kill(training.actors.learner.members[0])


def test_two_learners_give_the_weights_of_one_also_when_one_is_killed_and_of_a_dataset(datasets):
    box, choice = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(3)
    played = [episode(box, choice, length, seed=length) for length in range(5, 20)]
    recorded = write_dataset("drawn/many-v0", played, box, choice)

    def train(learners, *callbacks):
        with PPO("CartPole-v1", **SETTINGS, learners=learners, gradient_shards=4, workers=1) as ppo:
            return ppo.train(3 * 4 * 16, callbacks=callbacks).weights_sha256

    def clone(learners):
        settings = {"gradient_steps": 10, "batch_size": 16, "buffer_size": 60, "normalize": "obs"}
        with BC(dataset=recorded, **settings, learners=learners, gradient_shards=2) as bc:
            return bc.train(30).weights_sha256

    with runtime.init(engine="serial"):
        digests = train(1), clone(1)
    with runtime.init(engine="ray", num_cpus=4):
        assert (train(2), clone(2)) == digests
        assert train(2, KillLearner()) == digests[0]
        assert clone(1) == digests[1]


def test_trees_over_actors_are_those_of_the_serial_engine():
    pytest.importorskip("xgboost")
    random = np.random.default_rng(0)
    features = random.normal(size=(3_000, 4)).astype(np.float32)
    labels = (features[:, 0] + features[:, 1] ** 2 > 0.5).astype(int)
    digests = []
    for engine, workers in (("serial", 1), ("ray", 2)):
        with (
            runtime.init(engine=engine, num_cpus=3),
            XGBoost((features, labels), workers=workers, ranks=2, rounds_per_iteration=2, max_depth=3) as fit,
        ):
            digests.append(fit.train(6).weights_sha256)
    assert digests[0] == digests[1]


def test_a_grid_search_runs_unchanged():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    rows, labels = load_digits(return_X_y=True)
    rows, labels = rows[:300], labels[:300]
    found = []
    with runtime.init(engine="ray", num_cpus=2):
        for on in (joblib.parallel_config(backend="sequential"), runtime.joblib()):
            with on:
                search = GridSearchCV(SVC(), {"C": [1, 10], "gamma": [1e-4, 1e-3]}).fit(rows, labels)
            found.append((search.best_params_, search.cv_results_["mean_test_score"].tolist()))
    assert found[0] == found[1]
