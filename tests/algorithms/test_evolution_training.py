"""Trainings by evolution strategies: the same bits for any number of workers, whatever dies, and what a user sees."""

import json
import os
import pathlib
import signal
from functools import cache

import numpy as np
import pytest
from agents_envs import Crowd
from conftest import shoal_processes
from learning_envs import Breaks, BrokenError, Countdown, Crashes, DiesOnce, Walk
from test_lives_of_environments import Rented, Stuck

from shoal import evaluate, runtime
from shoal.algorithms import ALGORITHMS, ARS, ES
from shoal.envs import EnvTimeoutError
from shoal.rl import Callback
from shoal.runtime import InputError, exceptions

COMMON = {"n_envs": 9, "group_size": 3, "seed": 5, "preset": "none", "n_delta": 7, "noise_table_size": 100_000}
SETTINGS = {
    "es": {"delta_episodes": 2},
    "ars": {"normalize": "obs", "n_top": 4},
}
STEPS = 2_000
serial_is_enough = pytest.mark.engines("serial", reason="what is computed is the same on all engines")


def train(name, workers, env="CartPole-v1", callbacks=(), timesteps=STEPS, **changes):
    with ALGORITHMS[name](env, **COMMON | SETTINGS[name] | changes, workers=workers) as algorithm:
        return algorithm.train(timesteps, callbacks=callbacks).weights_sha256


@cache
def serially(name, seed=5):
    """Hash of the weights with one worker on the serial engine."""
    runtime.shutdown()
    runtime.init(engine="serial")
    digest = train(name, 1, seed=seed)
    runtime.shutdown()
    return digest


class KillWorkers(Callback):
    """Kills all processes that run tasks after the second generation."""

    killed = 0

    def on_iteration_end(self, training, report):
        if report.iteration == 2:
            for process in shoal_processes():
                if "worker" in process.cmdline()[0]:
                    process.kill()
                    self.killed += 1


class Told(Callback):
    """Keeps what is told of each iteration."""

    def __init__(self):
        self.reports = []

    def on_iteration_end(self, training, report):
        self.reports.append(report)


@pytest.fixture(params=["es", pytest.param("ars", marks=pytest.mark.slow)])
def name(request):
    """Name of an algorithm."""
    return request.param


@pytest.fixture
def expected(name):
    """Hash of the weights with one worker on the serial engine."""
    return serially(name)


def test_another_seed_gives_other_weights(name, expected):
    assert serially(name, seed=6) != expected


