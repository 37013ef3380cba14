"""Rollouts that are asked for before the update that they wait for is known to be wanted."""

import math
import os

import pytest
from disturbances import disturbed, trained_through
from learning_envs import Walk

from shoal.algorithms import PPO
from shoal.rl import Callback
from shoal.rl.actors import RolloutWorkers

SETTINGS = {
    "n_envs": 4, "group_size": 2, "seed": 3, "preset": "none", "device": "cpu", "n_steps": 16, "batch_size": 32,
    "n_epochs": 2, "policy_kwargs": {"net_arch": [8]},
}  # fmt: skip
STEPS = 64 * 6


@pytest.mark.parametrize(
    "total", [pytest.param(STEPS, marks=pytest.mark.slow), STEPS + 64], ids=["as-begun", "in-vain"]
)
def test_rollouts_that_were_asked_for_ahead_change_no_row(processes, monkeypatch, total):
    """A callback ends a training when its fourth iteration is under way; it goes on with the same end, or another."""
    ahead = []
    collect = RolloutWorkers.collect

    def collecting(workers, state, clock, *, beside=None):
        ahead.append(beside is not None)
        return collect(workers, state, clock, beside=beside)

    monkeypatch.setattr(RolloutWorkers, "collect", collecting)

    class Rows(Callback):
        def __init__(self):
            self.rows = []

        def on_iteration_end(self, training, report):
            metrics = {name: value for name, value in report.metrics.items() if not name.startswith("time/")}
            self.rows.append((report.iteration, report.timesteps, metrics, dict(report.hashes)))
            return len(self.rows) != 3

    def trained_in_two(**settings):
        rows = Rows()
        with PPO(Walk, **SETTINGS, **settings) as training:
            assert training.train(total, callbacks=rows).interrupted
            digest = training.train(STEPS - training.timesteps, callbacks=rows).weights_sha256
        return rows.rows, digest

    monkeypatch.setattr("shoal.rl.ahead._SHORT_SECONDS", math.inf)
    followed = trained_in_two(workers=2)
    in_vain = 1 if total > STEPS else 0
    assert (sum(ahead), len(ahead)) == (5, 6 + in_vain), "the first rollouts are not ahead, and none follow the last"
    assert len(followed[0]) == 6
    monkeypatch.setattr("shoal.rl.ahead._SHORT_SECONDS", 0)
    assert trained_in_two(workers=2) == followed
    assert sum(ahead) == 5


@pytest.mark.slow
def test_kills_and_interrupts_of_what_is_ahead_change_no_weight(processes, monkeypatch, tmp_path):
    """Updates 2, 6 and 10, of two epochs each, are of the second, fourth and sixth iteration."""
    monkeypatch.setattr("shoal.rl.ahead._SHORT_SECONDS", math.inf)
    events, ends = tmp_path / "events", []
    for what in ([], ["2 kill", "4 kill", f"6 interrupt {os.getpid()}", "10 kill"]):
        events.write_text("\n".join(what))
        with disturbed(PPO)(Walk, **SETTINGS, workers=2, events=str(events)) as training:
            ends.append(trained_through(training, STEPS))
        assert events.read_text() == ""
    (calm, _), (disturbed_hash, interrupts) = ends
    assert disturbed_hash == calm
    assert interrupts == 1


class Failing(Walk):
    """Raises in its 100th step."""

    def __init__(self):
        super().__init__()
        self.steps = 0

    def step(self, action):
        self.steps += 1
        if self.steps == 100:
            raise ValueError("the tank is empty")
        return super().step(action)


@pytest.mark.parametrize("workers", [1, 2])
def test_of_what_fails_in_vain_nothing_is_said(processes, monkeypatch, capfd, workers):
    """The seventh iteration is asked for when the environments raise in it or before."""
    monkeypatch.setattr("shoal.rl.ahead._SHORT_SECONDS", math.inf)
    with PPO(Failing, **SETTINGS, workers=workers) as training:
        with pytest.raises(ValueError, match="the tank is empty"):
            training.train(STEPS * 2)
        assert training.iteration == 6
    assert "nobody has read" not in capfd.readouterr().err
