"""Weights of language models: the same for any number of generators and learners, whoever dies, on either engine."""

import os
import signal
from pathlib import Path

import pytest

from shoal import GRPO, runtime
from shoal.envs.language import Copy, Recall
from shoal.rl import Callback

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


def mortal(task, marker):
    """An environment whose process is killed once, while it judges an answer: where the file `marker` is."""
    kind, kwargs = TASKS[task]

    class Mortal(kind):
        def step(self, action):
            dies = self.np_random.random() < 0.2
            if dies and Path(marker).exists():
                Path(marker).unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().step(action)

    return Mortal, kwargs


class Disturb(Callback):
    """After the first iteration, lets a generator die in the middle of an answer; after the second, kills the
    learner."""

    def __init__(self, marker):
        self.marker = marker

    def on_iteration_end(self, training, report):
        if report.iteration == 1:
            self.marker.touch()
        elif report.iteration == 2:
            runtime.kill(training.actors.learner.actor, no_restart=False)


def sha(env, kwargs, engine, disturb=None, iterations=4, **settings):
    with GRPO(env, env_kwargs=kwargs, engine=engine, **SETTINGS, **settings) as grpo:
        result = grpo.train(12 * iterations, callbacks=[] if disturb is None else [disturb])
    runtime.shutdown()
    return result.weights_sha256


@pytest.mark.slow
def test_two_generators_that_die_give_the_weights_of_one_in_this_process(tmp_path):
    marker = tmp_path / "die"
    alone = sha(*mortal("recall", marker), "serial")
    assert sha(*mortal("recall", marker), "native", Disturb(marker), workers=2) == alone
    assert not marker.exists()  # it did die


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_any_number_of_generators_and_learners(task, tmp_path):
    marker = tmp_path / "die"
    given = mortal(task, marker)
    shas = {sha(*given, "serial", iterations=5)}
    for workers in (1, 2, 3):
        for learners in (1, 2):
            disturb = Disturb(marker) if learners == 1 else None
            shas.add(sha(*given, "native", disturb, iterations=5, workers=workers, learners=learners))
    assert len(shas) == 1
