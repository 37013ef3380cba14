import functools
import json

import numpy as np
import pytest
import torch
from gymnasium import spaces
from learning_envs import Breaks, BrokenError, Crashes, Echo, Walk

from shoal import runtime
from shoal.algorithms import PPO
from shoal.envs import SpaceMismatchError
from shoal.rl import Callback, Policy, evaluate
from shoal.runtime import InputError
from shoal.runtime.exceptions import ActorUnavailableError

SMALL = {"n_envs": 4, "n_steps": 16, "batch_size": 16, "n_epochs": 2, "policy_kwargs": {"net_arch": [8]}}


@pytest.fixture
def serial():
    runtime.init(engine="serial")


class Notes(Callback):
    """Keeps what it is told; stops after `iterations`."""

    def __init__(self, iterations=None):
        self.reports, self.results, self.totals, self.iterations = [], [], [], iterations

    def on_training_start(self, training, total_timesteps):
        self.totals.append(total_timesteps)

    def on_iteration_end(self, training, report):
        self.reports.append(report)
        return len(self.reports) != self.iterations

    def on_training_end(self, training, result):
        self.results.append(result)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3),
        spaces.Discrete(3, start=2),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(3),
        spaces.Box(-1, 1, (2,)),
        spaces.Box(-1, 1, (1, 2)),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"clip_range_vf": 0.2, "ent_coef": 0.01, "normalize_advantage": False},
        {"target_kl": 0.001, "learning_rate": "lin_0.01", "max_grad_norm": None},
        {"batch_size": 60, "n_epochs": 1, "clip_range": lambda remaining: 0.1 + 0.1 * remaining},
    ],
    ids=["defaults", "value clip", "target kl", "odd batch"],
)
def test_64_steps_over_every_switch(serial, space, switches):
    with PPO(functools.partial(Walk, space), **SMALL | switches) as ppo:
        before = ppo.policy.get_weights()
        notes = Notes()
        result = ppo.train(64, callbacks=[notes])
        after = ppo.policy.get_weights()
    assert result.timesteps == 64
    assert result.iterations == 1
    assert np.isfinite(after).all()
    assert (before != after).mean() > 0.5
    metrics = notes.reports[0].metrics
    assert ("train/std" in metrics) == isinstance(space, spaces.Box)
    assert ("train/clip_range_vf" in metrics) == ("clip_range_vf" in switches)
    assert all(np.isfinite(value) for value in metrics.values())


def test_metrics_carry_the_tags_of_stable_baselines3(serial):
    notes = Notes()
    with PPO(Walk, **SMALL) as ppo:
        ppo.train(128, callbacks=[notes])
    names = """rollout/ep_rew_mean rollout/ep_len_mean time/fps time/iterations time/time_elapsed time/total_timesteps
        train/loss train/policy_gradient_loss train/value_loss train/entropy_loss train/approx_kl train/clip_fraction
        train/clip_range train/explained_variance train/learning_rate train/n_updates"""
    assert set(names.split()) <= set(notes.reports[0].metrics)
    assert [report.metrics["train/n_updates"] for report in notes.reports] == [2, 4]
    assert [report.metrics["time/total_timesteps"] for report in notes.reports] == [64, 128]


def test_target_kl_ends_an_update_early(serial):
    updates = {}
    for target_kl in (None, 1e-9):
        notes = Notes()
        with PPO(Walk, **SMALL | {"learning_rate": 0.1, "n_epochs": 5, "target_kl": target_kl}) as ppo:
            ppo.train(64, callbacks=[notes])
        updates[target_kl] = notes.reports[0].metrics["train/n_updates"]
    assert updates == {None: 5, 1e-9: 1}


def test_learns_a_task_with_a_known_best_return(serial):
    settings = {"n_envs": 8, "n_steps": 32, "batch_size": 64, "n_epochs": 8, "learning_rate": 0.003, "gamma": 0.5}
    with PPO(Echo, seed=1, **settings) as ppo:
        result = ppo.train(15_000, stop_return=7.5)
        symbols = np.arange(4)
        assert ppo.policy.act(symbols, deterministic=True).tolist() == [0, 1, 2, 3]
    assert result.solved
    assert result.episode_return_mean >= 7.5
    assert result.solved_timesteps == result.timesteps < 15_000


