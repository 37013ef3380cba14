"""Asynchronous trainings: whatever the machine does, the recorded schedule leads to the same weights."""

import json
import os
import signal

import pytest
from disturbances import disturbed
from learning_envs import Breaks, BrokenError, DiesOnce, TwoArms, Walk

from shoal import ALGORITHMS, IMPALA, RunFolder, runtime
from shoal.cli.main import main
from shoal.rl import Callback, verify
from shoal.runtime import InputError

COMMON = {"n_envs": 6, "group_size": 2, "seed": 5, "preset": "none", "policy_kwargs": {"net_arch": [8]}}
SETTINGS = {
    "impala": {"n_steps": 8, "rollouts_per_update": 2, "learning_rate": 0.01},
    "appo": {"n_steps": 8, "rollouts_per_update": 2, "learning_rate": 0.01, "replay_uses": 2, "replay_batches": 3},
    "apex": {
        "train_freq": 8, "learning_starts": 64, "batch_size": 8, "gradient_steps": 2, "buffer_size": 200,
        "target_update_interval": 5, "learning_rate": 0.01, "save_replay": True, "samples_per_insert": 1.0,
    },
}  # fmt: skip
PER_UPDATE = 2 * 2 * 8


def make(name, env=Walk, **changes):
    return ALGORITHMS[name](env, **COMMON, **SETTINGS[name], **changes)


def lines_of(run):
    return [json.loads(line) for line in (run / "schedule.jsonl").read_text().splitlines()]


class Kill(Callback):
    """Kills actors of the training, one after each iteration given; they come back."""

    def __init__(self, **by_iteration):
        self.choices = {int(name.removeprefix("after_")): choose for name, choose in by_iteration.items()}

    def on_iteration_end(self, training, report):
        if report.iteration in self.choices:
            runtime.kill(self.choices[report.iteration](training), no_restart=False)


@pytest.fixture(params=["apex", *(pytest.param(name, marks=pytest.mark.slow) for name in ("impala", "appo"))])
def name(request):
    return request.param


def test_a_run_and_what_it_goes_on_with_are_followed_on_other_workers(name, tmp_path):
    runtime.init(engine="serial")
    with RunFolder(tmp_path / "run") as folder, make(name, workers=2) as training:
        training.train(5 * PER_UPDATE, callbacks=[folder])
    with RunFolder(tmp_path / "run", resume=True) as folder, ALGORITHMS[name].load(tmp_path / "run") as training:
        assert training.iteration == len(lines_of(tmp_path / "run"))
        result = training.train(5 * PER_UPDATE, callbacks=[folder])
    found = verify(ALGORITHMS[name], tmp_path / "run", workers=3)
    assert found.same
    assert (found.updates, found.timesteps, found.saved_sha256) == (
        result.iterations, result.timesteps, result.weights_sha256
    )  # fmt: skip


def test_another_choice_gives_other_weights_and_the_command_says_so(tmp_path, capsys):
    run = tmp_path / "run"
    runtime.init(engine="serial")
    with RunFolder(run) as folder, make("impala", TwoArms, workers=2) as training:
        training.train(4 * PER_UPDATE, callbacks=[folder])
    runtime.shutdown()
    arguments = ["verify", str(run), "--engine", "serial", "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["same"] is True
    lines = lines_of(run)
    lines[2]["dropped"].append(lines[2]["learned"].pop(0))
    (run / "schedule.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(arguments) == 1
    assert json.loads(capsys.readouterr().out)["same"] is False
    (run / "schedule.jsonl").write_text("")
    assert main(arguments) == 2
    assert "has 0 updates, but the checkpoint has seen 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"queue_size": 1}, "queue_size is 1, but must be at least rollouts_per_update = 2: .*never enough"),
        ({"normalize": "obs,reward"}, "normalize is 'obs,reward', but must be obs or none"),
        ({"c_bar": 2.0}, "c_bar is 2.0, but must be at most rho_bar = 1"),
        ({"max_lag": -1}, "max_lag is -1"),
        ({"queue_full": "block"}, "queue_full is 'block', but must be one of 'drop', 'wait'"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, text):
    with pytest.raises(InputError, match=text):
        make("impala", **settings)


def test_what_an_environment_raises_ends_the_training_where_it_stood():
    runtime.init(engine="serial")
    with make("impala", Breaks, workers=2) as training:
        with pytest.raises(BrokenError):
            training.train(100 * PER_UPDATE)
        stood = training.iteration
        assert 0 < stood < 100
        assert training.policy.version == stood


class Collect(Callback):
    """Keeps the reports."""

    def __init__(self):
        self.reports = []

    def on_iteration_end(self, training, report):
        self.reports.append(report)


def first_worker(training):
    return training.actors.workers.actors[0]


def learner(training):
    return training.actors.learner.actor


@pytest.mark.slow
def test_a_killed_worker_changes_no_weight_of_what_was_recorded(processes, tmp_path):
    killed_and_followed("impala", tmp_path, Walk, Kill(after_3=first_worker), updates=20)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["impala", "appo"])
def test_killed_actors_change_no_weight_of_what_was_recorded(processes, name, tmp_path):
    """Workers and learner are killed while rollouts are under way, and a worker by its own environment."""
    marker = tmp_path / "died"
    kills = Kill(after_3=first_worker, after_5=learner)
    killed_and_followed(name, tmp_path, DiesOnce, kills, updates=40, env_kwargs={"marker": str(marker)})
    assert marker.exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["impala", "appo"])
