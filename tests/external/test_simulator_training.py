"""Trainings whose simulators are outside."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from conftest import shoal_processes, wait_until
from gymnasium import spaces
from scripted import ACTIONS, OBSERVATIONS, play, threads

from shoal import A2C, DQN, ES, PPO, SAC, Callback, evaluate
from shoal.envs import EpisodeLostError, SimulatorClient, SimulatorError, external_env
from shoal.rl.collect import simulators
from shoal.runtime import InputError

SMALL = {"n_envs": 2, "n_steps": 8, "batch_size": 8, "n_epochs": 1}


@pytest.fixture(autouse=True)
def _token(monkeypatch):
    monkeypatch.setenv("SHOAL_SIMULATOR_TOKEN", "secret")


def simulate(address, env_id="CartPole-v1", seed=0):
    """Play until the training ends; a lost episode is followed by another one."""
    env = gymnasium.make(env_id)
    with SimulatorClient(address) as client:
        while True:
            try:
                episode, reward = client.start(), 0.0
                observation, _ = env.reset(seed=seed)
                seed, over = seed + 1, False
                while not over:
                    action = episode.act(observation, reward)
                    observation, reward, terminated, truncated, _ = env.step(action)
                    over = terminated or truncated
                episode.end(observation, reward, terminated=terminated, truncated=truncated)
            except EpisodeLostError:
                pass


def train(algorithm, steps, *, simulators=1, **settings):
    with (
        algorithm("CartPole-v1", listen="0", preset="none", seed=3, **settings) as training,
        threads(training.close) as beside,
    ):
        for number in range(simulators):
            beside(simulate, training.endpoint.address, "CartPole-v1", 1000 * number)
        return training.train(steps)


def test_one_simulator_gives_the_same_weights_every_time():
    results = [train(PPO, 64, engine="serial", **SMALL) for _ in range(2)]
    assert results[0].weights_sha256 == results[1].weights_sha256
    assert results[0].timesteps == 64
    assert results[0].episode_return_mean > 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        (A2C, {}),
        (PPO, SMALL | {"eval_freq": 30, "eval_episodes": 1}),
        (DQN, {"learning_starts": 20, "buffer_size": 100, "train_freq": 4}),
        (PPO, SMALL | {"normalize": "obs"}),
    ],
)
def test_several_simulators_feed_any_algorithm_that_collects(algorithm, settings):
    result = train(algorithm, 60, simulators=3, engine="serial", **settings)
    assert result.timesteps >= 60


def test_what_is_trained_for_simulators_without_a_gymnasium_twin(tmp_path):
    def simulate_many():
        with SimulatorClient(ppo.endpoint.address, observation_space=OBSERVATIONS, action_space=ACTIONS) as client:
            for episode in range(100):
                play(client, episode, 4, terminated=True)

    with (
        PPO(external_env(OBSERVATIONS, ACTIONS), listen="0", engine="serial", **SMALL) as ppo,
        threads(ppo.close) as beside,
    ):
        beside(simulate_many)
        assert ppo.train(32).episode_return_mean == 6
        ppo.save(tmp_path)
    with pytest.raises(InputError, match="External has spaces only"):
        evaluate(tmp_path, episodes=1)
    with pytest.raises(InputError, match="External has spaces only"):
        PPO(external_env(OBSERVATIONS, ACTIONS))


def test_a_resumed_training_begins_new_episodes_and_says_so(tmp_path, caplog):
    with (
        PPO("CartPole-v1", listen="0", engine="serial", preset="none", **SMALL) as ppo,
        threads(ppo.close) as beside,
    ):
        beside(simulate, ppo.endpoint.address)
        ppo.train(32)
        ppo.save(tmp_path)
    assert "new ones begin" not in caplog.text
    with PPO.load(tmp_path, engine="serial", listen="127.0.0.1:0") as ppo, threads(ppo.close) as beside:
        beside(simulate, ppo.endpoint.address)
        assert ppo.train(32).timesteps == 64
    assert "their episodes in progress are dropped, and new ones begin" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"listen": "nowhere"}, "listen='nowhere': want HOST:PORT"),
        ({"vectorization": "entry_point"}, "vectorization is 'entry_point', but with listen it must be 'sync'"),
        ({"step_timeout": 3.0}, "step_timeout is 3.0, but with listen"),
        ({"normalize": "obs,reward"}, "with listen rewards are not normalized"),
        ({"policy_kwargs": {"memory": "gru"}}, "memory is 'gru', but with listen a policy has none"),
    ],
)
def test_what_does_not_go_with_simulators_outside_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        PPO("CartPole-v1", **{"listen": "0"} | settings)


def test_what_steps_its_environments_itself_takes_none():
    with pytest.raises(InputError, match="listen is '0', but must be none with es"):
        ES("CartPole-v1", listen="0")


def test_sums_of_rewards_do_not_go_over_pieces_of_episodes():
    with pytest.raises(InputError, match="n_step is 3, but with listen it must be 1"):
        DQN("CartPole-v1", listen="0", n_step=3)
    with pytest.raises(InputError, match="eval_freq is 100, but External has no environment"):
        PPO(external_env(OBSERVATIONS, ACTIONS), listen="0", eval_freq=100)


def test_an_address_in_use_is_told_before_anything_is_started():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            PPO("CartPole-v1", listen=address, engine="serial") as ppo,
            pytest.raises(InputError, match="cannot listen"),
        ):
            ppo.train(1)


def test_a_training_that_nobody_feeds_says_so_again_and_again(monkeypatch, caplog):
    monkeypatch.setattr(simulators, "_FIRST_SAID", 0.02)
    monkeypatch.setattr(simulators, "_SAID_EVERY", 0.05)
    monkeypatch.setattr(simulators, "_POLL_SECONDS", 0.01)

    def come_late():
        address = ppo.endpoint.address
        wait_until(lambda: caplog.text.count(f"no simulator has asked for an action at {address}") > 1)
        simulate(address)

    with (
        PPO("CartPole-v1", listen="0", engine="serial", preset="none", **SMALL) as ppo,
        threads(ppo.close) as beside,
    ):
        beside(come_late)
        ppo.train(16)


MASKED = spaces.Dict({"image": spaces.Box(0, 255, (2, 2), np.uint8), "action_mask": spaces.MultiBinary(5)})


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [(PPO, SMALL), (DQN, {"n_envs": 1, "learning_starts": 20, "buffer_size": 100, "train_freq": 8})],
)
def test_masks_in_dict_observations(algorithm, settings):
    numbers = np.random.default_rng(0)

    def simulate_masked():
        with SimulatorClient(training.endpoint.address, observation_space=MASKED) as client:
            while True:
                episode, reward = client.start(), 0.0
                for _ in range(6):
                    mask = np.zeros(5, np.int8)
                    mask[numbers.choice(5, 2, replace=False)] = 1
                    seen = {"image": numbers.integers(0, 256, (2, 2), np.uint8), "action_mask": mask}
                    assert mask[episode.act(seen, reward)]
                    reward = 1.0
                episode.end(seen, reward, truncated=True)

    space = external_env(MASKED, spaces.Discrete(5))
    with (
        algorithm(space, listen="0", engine="serial", **settings) as training,
        threads(training.close) as beside,
    ):
        beside(simulate_masked)
        assert training.train(48).episode_return_mean == 6


def worker_process():
    return next((found for found in shoal_processes() if "SimulatorWorker" in "".join(found.cmdline())), None)


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "settings"), [(PPO, SMALL), (SAC, {"learning_starts": 20, "buffer_size": 1000})])
def test_a_killed_worker_is_replaced_and_simulators_begin_anew(algorithm, settings):
    killed = []

    def kill_and_simulate():
        address = training.endpoint.address
        env = gymnasium.make("CartPole-v1")
        observation, _ = env.reset(seed=0)
        with SimulatorClient(address) as client:
            client.start().act(observation)
        found = worker_process()
        found.send_signal(signal.SIGKILL)
        killed.append(found.pid)
        with SimulatorClient(address) as client:
            episode = client.start()
            episode.act(observation)
        simulate(address)

    with (
        algorithm("CartPole-v1", listen="0", preset="none", engine="native", **settings) as training,
        threads(training.close) as beside,
    ):
        beside(kill_and_simulate)
        assert training.train(64).timesteps >= 64
    assert killed


@pytest.mark.slow
def test_a_thousand_bad_requests_leave_the_training_going():
    counts = []

    class Watching(Callback):
        def on_iteration_end(self, training, report):
            counts.append(report.metrics["simulators/refused_requests"])

    def send_nonsense():
        bad = [np.zeros(3, np.float32), np.zeros(4), np.float32([np.nan] * 4), np.float32([9, 0, 0, 0]), {"a": 1}]
        with SimulatorClient(ppo.endpoint.address) as client:
            for number in range(1000):
                with contextlib.suppress(SimulatorError):
                    client.start().act(bad[number % len(bad)])
        told.set()

    def simulate_until_told():
        simulate(ppo.endpoint.address)

    told = threading.Event()
    with (
        PPO("CartPole-v1", listen="0", engine="native", preset="none", **SMALL) as ppo,
        threads(ppo.close) as beside,
    ):
        beside(simulate_until_told)
        beside(send_nonsense)
        while not told.is_set():
            ppo.train(16, callbacks=Watching())
        result = ppo.train(16, callbacks=Watching())
    assert counts[-1] == 1000
    assert result.timesteps > 16
    assert np.isfinite(result.episode_return_mean)


def begun_command(folder):
    """A training on the command line that waits for simulators; and its address."""
    command = [sys.executable, "-m", "shoal.cli.main", "train", "ppo", "CartPole-v1", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "--run-dir", str(folder / "run"), "--engine", "native"], stderr=subprocess.PIPE, text=True
    )
    for line in process.stderr:
        found = re.search(r"simulators connect to (\S+),", line)
        if found:
            return process, found[1]
    raise AssertionError("it does not listen")


def is_listened_at(address):
    host, port = address.split(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_training_that_waits_for_simulators_ends_at_once_and_leaves_nothing(tmp_path, number):
    process, address = begun_command(tmp_path)
    wait_until(lambda: is_listened_at(address), 30)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    if number != signal.SIGKILL:
        assert process.returncode == 130, told
        assert "nothing new to save" in told
        assert "nobody has read" not in told
    wait_until(lambda: not is_listened_at(address))


def test_the_page_about_it_names_spaces_as_they_are_read():
    page = (Path(__file__).parents[2] / "docs" / "simulators_outside.md").read_text()
    kwargs = json.loads(re.search(r"--env-kwargs '(.*?)'", page, re.DOTALL)[1])
    with PPO("External", env_kwargs=kwargs, listen="0", engine="serial") as ppo:
        assert ppo.model_spec.observation_space == spaces.Box(-1, 1, (12,), np.float32)
        assert ppo.model_spec.action_space == spaces.Discrete(5)


@pytest.mark.slow
def test_a_killed_simulator_costs_its_own_episode():
    example = Path(__file__).parents[2] / "examples" / "external_simulator.py"
    metrics = []

    class Watching(Callback):
        def on_iteration_end(self, training, report):
            metrics.append(report.metrics)

    with (
        PPO("CartPole-v1", listen="0", engine="native", preset="none", **SMALL | {"n_steps": 50}) as ppo,
        threads(ppo.close) as beside,
    ):
        dying = subprocess.Popen([sys.executable, str(example), ppo.endpoint.address])
        ppo.train(100)  # with it alone
        dying.kill()
        dying.wait()
        beside(simulate, ppo.endpoint.address)
        result = ppo.train(200, callbacks=Watching())
    assert result.timesteps == 300
    assert metrics[-1]["simulators/sessions"] <= 2  # its own, which is lost a minute later, and the other's
