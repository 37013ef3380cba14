"""Trainings by evolution strategies: the same bits for any number of workers, whatever dies, and what a user sees."""

import json
import os
import pathlib
import signal
from functools import cache

import numpy as np
import pytest
from agents_envs import Crowd, Rounds
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
        pytest.raises(InputError, match="noise_table_size is 1,000, but 4,610 weights are searched"),
    ):
        algorithm.train(1)


# ---- several agents

AGENTS = COMMON | {
    "env_kwargs": {"reborn": True},
    "n_delta": 5,
    "delta_episodes": 2,
    "policy_kwargs": {"net_arch": [4]},
}
SOME = {"policies": {"a": "x", "b": "y", "c": "x"}, "normalize": "obs"}


def train_agents(env=Crowd, *, workers=1, algorithm=ES, generations=3, **changes):
    """Each policy's weights after so many generations, and what the search remembers then."""
    with algorithm(env, **AGENTS | changes, workers=workers) as made:
        made.train(10**6, callbacks=StopAt(generations))
        own, _ = made.actors.snapshot(made.state)
        return {name: made.policy.policy(name).get_weights() for name in made.model_spec.policies}, own


@cache
def agents_serially():
    runtime.shutdown()
    runtime.init(engine="serial")
    weights, _ = train_agents(**SOME)
    runtime.shutdown()
    return {name: own.tobytes() for name, own in weights.items()}


@pytest.mark.parametrize("workers", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_several_agents_have_the_same_weights_for_any_number_of_workers(engine, workers):
    expected = agents_serially()
    runtime.init(engine=engine, ignore_reinit_error=True)
    weights, _ = train_agents(workers=workers, **SOME)
    assert {name: own.tobytes() for name, own in weights.items()} == expected


class Reversed(Crowd):
    """Agent a earns 1 for what it earns nothing for in a `Crowd`."""

    def step(self, actions):
        observations, rewards, *rest = super().step(actions)
        return observations, rewards | ({"a": 1 - rewards["a"]} if "a" in actions else {}), *rest


@serial_is_enough
@pytest.mark.parametrize("algorithm", [ES, ARS])
def test_a_policy_is_moved_by_what_its_own_agents_earn(engine, algorithm):
    """c is frozen, so that it stays as it began; its statistics, too."""
    settings = {"policies": "separate", "frozen_policies": "c", "normalize": "obs", "algorithm": algorithm}
    first, _ = train_agents(generations=1, **settings)
    plain, own = train_agents(**settings)
    reversed_, _ = train_agents(Reversed, **settings)
    assert plain["a"].tobytes() != reversed_["a"].tobytes()
    assert plain["b"].tobytes() == reversed_["b"].tobytes() != first["b"].tobytes()
    assert plain["c"].tobytes() == first["c"].tobytes()
    # Of 3 · 10 · 2 perturbed episodes of 12 ticks a acts in all, b in 8; dead agents are not counted.
    assert {name: moments[""]["count"] for name, moments in own["moments"].items()} == {"a": 720, "b": 480}


@serial_is_enough
def test_agents_that_take_turns_and_what_is_told_of_each(engine, tmp_path):
    told, settings = Told(), AGENTS | {"env_kwargs": {}, "policies": "separate"}
    with ES(Rounds, **settings) as first:
        first.train(1, callbacks=told)
        first.save(tmp_path / "run")
        weights = first.policy.policy("b").get_weights()
    metrics = told.reports[0].metrics
    agents = sum(metrics[f"agents/{agent}/ep_rew_mean"] for agent in "abc")
    assert agents == pytest.approx(metrics["rollout/ep_rew_mean"])
    # What is earned does not depend on the actions, so no direction is better than another.
    assert metrics["policies/b/rollout/perturbed_rew_std"] == 0
    expected = sum(Rounds.earned("b", turn) for turn in range(Rounds.DEATH))
    assert metrics["policies/b/rollout/perturbed_rew_mean"] == pytest.approx(expected)
    with ES.load(tmp_path / "run") as again:
        assert again.train(1).timesteps == 2 * first.timesteps
    assert evaluate(tmp_path / "run", episodes=2).agents["b"] == pytest.approx(expected)
    named = {"b": str(tmp_path / "run")}
    with ES(Rounds, **settings | {"seed": 6}, initial_policies=named) as other:
        assert other.policy.policy("b").get_weights().tobytes() == weights.tobytes()


@serial_is_enough
def test_a_search_begins_where_it_is_told_to(engine, tmp_path):
    with ARS("CartPole-v1", **COMMON) as first:
        first.train(1)
        weights = first.policy.get_weights()
        first.policy.save(tmp_path / "saved")
    assert weights.any()
    with ARS("CartPole-v1", **COMMON, initial=str(tmp_path / "saved")) as second:
        assert second.policy.get_weights().tobytes() == weights.tobytes()
    with pytest.raises(InputError, match="that is another model"):
        ES(Walk, **COMMON, initial=str(tmp_path / "saved"))


@pytest.mark.slow
@serial_is_enough
@pytest.mark.parametrize(("algorithm", "rate"), [(ES, 0.1), (ARS, 0.2)])
def test_what_agents_are_to_do_is_found(engine, algorithm, rate):
    """Whoever repeats the symbol in each of 12 + 4 + 7 steps has 23; chance gives 7.7."""
    settings = {
        "preset": "none", "n_envs": 32, "policies": {"a": "x", "*": "y"}, "n_delta": 16, "delta_std": 0.3,
        "delta_episodes": 2, "normalize": "obs", "noise_table_size": 100_000, "policy_kwargs": {"net_arch": []},
    }  # fmt: skip
    with algorithm(Crowd, **settings, learning_rate=rate, seed=100) as training:
        training.train(30_000)
        assert evaluate(training.policy, Crowd, episodes=20, seed=10_000).episode_return_mean > 20