@pytest.mark.parametrize(
    "workers", [3, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_any_number_of_workers_on_any_engine(expected, engine, name, workers):
    assert train(name, workers) == expected


@serial_is_enough
@pytest.mark.parametrize(
    "rows", [{"n_envs": 4, "group_size": 1}, pytest.param({"group_size": 9}, marks=pytest.mark.slow)]
)
def test_who_plays_beside_whom_has_no_influence(engine, rows):
    assert train("es", 1, **rows) == serially("es")


@pytest.mark.slow
def test_killed_processes(expected, processes, name):
    kill = KillWorkers()
    assert train(name, 2, callbacks=kill) == expected
    assert kill.killed


@pytest.mark.slow
def test_a_process_that_dies_in_the_middle_of_an_episode(processes, tmp_path):
    (tmp_path / "exists").touch()
    long = {"timesteps": 4_000, "delta_episodes": 8}
    calm, killed = (
        train("es", 2, DiesOnce, **long, env_kwargs={"marker": str(tmp_path / name)})
        for name in ("exists", "is made at death")
    )
    assert (tmp_path / "is made at death").exists()
    assert calm == killed == train("es", 3, Walk, **long)


@pytest.mark.slow
def test_a_process_that_always_dies(processes):
    with pytest.raises(exceptions.WorkerCrashedError) as caught:
        train("es", 2, Crashes, timesteps=4_000, delta_episodes=8)
    assert "A worker died 11 times in the same episodes of environment 'Crashes'" in caught.value.__notes__[-1]


@serial_is_enough
def test_a_resumed_training(expected, engine, name, tmp_path):
    algorithm = ALGORITHMS[name]
    with algorithm("CartPole-v1", **COMMON | SETTINGS[name], workers=2) as first:
        first.train(STEPS, callbacks=StopAt(2))
        first.save(tmp_path / "run")
        done = first.timesteps
    with algorithm.load(tmp_path / "run", workers=1) as second:
        assert (second.timesteps, second.iteration) == (done, 2)
        assert second.train(STEPS - done).weights_sha256 == expected
    found = json.loads(next((tmp_path / "run").rglob("policy.json")).read_text())
    assert (found["model"], found["normalized"]) == ("actor", name == "ars")
    assert evaluate(tmp_path / "run", episodes=2).episodes == 2


class Interrupts(Walk):
    """Sends the signal of Ctrl-C to a process in its 150th step, unless the file `marker` exists, which it makes."""

    def __init__(self, marker, process):
        super().__init__()
        self.marker, self.process, self.count = pathlib.Path(marker), process, 0

    def step(self, action):
        self.count += 1
        if self.count == 150 and not self.marker.exists():
            self.marker.touch()
            os.kill(self.process, signal.SIGINT)
        return super().step(action)


class StopAt(Callback):
    """Ends a training after so many iterations; its schedules are those of the whole."""

    def __init__(self, iteration):
        self.iteration = iteration

    def on_iteration_end(self, training, report):
        return report.iteration < self.iteration


@serial_is_enough
def test_what_is_reported_is_the_policy_itself(engine):
    told = Told()
    with ES("CartPole-v1", **COMMON | {"score_episodes": 3}, delta_std=30.0, workers=2) as algorithm:
        result = algorithm.train(1, callbacks=told)
        (report,) = told.reports
        assert [(episode.environment, episode.index) for episode in report.episodes] == [(1, 0), (2, 0), (3, 0)]
        assert result.episode_return_mean == np.mean([episode.return_ for episode in report.episodes])
        # θ hardly decides anything at first, θ ± 30 ε everything: most of them fall over within 10 steps.
        assert report.metrics["rollout/ep_rew_mean"] == result.episode_return_mean
        assert report.metrics["rollout/perturbed_rew_mean"] != result.episode_return_mean
        assert np.isfinite(list(report.metrics.values())).all()


@serial_is_enough
def test_a_generation_sees_the_statistics_of_those_before_it(engine):
    with ARS("CartPole-v1", **COMMON | SETTINGS["ars"]) as algorithm:
        algorithm.train(1)
        first = algorithm.policy.get_weights()
        algorithm.train(1)
        second = algorithm.policy.get_weights()
    means, scales, searched = slice(0, 4), slice(4, 8), slice(8, None)
    assert (first[means] != 0).all()  # after the first generation
    assert (first[scales] != 1).all()
    assert (second[means] != first[means]).all()
    assert (second[searched] != first[searched]).any()


@serial_is_enough
def test_steps_are_those_of_episodes_that_count(engine):
    told = Told()
    with ES(Countdown, **COMMON, workers=2) as algorithm:
        algorithm.train(1, callbacks=told)
        played = told.reports[0]
    lengths = {episode.environment: episode.length for episode in played.episodes}
    assert played.metrics["rollout/perturbed_rew_mean"] * 14 + sum(lengths.values()) == played.timesteps


def test_environments_are_closed_as_often_as_made(engine, tmp_path):
    told = Told()
    with ES(
        Rented, **COMMON, env_kwargs={"folder": str(tmp_path), "options": {"size": [1, 2]}}, workers=2
    ) as algorithm:
        algorithm.train(1, callbacks=told)
        made = {path.name for path in tmp_path.iterdir() if path.suffix != ".closed"}
        assert made == {path.stem for path in tmp_path.iterdir() if path.suffix == ".closed"}
    assert len(made) >= 9


@serial_is_enough
def test_an_exception_in_an_environment(engine):
    with ES(Breaks, **COMMON | {"delta_episodes": 9}, workers=2) as algorithm, pytest.raises(BrokenError) as caught:
        algorithm.train(20_000)
    assert "environment 'Breaks', index" in caught.value.__notes__[0]


@pytest.mark.slow
def test_a_step_that_does_not_return_ends_its_process_and_then_the_training(processes):
    settings = COMMON | {"n_delta": 1, "delta_episodes": 30, "step_timeout": 0.5}
    with ES(Stuck, **settings, workers=2) as algorithm, pytest.raises(EnvTimeoutError, match="Stuck"):
        algorithm.train(20_000)


@serial_is_enough
def test_a_training_goes_on_after_an_interrupt(engine):
    class Interrupt(Callback):
        def on_iteration_end(self, training, report):
            if report.iteration == 2:
                raise KeyboardInterrupt

    told = Told()
    with ES("CartPole-v1", **COMMON | SETTINGS["es"], workers=2) as algorithm:
        with pytest.raises(KeyboardInterrupt):
            algorithm.train(STEPS, callbacks=Interrupt())
        assert algorithm.iteration == 2
        rest = algorithm.train(STEPS - algorithm.timesteps, callbacks=told)
    assert rest.weights_sha256 == serially("es")


@pytest.mark.slow
def test_an_interrupt_in_the_middle_of_a_generation(processes, tmp_path, capfd):
    long = COMMON | {"delta_episodes": 8, "env_kwargs": {"marker": str(tmp_path / "told"), "process": os.getpid()}}
    with ES(Interrupts, **long, workers=2) as algorithm:
        with pytest.raises(KeyboardInterrupt):
            algorithm.train(4_000)
        assert (tmp_path / "told").exists()
        interrupted = algorithm.train(4_000 - algorithm.timesteps).weights_sha256
    assert interrupted == train("es", 1, Walk, timesteps=4_000, delta_episodes=8)
    assert "nobody has read this error" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"device": "cuda"}, "device is 'cuda', but must be 'cpu': no gradient is computed"),
        ({"normalize": "reward"}, "normalize is 'reward', but must be obs or none"),
        ({"vectorization": "entry_point"}, "vectorization is 'entry_point', but must be 'sync'"),
        ({"noise_table_size": 10**15}, "noise_table_size is 1000000000000000, but must be at most"),
        ({"n_delta": 0}, "n_delta is 0, but must be a whole number of at least 1"),
        ({"policy_kwargs": {"memory": "lstm"}}, "es does not work with a memory"),
    ],
)
def test_what_is_refused_before_anything_is_started(settings, text):
    with pytest.raises(InputError, match=text):
        ES("CartPole-v1", **settings)


@serial_is_enough
def test_a_table_that_is_too_small(engine):
    with (
        ES("CartPole-v1", **COMMON | {"noise_table_size": 1_000}) as algorithm,
        pytest.raises(InputError, match="noise_table_size is 1,000, but the policy has 4,610 weights"),
    ):
        algorithm.train(1)


@serial_is_enough
def test_several_agents_are_refused(engine):
    with pytest.raises(InputError, match="ars does not work with the several agents of environment 'Crowd'"):
        ARS(Crowd)
