"""Weights of language models: the same for any number of generators and learners, whoever dies, on either engine, and
when resumed; an asynchronous run is repeated."""

import contextlib
import os
import signal
from pathlib import Path

import pytest

from shoal import GRPO, RunFolder, runtime
from shoal.envs.language import Copy, Recall
from shoal.rl import Callback, verify

SETTINGS = {
    "n_envs": 12,
    "group_size": 4,
    "samples": 4,
    "batch_size": 6,
    "n_epochs": 2,
    "max_new_tokens": 3,
    "gradient_shards": 2,
    "preset": "none",
    "policy_kwargs": {"tokenizer": "characters", "context": 24, "width": 16, "heads": 2, "layers": 1},
}
TASKS = {"copy": (Copy, {"length": 2}), "recall": (Recall, {"turns": 2})}


def dies_once(marker):
    """Kills this process if the file `marker` is there; of several that see it, one."""
    with contextlib.suppress(FileNotFoundError):
        Path(marker).unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def mortal(task, markers):
    """An algorithm and an environment: the environment's process is killed once, while it judges an answer, and the
    learner's between two minibatches, where there are files "generator" and "learner"."""
    kind, kwargs = TASKS[task]

    class Mortal(kind):
        def step(self, action):
            if self.np_random.random() < 0.2:
                dies_once(markers / "generator")
            return super().step(action)

    class MortalGRPO(GRPO):
        @staticmethod
        def update(learner, rollout, config, clock):
            def minimize(*args, **settings):
                told = type(learner).minimize(learner, *args, **settings)
                if learner.iteration > 1:
                    dies_once(markers / "learner")
                return told

            learner.minimize = minimize
            try:
                return GRPO.update(learner, rollout, config, clock)
            finally:
                del learner.minimize

    return MortalGRPO, Mortal, kwargs


class Disturb(Callback):
    """After the first iteration lets a generator die in the middle of an answer, and the learner, or one of two, in the
    middle of an update; after the third, kills it between two."""

    def __init__(self, markers):
        self.markers = markers

    def on_iteration_end(self, training, report):
        if report.iteration == 1:
            for name in ("generator", "learner"):
                (self.markers / name).touch()
        elif report.iteration == 3:
            learner = training.actors.learner
            members = getattr(learner, "members", [])
            if len(members) > 1:
                runtime.kill(members[0])
            elif not members:
                runtime.kill(learner.actor, no_restart=False)


def sha(made, engine, disturb=None, iterations=5, save=None, load=None, **settings):
    algorithm, env, kwargs = made
    runtime.init(engine=engine, **({"num_cpus": 4} if engine == "native" else {}))
    given = SETTINGS | settings
    training = algorithm.load(load, env=env, **settings) if load else algorithm(env, env_kwargs=kwargs, **given)
    with training as grpo:
        result = grpo.train(12 * iterations, callbacks=[] if disturb is None else [disturb])
        if save:
            grpo.save(save)
    runtime.shutdown()
    return result.weights_sha256


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("task", TASKS)
def test_any_number_of_generators_and_learners_whoever_dies(task, tmp_path):
    made = mortal(task, tmp_path)
    alone = sha(made, "serial")
    for workers in (1, 2, 3):
        for learners in (1, 2):
            assert sha(made, "native", Disturb(tmp_path), workers=workers, learners=learners) == alone
            assert not list(tmp_path.iterdir())  # they did die


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_resumed_training_with_other_numbers_of_generators_and_learners(task, tmp_path):
    markers, saved = tmp_path / "markers", tmp_path / "saved"
    markers.mkdir()
    made = mortal(task, markers)
    alone = sha(made, "serial")
    sha(made, "native", iterations=2, save=saved, workers=2, learners=2)
    found = sha(made, "native", Disturb(markers), iterations=3, load=saved, workers=3, learners=1)
    assert found == alone


@pytest.mark.slow
def test_an_asynchronous_run_is_repeated_by_another_number_of_generators(tmp_path):
    runtime.init(num_cpus=4)
    with GRPO("recall-2", **SETTINGS, max_lag=2, workers=2) as grpo, RunFolder(tmp_path / "run") as folder:
        result = grpo.train(12 * 8, callbacks=[folder])
    found = verify(GRPO, tmp_path / "run", workers=1)
    assert found.followed_sha256 == result.weights_sha256