def test_reports_and_results_say_what_happened(serial):
    notes = Notes()
    with PPO(functools.partial(Walk, limit=5, noise=0.0), seed=3, **SMALL) as ppo:
        result = ppo.train(130, callbacks=[notes])
        assert result.weights_sha256 == ppo.policy.weights_sha256()
        assert (ppo.timesteps, ppo.iteration) == (192, 3)
    assert notes.totals == [130]
    assert notes.results == [result]
    assert (result.timesteps, result.iterations, result.seed, result.algorithm) == (192, 3, 3, "ppo")
    assert result.solved is None
    assert not result.interrupted
    assert result.episode_return_mean == 5.0
    assert 0 < result.wall_seconds < result.total_seconds
    ends = [(episode.end_step, episode.environment) for report in notes.reports for episode in report.episodes]
    assert ends == sorted(ends)
    assert len(ends) == 4 * (48 // 5)


def test_solved_needs_a_hundred_episodes(serial):
    settings = SMALL | {"n_steps": 50}
    with PPO(functools.partial(Walk, limit=5, noise=0.0), **settings) as ppo:
        assert ppo.train(400, stop_return=4.0).solved is False  # 80 episodes
        result = ppo.train(4000, stop_return=4.0)
    assert result.solved
    assert result.solved_timesteps == result.timesteps == 600


def test_a_callback_can_stop_and_training_goes_on_later(serial):
    with PPO(Walk, **SMALL) as ppo:
        result = ppo.train(640, callbacks=[Notes(iterations=2)])
        assert result.interrupted
        assert result.timesteps == 128
        continued = ppo.train(64)
    assert continued.timesteps == 192
    with PPO(Walk, **SMALL) as whole:
        assert whole.train(192).weights_sha256 == continued.weights_sha256


@pytest.mark.parametrize("space", [spaces.Discrete(2), spaces.Box(-1, 1, (2,))], ids=["categorical", "gaussian"])
def test_resume_continues_bit_identically(serial, tmp_path, space):
    env = functools.partial(Walk, space)
    settings = SMALL | {"seed": 11}
    with PPO(env, **settings) as whole:
        notes = Notes()
        expected = whole.train(512, callbacks=[notes])
    with PPO(env, **settings) as first:
        first.train(256)
        first.save(tmp_path / "run")
    with PPO.load(tmp_path / "run", env=env, workers=2) as second:
        assert (second.timesteps, second.iteration) == (256, 4)
        resumed_notes = Notes()
        resumed = second.train(256, callbacks=[resumed_notes])
    assert resumed.weights_sha256 == expected.weights_sha256
    assert resumed.timesteps == expected.timesteps
    assert resumed.episode_return_mean == expected.episode_return_mean
    for before, after in zip(notes.reports[4:], resumed_notes.reports, strict=True):
        assert before.episodes == after.episodes
        assert before.metrics["train/loss"] == after.metrics["train/loss"]


def test_an_environment_with_other_spaces_is_not_resumed(serial, tmp_path):
    with PPO("CartPole-v1", preset="none", **SMALL) as ppo:
        ppo.save(tmp_path / "run")
    with pytest.raises(SpaceMismatchError, match=r"space Box\(6,\) .*policy was made for Box\(4,\)"):
        PPO.load(tmp_path / "run", env="Acrobot-v1")


def test_schedules_continue_after_a_resume(serial, tmp_path):
    settings = SMALL | {"learning_rate": "lin_0.01"}
    with PPO(Walk, **settings) as whole:
        expected = whole.train(256)
        assert expected.timesteps == 256
    with PPO(Walk, **settings) as first:
        first.train(256, callbacks=[Notes(iterations=2)])
        first.save(tmp_path / "run")
    with PPO.load(tmp_path / "run", env=Walk) as second:
        assert second.train(256 - second.timesteps).weights_sha256 == expected.weights_sha256


def test_saved_before_training_and_loaded_with_changes(serial, tmp_path):
    with PPO("CartPole-v1", preset="none", **SMALL) as ppo:
        ppo.save(tmp_path / "run")
        fresh = ppo.policy.weights_sha256()
    with PPO.load(tmp_path / "run", learning_rate=0.5) as loaded:
        assert loaded.config.learning_rate == 0.5
        assert loaded.config.n_steps == 16
        assert loaded.env_id == "CartPole-v1"
        assert loaded.policy.weights_sha256() == fresh
    assert Policy.load(tmp_path / "run").weights_sha256() == fresh


def test_a_schedule_that_was_a_function_must_be_given_again(serial, tmp_path):
    with PPO("CartPole-v1", preset="none", **SMALL, learning_rate=lambda remaining: 0.1 * remaining) as ppo:
        ppo.save(tmp_path / "run")
    with pytest.raises(InputError, match="learning_rate was a function"):
        PPO.load(tmp_path / "run")
    PPO.load(tmp_path / "run", learning_rate=0.1).close()
    with pytest.raises(InputError, match=r"seed cannot be given to PPO.load"):
        PPO.load(tmp_path / "run", learning_rate=0.1, seed=3)


def test_an_exception_in_an_environment_reaches_the_user_as_it_is(serial, tmp_path):
    with PPO(Breaks, **SMALL) as ppo:
        with pytest.raises(BrokenError, match="the simulator is broken") as caught:
            ppo.train(4096)
        note = "\n".join(caught.value.__notes__)
        assert "Breaks" in note
        assert "seed" in note
        assert ppo.iteration == 12  # the 200th step is in the 13th rollout of 16
        ppo.save(tmp_path / "run")
    assert Policy.load(tmp_path / "run").version == 12


def test_a_training_is_under_way_once(serial):
    class Again(Callback):
        def on_iteration_end(self, training, report):
            training.train(64)

    with PPO(Walk, **SMALL) as ppo:
        with pytest.raises(InputError, match="this training by ppo is under way"):
            ppo.train(64, callbacks=Again())
        assert ppo.train(64).timesteps == 128


def test_ctrl_c_leaves_the_last_finished_iteration(serial, tmp_path):
    class CtrlC(Callback):
        def on_iteration_end(self, training, report):
            if report.iteration == 2:
                raise KeyboardInterrupt

        def on_exception(self, training, error):
            told.append((training, type(error)))

    class Fails(Callback):
        def on_exception(self, training, error):
            raise BrokenError("it could not close")

    told = []
    with PPO(Walk, **SMALL) as ppo:
        with pytest.raises(BrokenError, match="could not close") as caught:
            ppo.train(640, callbacks=[Fails(), CtrlC()])
        assert isinstance(caught.value.__context__, KeyboardInterrupt)
        assert told == [(ppo, KeyboardInterrupt)]
        assert ppo.iteration == 2
        ppo.save(tmp_path / "run")
        expected = ppo.train(128)
    with PPO.load(tmp_path / "run", env=Walk) as resumed:
        assert resumed.train(128).weights_sha256 == expected.weights_sha256


@pytest.mark.parametrize("policy_kwargs", [{}, {"memory": "lstm"}], ids=["plain", "lstm"])
def test_the_default_dtype_of_the_program_changes_nothing(serial, policy_kwargs):
    hashes = []
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            with PPO(Walk, **SMALL | {"policy_kwargs": policy_kwargs}) as ppo:
                hashes.append(ppo.train(64).weights_sha256)
            assert torch.get_default_dtype() is dtype
        finally:
            torch.set_default_dtype(torch.float32)
    assert hashes[0] == hashes[1]


def test_presets_are_found_overridden_and_switched_off():
    runtime.init(engine="serial")
    tuned = PPO("CartPole-v1")
    assert tuned.preset["gamma"] == tuned.config.gamma == 0.98
    changed = PPO("CartPole-v1", gamma=0.9)
    assert changed.config.gamma == 0.9
    assert "gamma" not in changed.preset
    assert changed.config.n_steps == tuned.config.n_steps
    fewer = PPO("CartPole-v1", n_envs=4)
    assert (fewer.derived, fewer.config.n_steps) == ({"n_steps": 512}, 512)
    plain = PPO("CartPole-v1", preset="none")
    assert (plain.preset, plain.config.gamma, plain.config.n_steps) == ({}, 0.99, 256)
    assert PPO("Acrobot-v1", preset="CartPole-v1").config.gamma == 0.98
    assert PPO(Walk).preset == {}


@pytest.mark.parametrize(
    ("env", "arguments", "message"),
    [
        ("CartPole-v1", {"gama": 0.9}, "PPO has no setting 'gama'.*'gamma'"),
        ("CartPole-v1", {"gamma": 1.5}, "gamma is 1.5"),
        ("CartPole-v1", {"workers": 0}, "workers is 0"),
        (
            "CartPole-v1",
            {"n_envs": 4, "n_steps": 8, "batch_size": 64},
            r"batch_size is 64, but must be at most n_envs · n_steps = 32",
        ),
        ("Pendulum-v1", {"n_envs": 1}, "batch_size is .* comes from the preset: choose batch_size, or preset='none'"),
        ("CartPole-v1", {"n_envs": 6, "group_size": 4}, "not a multiple"),
        ("CartPole-v1", {"policy_kwargs": {"net_arch": "big"}}, "net_arch"),
        ("CartPole-v1", {"preset": "Cartpole-v1"}, "preset is 'Cartpole-v1'.*'CartPole-v1'"),
        ("CartPole-v2", {}, "CartPole-v2"),
        ("CartPole-v1", {"engine": "serail"}, "serail"),
    ],
)
def test_bad_arguments_are_refused_before_anything_starts(env, arguments, message):
    with pytest.raises(InputError, match=message):
        PPO(env, **arguments)
    assert not runtime.is_initialized()


def test_a_single_callback_and_none(serial):
    with PPO(Walk, **SMALL) as ppo:
        notes = Notes()
        ppo.train(64, callbacks=notes)
        ppo.train(64, callbacks=None)
        ppo.train(64, callbacks=iter([notes]))
    assert len(notes.reports) == 2


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (Notes, r"callbacks holds .*Notes.*, a class: make one of it, Notes\(…\)"),
        (print, "callbacks holds .*print.*, a builtin_function_or_method: want objects derived from rl.Callback"),
        ([Notes(), 3], "callbacks holds 3, a int"),
    ],
)
def test_what_is_no_callback(serial, callbacks, message):
    with PPO(Walk, **SMALL) as ppo, pytest.raises(InputError, match=message):
        ppo.train(64, callbacks=callbacks)


