"""Whole programs on a real Ray of this machine: training, killed workers, examples, commands, the page on scaling."""

import atexit
import importlib.util
import json
import os
import re
import runpy
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import wait_until
from learning_envs import DiesOnce

from shoal import XGBoost, runtime
from shoal.algorithms import ALGORITHMS, PPO
from shoal.envs import register, registered
from shoal.rl import Callback, serve

if importlib.util.find_spec("ray") is None:
    pytest.skip("run by `make test-ray`", allow_module_level=True)

# For the cluster and all that connect to it; Ray reads them when it is imported. Its ordinary folder would keep a note
# of a cluster that is gone, for which later programs would look.
FOLDER = tempfile.mkdtemp(prefix="ray-")
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_TMPDIR": FOLDER}
ray = importlib.import_module("ray")
internal_kv = importlib.import_module("ray.experimental.internal_kv")

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SETTINGS = {"preset": "none", "n_envs": 12, "group_size": 3, "n_steps": 32, "batch_size": 64, "n_epochs": 4, "seed": 5}


@runtime.remote
class Named:
    def registered(self):
        return registered()


def _path():
    """Where workers find the tests' own modules, and this Shoal."""
    own = [str(ROOT / "tests"), str(ROOT / "tests" / "runtime")]
    return os.pathsep.join([*own, *filter(None, [os.environ.get("PYTHONPATH")])])


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture
def nothing_left_behind():
    """A cluster outlives the programs that use it; that it ends is checked where it is started."""