def test_learners_that_share_updates_and_die_change_no_weight_of_what_was_recorded(processes, name, tmp_path):
    """Two learners, one of them killed, and what one by itself makes of their schedule."""
    kills = Kill(after_5=lambda training: training.actors.learner.members[0])
    together = {"gradient_shards": 3, "learners": 2}
    reports = killed_and_followed(name, tmp_path, Walk, kills, updates=30, follow={"learners": 1}, **together)
    assert {1, 2} <= {report.metrics["train/learners"] for report in reports}


class KillShard(Callback):
    """Ends the process of a replay shard after the tenth iteration in which the learner has drawn from it."""

    def __init__(self):
        self.killed = []

    def on_iteration_end(self, training, report):
        if report.metrics.get("train/n_updates", 0) >= 20 and not self.killed:
            shards = [actor for actor in runtime.state.list_actors() if "ReplayShard" in actor.class_name]
            self.killed.append(shards[0].pid)
            os.kill(shards[0].pid, signal.SIGKILL)


@pytest.mark.slow
def test_killed_replay_shards_learners_and_workers_change_no_weight_of_what_was_recorded(processes, tmp_path):
    run, kill_shard = tmp_path / "run", KillShard()
    kills = Kill(after_8=first_worker, after_60=learner)
    with RunFolder(run) as folder, make("apex", workers=2) as training:
        training.train(2000, callbacks=[folder, kill_shard, kills])
    assert kill_shard.killed
    found = verify(ALGORITHMS["apex"], run, workers=1)
    assert found.same
    assert found.timesteps >= 2000


def killed_and_followed(name, tmp_path, env, kills, *, updates, follow=None, **settings):
    """Returns the reports. Lags are bounded and measured all the time, and every step is counted; what was recorded can
    be followed."""
    run, seen = tmp_path / "run", Collect()
    settings = COMMON | SETTINGS[name] | {"workers": 2, "n_steps": 32, "max_lag": 1} | settings
    with RunFolder(run) as folder, ALGORITHMS[name](env, **settings) as training:
        training.train(updates * 2 * 2 * 32, callbacks=[folder, kills, seen])
    for report in seen.reports:
        lags = [report.iteration - 1 - version for _, _, version in report.schedule["learned"]]
        assert max(lags) == report.metrics["train/lag_max"] <= 1
        assert report.metrics["lag/0"] + report.metrics["lag/1"] == 1
        assert report.metrics["rollout/dropped"] == len(report.schedule["dropped"])
    found = verify(ALGORITHMS[name], run, workers=1, **(follow or {}))
    assert found.same
    assert (
        found.updates == len(seen.reports) > max(kills.choices)
    )  # all were killed, and it went on; how far hangs on speed
    assert found.timesteps == found.rollouts * 2 * 32 == seen.reports[-1].timesteps
    return seen.reports


@pytest.mark.slow
def test_what_was_ahead_of_an_interrupt_is_as_if_it_had_not_been(processes, tmp_path):
    events, run = tmp_path / "events", tmp_path / "run"
    events.write_text(f"7 interrupt {os.getpid()}\n15 interrupt {os.getpid()}")
    interrupts = 0
    settings = COMMON | SETTINGS["impala"] | {"workers": 2, "events": str(events)}
    interrupted = disturbed(IMPALA)
    with interrupted(Walk, **settings) as training:
        for part in range(3):
            with RunFolder(run, resume=part > 0) as folder:
                try:
                    training.train(30 * PER_UPDATE, callbacks=[folder])
                except KeyboardInterrupt:
                    interrupts += 1
                    folder.save(training)
    assert interrupts == 2
    found = verify(interrupted, run, workers=1)
    assert found.same
    assert found.timesteps > 30 * PER_UPDATE  # in how many updates is a matter of speed
