"""Evaluation during training: what it finds depends on weights, seed and index alone, and what follows from it."""

import numpy as np
import pytest
from learning_envs import Echo, Walk

from shoal import runtime
from shoal.algorithms import PPO
from shoal.envs import derive_seed
from shoal.rl import (
    Callback,
    CheckpointCallback,
    EveryNTimesteps,
    Policy,
    RunFolder,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnMaxTimesteps,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
    evaluate,
)
from shoal.rl.evaluation.evaluate import play
from shoal.rl.runs.checkpoint import list_checkpoints
from shoal.rl.runs.metrics import read_evaluations, read_metrics
from shoal.runtime import InputError

ECHO = {
    "n_envs": 4, "group_size": 2, "n_steps": 32, "batch_size": 32, "n_epochs": 4, "learning_rate": 0.02, "seed": 3,
    "eval_freq": 250, "eval_episodes": 5, "policy_kwargs": {"net_arch": [16]},
}  # fmt: skip


class Notes(Callback):
    """Notes evaluations, and the steps done when each was told."""

    def __init__(self, stop_at=None, each=None):
        self.reports, self.told_at, self.stop_at, self.each = [], [], stop_at, each

    def on_evaluation_end(self, training, report):
        self.reports.append(report)
        self.told_at.append(training.timesteps)
        return report.index != self.stop_at

    def on_iteration_end(self, training, report):
        if self.each is not None:
            self.each(training, report)


@pytest.fixture
def serial():
    runtime.init(engine="serial")


def trained(steps=1024, callbacks=(), env=Echo, **changes):
    notes = Notes()
    with PPO(env, **ECHO | changes) as ppo:
        result = ppo.train(steps, callbacks=[notes, *callbacks])
    return notes, result


def test_each_is_of_the_weights_at_its_steps_and_told_when_the_next_begins(serial):
    weights = {}
    notes = Notes(each=lambda training, report: weights.update({report.timesteps: training.policy.get_weights()}))
    with PPO(Walk, **ECHO) as ppo:
        ppo.train(1024, callbacks=notes)
        assert [report.timesteps for report in notes.reports] == [256, 512, 768, 1024]
        assert notes.told_at == [512, 768, 1024, 1024]
        policy = ppo.policy
        for report in notes.reports:
            policy.set_weights(weights[report.timesteps], version=report.version)
            seed = derive_seed(3, "evaluation during training", report.index)
            found = play(policy, ppo.spec, 5, run_seed=seed, deterministic=True, settings=ppo.run)
            assert (report.returns, report.lengths) == (found.returns, found.lengths)
            assert report.mean_return == np.mean(found.returns)
    highest = -np.inf
    for report in notes.reports:
        assert report.best == (report.mean_return > highest)
        highest = max(highest, report.mean_return)
        assert report.best_mean_return == highest
    assert len({report.mean_return for report in notes.reports}) > 1


@pytest.mark.slow
def test_kills_and_workers_have_no_influence(native):
    def kill(training, report):
        if report.timesteps == 256:
            runtime.kill(training.actors.evaluations.actor, no_restart=False)

    killed, other = trained(workers=2, callbacks=[Notes(each=kill)])
    runtime.shutdown()
    runtime.init(engine="serial")
    calm, one = trained()
    assert killed.reports == calm.reports
    assert killed.told_at == calm.told_at
    plain = trained(eval_freq=None)[1]
    assert other.weights_sha256 == one.weights_sha256 == plain.weights_sha256


def test_a_resumed_training_goes_on_with_schedule_and_best(serial, tmp_path):
    straight, _ = trained()
    first, second = Notes(), Notes()
    with PPO(Echo, **ECHO) as ppo:  # saved while an evaluation is pending, as a training that is stopped saves
        save = Notes(each=lambda training, report: report.timesteps == 640 and training.save(tmp_path))
        ppo.train(768, callbacks=[first, save])
    with PPO.load(tmp_path) as again:
        again.train(1024 - 640, callbacks=second)
    assert first.reports[:1] + second.reports == straight.reports