@pytest.fixture(scope="module")
def cluster():
    """The address of a Ray cluster of one node, which knows where the tests' own modules are."""
    address = f"127.0.0.1:{free_port()}"
    head = subprocess.Popen(
        shlex.split(
            f"{BIN / 'ray'} start --head --block --port={address.rpartition(':')[2]} --num-cpus=4 "
            "--include-dashboard=false --disable-usage-stats"
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONPATH": _path()},
        text=True,
    )
    lines = []
    for line in head.stdout:
        lines.append(line)
        if "Ray runtime started" in line:
            break
    else:
        pytest.fail("".join(lines))
    children = psutil.Process(head.pid).children(recursive=True)
    yield address
    head.terminate()
    head.communicate(timeout=60)
    wait_until(lambda: not any(child.is_running() for child in children), 30)


@pytest.fixture
def on_ray(cluster):
    runtime.init(engine="ray", address=cluster)
    yield
    runtime.shutdown()


def train(engine, workers, env="CartPole-v1", address=None, **changes):
    runtime.init(engine=engine, address=address)
    try:
        with PPO(env, **SETTINGS | changes, workers=workers) as ppo:
            return ppo.train(4 * 12 * ppo.config.n_steps).weights_sha256
    finally:
        runtime.shutdown()


def shoal(*arguments, **environment):
    done = subprocess.run(
        [str(BIN / "shoal"), *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def second_node(cluster):
    """Another node of the cluster, of 2 CPUs, which a test has for itself."""

    def cpus():
        with runtime.init(engine="ray", address=cluster):
            return runtime.cluster_resources()["CPU"]

    node = subprocess.Popen(
        shlex.split(f"{BIN / 'ray'} start --block --address={cluster} --num-cpus=2 --disable-usage-stats"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": _path()},
    )
    wait_until(lambda: cpus() == 6, 60)
    children = psutil.Process(node.pid).children(recursive=True)
    yield
    node.terminate()
    node.communicate(timeout=60)
    wait_until(lambda: not any(child.is_running() for child in children) and cpus() == 4, 30)


def test_trees_over_two_nodes_are_those_of_the_serial_engine(cluster, second_node):
    random = np.random.default_rng(0)
    features = random.normal(size=(3_000, 4)).astype(np.float32)
    labels = (features[:, 0] + features[:, 1] ** 2 > 0.5).astype(int)
    settings = {"ranks": 5, "rounds_per_iteration": 2, "max_depth": 3}
    with runtime.init(engine="serial"), XGBoost((features, labels), **settings) as fit:
        digest = fit.train(6).weights_sha256
    with (
        runtime.init(engine="ray", address=cluster),
        XGBoost((features, labels), workers=5, nodes="all", **settings) as fit,  # no node has five CPUs
    ):
        assert fit.train(6).weights_sha256 == digest


def test_ppo_gives_the_same_weights_as_on_the_other_engines(cluster):
    digests = {train("serial", 1), train("native", 2), *(train("ray", workers, address=cluster) for workers in (1, 3))}
    assert len(digests) == 1


OTHERS = {
    "a2c": {"n_steps": 8, "learning_rate": 0.003},
    "dqn": {"train_freq": 4, "learning_starts": 100, "batch_size": 16, "n_step": 3, "prioritized_replay": True},
    "qrdqn": {"train_freq": 4, "learning_starts": 100, "batch_size": 16, "policy_kwargs": {"n_quantiles": 11}},
    "sac": {"train_freq": 4, "learning_starts": 100, "batch_size": 16, "policy_kwargs": {"net_arch": [16]}},
    "td3": {"train_freq": 4, "learning_starts": 100, "batch_size": 16, "policy_kwargs": {"net_arch": [16]}},
}


class KillLearner(Callback):
    """Kills the learner after so many iterations, once."""

    def __init__(self, iteration):
        self.iteration = iteration

    def on_iteration_end(self, training, report):
        if report.iteration == self.iteration:
            runtime.kill(training.actors.learner.actor, no_restart=False)


@pytest.mark.parametrize("name", OTHERS)
def test_a_killed_learner_of_every_other_algorithm_changes_no_weight(cluster, name):
    env = "Pendulum-v1" if name in ("sac", "td3") else "CartPole-v1"
    digests = set()
    for engine, workers, address in (("serial", 1, None), ("ray", 2, cluster)):
        runtime.init(engine=engine, address=address)
        try:
            settings = {"preset": "none", "n_envs": 12, "group_size": 3, "seed": 5, **OTHERS[name]}
            with ALGORITHMS[name](env, **settings, workers=workers) as algorithm:
                killing = [KillLearner(5)] if engine == "ray" else []
                digests.add(algorithm.train(480, callbacks=killing).weights_sha256)
        finally:
            runtime.shutdown()
    assert len(digests) == 1


@pytest.mark.parametrize("name", ["es", "ars"])
def test_a_search_by_tasks_gives_the_same_weights(cluster, name):
    digests = set()
    for engine, workers, address in (("serial", 1, None), ("ray", 2, cluster)):
        runtime.init(engine=engine, address=address)
        try:
            settings = {"preset": "none", "n_envs": 9, "group_size": 3, "seed": 5, "normalize": "obs", "n_delta": 70}
            with ALGORITHMS[name]("CartPole-v1", **settings, workers=workers) as algorithm:
                digests.add(algorithm.train(5_000).weights_sha256)
        finally:
            runtime.shutdown()
    assert len(digests) == 1


def test_a_killed_worker_of_ray_changes_no_weight(cluster, tmp_path):
    (tmp_path / "exists").touch()
    calm, killed = (
        train("ray", 2, DiesOnce, address=cluster, n_steps=64, env_kwargs={"marker": str(tmp_path / name)})
        for name in ("exists", "is made at death")
    )
    assert (tmp_path / "is made at death").exists()
    assert calm == killed


@pytest.mark.parametrize("name", ["ppo", "dqn", "sac"])
def test_chaos_on_ray_changes_no_weight(cluster, name, one_cycle_each):
    settings = {k: v for k, v in SETTINGS.items() if name == "ppo" or k in ("preset", "n_envs", "group_size", "seed")}
    env = "Pendulum-v1" if name == "sac" else "CartPole-v1"
    results = []
    for engine, workers, address in (("serial", 1, None), ("ray", 2, cluster)):
        chaos = "kill_worker=0.2,kill_learner=0.2,seed=1" if engine == "ray" else "none"
        runtime.init(engine=engine, address=address)
        try:
            with ALGORITHMS[name](env, **settings | OTHERS.get(name, {}), chaos=chaos, workers=workers) as algorithm:
                results.append(algorithm.train(12 * 32 * 6 if name == "ppo" else 480))
        finally:
            runtime.shutdown()
    calm, disturbed = results
    assert disturbed.weights_sha256 == calm.weights_sha256
    assert disturbed.chaos["worker_deaths"] > 0
    assert disturbed.chaos["learner_deaths"] > 0


def test_the_learner_asks_ray_for_a_gpu(cluster):
    runtime.init(engine="ray", num_cpus=2, num_gpus=1)
    try:
        with PPO("CartPole-v1", **SETTINGS, workers=1) as ppo:
            ppo.train(12 * 32)
            assert runtime.available_resources()["GPU"] == 0
    finally:
        runtime.shutdown()


def test_a_job_leaves_nothing_in_the_control_plane(cluster):
    runtime.init(engine="ray", address=cluster)
    register("LeftBehind-v0", DiesOnce)
    kept = Named.options(name="left behind").remote()
    assert "LeftBehind-v0" in runtime.get(kept.registered.remote())
    assert internal_kv._internal_kv_list(b"", namespace=b"shoal")
    runtime.shutdown()
    ray.init(address=cluster)
    left = internal_kv._internal_kv_list(b"", namespace=b"shoal")
    ray.shutdown()
    assert left == []


def test_a_stream_that_outlives_its_runtime_is_closed_by_nobody(cluster):
    """By Ray's functions it could not be: they begin another Ray where none is."""
    with runtime.init(engine="ray", address=cluster):
        stream = runtime.remote(lambda: iter((1, 2))).options(num_returns="streaming").remote()
        assert runtime.get(next(stream)) == 1
        assert "shoal-streams" in {thread.name for thread in threading.enumerate()}
    assert "shoal-streams" not in {thread.name for thread in threading.enumerate()}
    del stream
    assert not ray.is_initialized()


def test_actors_that_others_have_made_can_be_called(on_ray):
    class Theirs:
        def one(self):
            return 1

        @ray.method(num_returns=2)
        def two(self):
            return 1, 2

        def count(self, n):
            yield from (i for i in range(n))

    kept = ray.remote(Theirs).options(name="theirs").remote()
    theirs = runtime.get_actor("theirs")
    assert runtime.get(theirs.one.remote()) == 1
    assert runtime.get(theirs.two.remote()) == [1, 2]
    assert [runtime.get(ref) for ref in theirs.count.remote(3)] == [0, 1, 2]
    assert ray.get(kept.one.remote()) == 1


def test_a_handle_by_name_knows_what_the_class_says_of_its_methods(on_ray):
    @runtime.remote(concurrency_groups={"io": 1})
    class Ours:
        @runtime.method(num_returns=2, concurrency_group="io")
        def two(self):
            return 1, 2

        @runtime.method(generator_backpressure=1, num_returns="streaming")
        def count(self, n):
            yield from range(n)

    kept = Ours.options(name="ours").remote()
    ours = runtime.get_actor("ours")
    assert ours == kept
    assert runtime.get(ours.two.remote()) == runtime.get(ours.two.options(concurrency_group="io").remote()) == [1, 2]
    assert [runtime.get(ref) for ref in ours.count.remote(3)] == [0, 1, 2]


def test_other_programs_can_read_what_is_stored(on_ray):
    @runtime.remote
    def plain(boxed):
        return ray.get(ray.put(runtime.get(boxed[0])))

    assert runtime.get(plain.remote([runtime.put({"x": 3})])) == {"x": 3}


def test_the_command_line_trains_on_a_cluster(cluster, tmp_path):
    common = ("--workers", "2", "--seed", "0", "--total-timesteps", "2048", "--json")
    here, there = (
        json.loads(shoal("train", "ppo", "CartPole-v1", "--run-dir", str(tmp_path / name), *common, *engine))
        for name, engine in (("native", ()), ("ray", ("--engine", "ray", "--address", cluster)))
    )
    assert here["weights_sha256"] == there["weights_sha256"]


def test_replicas_that_serve_are_actors_of_ray(on_ray, cluster, tmp_path):
    with PPO("CartPole-v1", **SETTINGS, workers=1) as ppo:
        ppo.train(12 * 32)
        ppo.save(tmp_path / "run")
    with serve(tmp_path / "run", replicas=2) as served:
        titles = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
        assert sum("ray::" in title and "PolicyReplica" in title for title in titles) == 2
        assert served.act([0.0, 0.1, 0.02, -0.1]) in (0, 1)


@pytest.mark.parametrize(
    ("name", "arguments", "wanted"),
    [
        ("hello_runtime.py", [], "pi is about 3.1"),
        ("train_ppo_cartpole.py", ["--total-timesteps", "2000"], "weights "),
        ("custom_env.py", ["--total-timesteps", "2000"], "mean return "),
        ("serve_policy.py", ["--replicas", "1"], "'status': 'ok'"),
    ],
)
def test_examples_run_unchanged(name, arguments, wanted, cluster, tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *arguments],
        env=os.environ | {"SHOAL_ENGINE": "ray", "SHOAL_ADDRESS": cluster},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert wanted in done.stdout


def test_the_page_on_scaling_does_what_it_says(cluster, tmp_path):
    page = (ROOT / "docs" / "scaling.md").read_text()
    section = page.partition("## A Ray on this machine")[2].partition("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    commands = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    trainings = [command for command in commands if command[:2] == ["shoal", "train"]]
    assert trainings
    for command in trainings:
        shoal(*command[1:], "--run-dir", str(tmp_path / "run"), "--overwrite", RAY_ADDRESS=cluster)
    for script in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        (tmp_path / "script.py").write_text(script.replace('"auto"', repr(cluster)))
        runpy.run_path(str(tmp_path / "script.py"), run_name="__main__")
        runtime.shutdown()
