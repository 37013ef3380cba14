"""Iterations of several cycles: who runs them decides nothing, in weights, rows and hashes; deaths in them neither."""

import itertools
import math
import os

import pytest
from disturbances import disturbed, trained_through
from gymnasium import spaces
from learning_envs import Walk

from shoal import runtime
from shoal.algorithms import DQN, SAC
from shoal.rl import Callback, Clock
from shoal.rl.actors import ActorLearnerRun
from shoal.rl.colocated import ColocatedHandle, ColocatedRun
from shoal.rl.cycles import ITERATION_STEPS, cycles_of, metrics_of

COMMON = {
    "n_envs": 4, "group_size": 2, "seed": 3, "preset": "none", "device": "cpu", "train_freq": 4, "learning_starts": 40,
    "batch_size": 8, "n_step": 2, "policy_kwargs": {"net_arch": [8]},
}  # fmt: skip
PRIORITIZED = {"prioritized_replay": True, "buffer_size": 200, "target_update_interval": 48}
STEPS = 2 * ITERATION_STEPS + 88


class Rows(Callback):
    def __init__(self):
        self.rows = []

    def on_iteration_end(self, training, report):
        metrics = {name: value for name, value in report.metrics.items() if not name.startswith(("time/", "chaos/"))}
        episodes = [(episode.return_, episode.length) for episode in report.episodes]
        self.rows.append((report.iteration, report.timesteps, metrics, episodes, dict(report.hashes)))


def trained(workers, kind=DQN, settings=PRIORITIZED, env=Walk, **changes):
    """Rows of a training, and the hash of its weights."""
    rows = Rows()
    with kind(env, **COMMON | settings | changes, workers=workers) as training:
        digest = training.train(STEPS, callbacks=rows).weights_sha256
        assert isinstance(training.actors, ColocatedRun if workers == 1 else ActorLearnerRun)
    return rows.rows, digest


def test_an_iteration_is_the_same_wherever_its_cycles_are_made(engine):
    rows, digest = trained(1)
    assert [(iteration, steps) for iteration, steps, *_ in rows] == [(1, 256), (2, 512), (3, 608)]
    assert rows[-1][2]["train/n_updates"] > 3
    assert (rows, digest) == trained(2)


@pytest.mark.parametrize(
    "total", [pytest.param(STEPS, marks=pytest.mark.slow), STEPS + 256], ids=["as-begun", "in-vain"]
)
def test_what_is_asked_for_ahead_changes_no_row(processes, monkeypatch, tmp_path, total):
    """A callback ends a training when its third iteration is under way; it goes on with the same end, or another."""
    asked = []
    ahead = ColocatedHandle.start_ahead
    monkeypatch.setattr("shoal.rl.ahead._SHORT_SECONDS", math.inf)
    monkeypatch.setattr(ColocatedHandle, "start_ahead", lambda *given: asked.append(given) or ahead(*given))

    class StopsOnce(Rows):
        def on_iteration_end(self, training, report):
            super().on_iteration_end(training, report)
            return len(self.rows) != 2

    def trained_in_two(workers):
        rows = StopsOnce()
        with DQN(Walk, **COMMON | PRIORITIZED, workers=workers, save_replay=True) as training:
            assert training.train(total, callbacks=rows).interrupted
            assert len(asked) == (2 if workers == 1 else 0)
            checkpoint = training.save(tmp_path / str(workers))
            digest = training.train(STEPS - training.timesteps, callbacks=rows).weights_sha256
        saved = {file.name: file.read_bytes() for file in checkpoint.iterdir() if file.suffix == ".safetensors"}
        assert "training.safetensors" in saved
        return rows.rows, digest, saved

    apart = trained_in_two(2)
    assert len(apart[0]) == 3
    assert trained_in_two(1) == apart


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_deaths_within_an_iteration_change_no_row(processes, workers):
    box = {"env_kwargs": {"action_space": spaces.Box(-1, 1, (2,))}}
    for kind, settings in ((DQN, PRIORITIZED), (SAC, box)):
        calm = trained(1, kind, settings)
        assert trained(workers, kind, settings, chaos="kill_worker=0.7,kill_learner=0.7,seed=4") == calm


@pytest.mark.slow
def test_one_actor_that_is_killed_and_a_program_that_is_interrupted_change_no_weight(processes, tmp_path):
    events, ends = tmp_path / "events", []
    for what in ([], ["60 kill", "58 kill", "90 kill", f"100 interrupt {os.getpid()}", "130 kill"]):
        events.write_text("\n".join(what))
        with disturbed(DQN, before="sample")(Walk, **COMMON | PRIORITIZED, events=str(events)) as training:
            ends.append(trained_through(training, STEPS))
        assert events.read_text() == ""
    (calm, _), (disturbed_hash, interrupts) = ends
    assert disturbed_hash == calm
    assert interrupts == 1


def test_a_checkpoint_of_one_goes_on_as_the_other(tmp_path):
    runtime.shutdown()  # of the tests before
    runtime.init(engine="serial")

    class Stop(Callback):
        def on_iteration_end(self, training, report):
            return False

    _, whole = trained(1)
    for before, after in itertools.permutations((1, 2)):
        folder = tmp_path / str(before)
        with DQN(Walk, **COMMON, **PRIORITIZED, save_replay=True, workers=before) as first:
            first.train(STEPS, callbacks=Stop())
            first.save(folder)
        with DQN.load(folder, env=Walk, workers=after) as second:
            assert second.timesteps == ITERATION_STEPS
            assert second.train(STEPS - second.timesteps).weights_sha256 == whole


def test_how_many_cycles_an_iteration_has():
    assert cycles_of(4, Clock(0, 10_000)) == 64
    assert cycles_of(48, Clock(0, 10_000)) == 6  # 288 steps: the first multiple that is enough
    assert cycles_of(300, Clock(0, 10_000)) == 1
    assert cycles_of(4, Clock(9_990, 10_000)) == 3  # what is left
    assert cycles_of(4, Clock(10_000, 10_000)) == 1


def test_metrics_of_an_iteration():
    one = {"train/loss": 1.0, "train/n_updates": 4, "time/update_seconds": 0.5, "replay/size": 16}
    two = {"train/n_updates": 8, "time/update_seconds": 0.25, "replay/size": 32}
    three = {"train/loss": 2.0, "train/n_updates": 12, "time/update_seconds": 0.25, "replay/size": 48}
    told = {"train/loss": 1.5, "train/n_updates": 12, "time/update_seconds": 1.0, "replay/size": 48}
    assert metrics_of([one, two, three]) == told
