"""A call into an environment that does not return is ended, or at least named."""

import contextlib
import logging
import threading
import time

import numpy as np
import pytest
from tiny_envs import Counter

from shoal.envs import EnvGroup, EnvSpec, EnvTimeoutError, watch
from shoal.envs.check import inspect_environment

LIMIT = 0.2


class Stuck(Counter):
    """Waits for ever where it is told, swallowing whatever Exception comes."""

    def __init__(self, where="step", deaf=None):
        super().__init__(length=9)
        self.where, self.deaf = where, deaf
        self.wait("__init__")

    def wait(self, where):
        while self.where == where and (self.where != "step" or self.steps == 2):
            with contextlib.suppress(Exception):
                time.sleep(600) if self.deaf is None else self.deaf()

    def reset(self, *, seed=None, options=None):
        self.wait("reset")
        return super().reset(seed=seed)

    def step(self, action):
        self.wait("step")
        return super().step(action)


def play(group):
    with group:
        group.reset()
        for _ in range(3):
            group.step(np.zeros(1))


def group_of(where, **kwargs):
    spec = EnvSpec("S-v0", Stuck, {"where": where, "deaf": kwargs.pop("deaf", None)})
    return EnvGroup(spec, size=1, first_index=3, run_seed=0, **kwargs)


@pytest.mark.parametrize(
    ("where", "moment"), [("step", "at step 3 of episode 0"), ("reset", "at the start of episode 0"), ("__init__", "")]
)
def test_a_call_that_does_not_return_is_interrupted(where, moment):
    with pytest.raises(
        EnvTimeoutError, match=rf"environment 'S-v0', index 3: {where} had not returned after 0.2 s"
    ) as caught:
        play(group_of(where, step_timeout=LIMIT))
    (note,) = caught.value.__notes__
    assert f"in {where} of environment 'S-v0', index 3 {moment}".strip() in note
    assert "To repeat it alone" in note
    with pytest.raises(EnvTimeoutError, match=f"environment 'S-v0': {where} had not returned after 0.2 s"):
        inspect_environment(EnvSpec("S-v0", Stuck, {"where": where}), step_timeout=LIMIT)


def test_in_another_thread():
    seen = []

    def run():
        try:
            play(group_of("step", deaf=lambda: time.sleep(0.01), step_timeout=LIMIT))
        except EnvTimeoutError as error:
            seen.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    assert seen
    assert "step had not returned" in seen[0]


def test_code_that_cannot_be_interrupted_ends_its_process(monkeypatch):
    monkeypatch.setattr(watch, "_GRACE_SECONDS", 0.1)
    given_up, reports = threading.Event(), []

    def wait():  # as code that does not come back to Python
        while not given_up.is_set():
            with contextlib.suppress(BaseException):
                given_up.wait(1)
        raise KeyboardInterrupt

    def end(report):
        reports.append(report)
        given_up.set()

    with pytest.raises(KeyboardInterrupt):
        play(group_of("step", deaf=wait, step_timeout=LIMIT, end_process=end))
    (report,) = reports
    assert report.startswith("environment 'S-v0', index 3: step (step 3 of episode 0) has not returned after 0.2 s")
    assert "actions = np.array([0, 0, 0]" in report


def test_a_line_says_which_environment_takes_long(monkeypatch, caplog):
    monkeypatch.setattr(watch, "PATIENCE_SECONDS", 0.1)
    said = threading.Event()
    caplog.handler.addFilter(lambda record: said.set() or True)

    def wait():
        assert said.wait(20)
        raise KeyboardInterrupt

    with caplog.at_level(logging.WARNING, "shoal"), pytest.raises(KeyboardInterrupt):
        play(group_of("step", deaf=wait))
    assert "environment 'S-v0', index 3: step (step 3 of episode 0) has not returned for" in caplog.text