def test_the_run_folder_holds_evaluations_and_the_best_policy(serial, tmp_path):
    run = tmp_path / "run"
    with RunFolder(run) as folder:
        notes, _ = trained(callbacks=[folder])
    best = max(notes.reports, key=lambda report: report.mean_return)
    assert Policy.load(run / "checkpoints" / "best").version == best.version
    assert sorted(path.name for path in (run / "checkpoints" / "best").iterdir()) == [
        "SHA256SUMS", "policy.json", "policy.safetensors",
    ]  # fmt: skip
    assert evaluate(run / "checkpoints" / "best", Echo, episodes=20).episode_return_mean > 4
    assert [path.name for path in list_checkpoints(run)] == ["000000001024"]
    told = read_evaluations(run / "evaluations.jsonl")
    assert [(line["timesteps"], line["mean_return"]) for line in told] == [
        (report.timesteps, report.mean_return) for report in notes.reports
    ]
    tagged = [line for line in read_metrics(run / "metrics.jsonl") if "eval/mean_reward" in line]
    assert [(line["timesteps"], line["eval/timesteps"]) for line in tagged] == [(512, 256), (768, 512), (1024, 768)]
    assert [line["eval/mean_ep_length"] for line in tagged] == [8, 8, 8]


def test_early_stops(serial):
    _, result = trained(4_000, eval_stop_return=7)
    assert result.interrupted
    assert result.timesteps < 4_000
    # Nothing can be better than the first: the third in a row without improvement is told as the fifth begins.
    notes, result = trained(4_000, env=Walk, eval_patience=3, learning_rate=1e-9)
    last = notes.reports[-2]  # the last one was pending
    assert last.since_best == 3
    assert result.interrupted
    assert result.timesteps == notes.told_at[-2]


def test_callbacks_of_evaluations(serial):
    _, result = trained(4_000, callbacks=[StopTrainingOnRewardThreshold(-1)])
    assert result.timesteps == 512
    callback = StopTrainingOnNoModelImprovement(0, min_evals=3)
    notes, result = trained(4_000, callbacks=[callback], learning_rate=1e-9)
    assert notes.reports[-2].index >= 3
    assert notes.reports[-2].since_best > 0


def test_callbacks_counted_in_steps_and_episodes(serial, tmp_path):
    seen = Notes(each=lambda training, report: steps.append(report.timesteps))
    steps = []
    every = [EveryNTimesteps(300, seen), CheckpointCallback(500, tmp_path / "saved")]
    _, result = trained(5000, callbacks=[*every, StopTrainingOnMaxTimesteps(1000)], eval_freq=None)
    assert (result.timesteps, result.interrupted) == (1024, True)
    assert steps == [384, 640, 1024]
    assert [path.name for path in list_checkpoints(tmp_path / "saved")] == ["000000000512", "000000001024"]
    _, result = trained(5000, callbacks=[StopTrainingOnMaxEpisodes(20)], eval_freq=None)
    assert result.timesteps == 256  # 16 episodes of 8 steps end in each rollout of 128


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eval_freq": 0}, "eval_freq is 0, but must be a whole number of at least 1"),
        ({"eval_episodes": 0}, "eval_episodes is 0"),
        ({"eval_freq": None, "eval_patience": 2}, "eval_patience is 2, but nothing is evaluated: give eval_freq, too"),
        ({"eval_frequency": 2}, "Did you mean 'eval_freq'"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(InputError, match=message):
        PPO(Echo, **ECHO | settings)


@pytest.mark.parametrize(
    "make",
    [
        lambda: StopTrainingOnMaxEpisodes(0),
        lambda: StopTrainingOnRewardThreshold(None),
        lambda: StopTrainingOnNoModelImprovement(-1),
        lambda: EveryNTimesteps(0, Callback()),
        lambda: CheckpointCallback("often", "x"),
    ],
)
def test_bad_callbacks(make):
    with pytest.raises(InputError, match="must be"):
        make()
