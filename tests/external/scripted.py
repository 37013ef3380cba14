"""Simulators whose every number is known, and workers that they connect to."""

import contextlib
import subprocess
import threading

import numpy as np
from gymnasium import spaces

from shoal.envs import Endpoint, ServerGoneError, SimulatorClient
from shoal.envs.external.environment import external_env
from shoal.rl import ModelSpec, RunSettings
from shoal.rl.collect.channel import Channel
from shoal.rl.collect.simulators import SimulatorWorker

OBSERVATIONS = spaces.Box(-100, 100, (2,), np.float32)
"""Number of the episode, and step in it."""
ACTIONS = spaces.Discrete(2)


def observation(episode, step):
    return np.array([episode, step], np.float32)


def play(client, episode, length, *, terminated=False, logged=()):
    """One episode; the reward of step t is t, and the steps `logged` are the simulator's own: action 1."""
    running = client.start()
    for step in range(length):
        reward = 0.0 if step == 0 else float(step - 1)
        if step in logged:
            running.log(observation(episode, step), 1, reward)
        else:
            running.act(observation(episode, step), reward)
    running.end(observation(episode, length), float(length - 1), terminated=terminated, truncated=not terminated)


@contextlib.contextmanager
def threads(end):
    """Give what runs a function in a thread; after the block `end()` is called, and what a thread raised is raised,
    unless it is that its server has gone."""
    running, problems = [], []

    def run(function, *arguments):
        try:
            function(*arguments)
        except ServerGoneError:
            pass
        except Exception as error:
            problems.append(error)

    def beside(function, *arguments):
        running.append(threading.Thread(target=run, args=(function, *arguments)))
        running[-1].start()

    try:
        yield beside
    finally:
        end()
        for thread in running:
            thread.join()
    if problems:
        raise problems[0]


@contextlib.contextmanager
def simulator_worker(algorithm, config, kind, *, action_space=ACTIONS, observation_space=OBSERVATIONS, **settings):
    """A worker in this process, a client that is connected to it, and what runs simulators in threads."""
    endpoint = Endpoint.at("0", token="secret")
    worker = SimulatorWorker(
        algorithm,
        config,
        spec=external_env(observation_space, action_space),
        model_spec=ModelSpec(kind, observation_space, action_space, {}),
        settings=RunSettings(listen=endpoint.address, **settings),
        endpoint=endpoint,
        channel=Channel("training/tested", between_processes=False),
    )
    with SimulatorClient(endpoint.address, token="secret") as client, threads(worker.close) as beside:
        yield worker, client, beside


def make_certificate(folder, name, address="127.0.0.1"):
    """Paths of a certificate for an address, signed by itself, and of its key."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=shoal"
    options = ["-addext", f"subjectAltName=IP:{address}", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *options], check=True, capture_output=True)
    return str(certificate), str(key)