def test_numbers_of_numpy_give_the_same_run_and_plain_settings(serial):
    plain = {"n_steps": 16, "batch_size": 16, "seed": 3, "gamma": 0.5, "n_envs": 4, "policy_kwargs": {"net_arch": [8]}}
    numpy = {
        "n_steps": np.int64(16), "batch_size": np.array(16), "seed": np.uint8(3), "gamma": np.float32(0.5),
        "n_envs": np.float64(4), "policy_kwargs": {"net_arch": np.array([8])},
    }  # fmt: skip
    results = []
    for settings, steps, goal in ((plain, 64, 1e9), (numpy, np.int32(64), np.float32(1e9))):
        with PPO(Walk, **settings) as ppo:
            results.append(ppo.train(steps, stop_return=goal).weights_sha256)
            results.append(json.dumps(ppo.settings()["hyperparameters"]) + json.dumps(ppo.settings()["run"]))
    assert results[:2] == results[2:]


@pytest.mark.parametrize(("steps", "stop_return"), [(0, None), (-5, None), (1.5, None), (100, "high")])
def test_bad_arguments_of_train_are_refused(serial, steps, stop_return):
    with PPO(Walk, **SMALL) as ppo, pytest.raises(InputError, match=r"(total_timesteps|stop_return) is"):
        ppo.train(steps, stop_return=stop_return)


def test_another_engine_than_the_running_one_is_refused(serial):
    with pytest.raises(InputError, match="engine is 'native', but the runtime runs on 'serial'"):
        PPO(Walk, engine="native", **SMALL)


@pytest.mark.slow
def test_an_environment_that_always_ends_its_process(native):
    settings = SMALL | {"n_steps": 256}
    with (
        PPO(Crashes, workers=1, **settings) as ppo,
        pytest.raises(ActorUnavailableError, match="exit code 7") as caught,
    ):
        ppo.train(1024)
    assert "A worker died 11 times in the same rollout of environment 'Crashes'" in "".join(caught.value.__notes__)


def test_idle_workers_are_told_once(serial, caplog):
    with PPO(Walk, workers=5, **SMALL) as ppo:
        ppo.train(64)
        ppo.train(64)
    assert [record.message for record in caplog.records] == ["3 of 5 workers stay idle: there are 2 simulation groups"]


def test_evaluating_a_run_folder_takes_its_environment(serial, tmp_path):
    with PPO("CartPole-v1", preset="none", **SMALL) as ppo:
        ppo.train(64)
        ppo.save(tmp_path / "run")
        expected = evaluate(ppo.policy, "CartPole-v1", episodes=3)
    assert evaluate(tmp_path / "run", episodes=3) == expected
    assert expected.episodes == len(expected.returns) == 3
