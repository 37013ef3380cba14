"""A run that was killed and goes on is the run that was not: its weights, metrics, hashes and evaluations, for every
algorithm; rows that it wrote after its last checkpoint are cut."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import fields

import gymnasium
import pytest
from datasets import episode, write_dataset
from gymnasium import spaces
from learning_envs import Walk

from shoal import runtime
from shoal.algorithms import ALGORITHMS
from shoal.rl import AsynchronousAlgorithm, Callback, EvolutionAlgorithm, RunFolder, verify
from shoal.rl.declaration import Collecting
from shoal.rl.language.algorithm import LanguageAlgorithm
from shoal.rl.language.text_training import TextAlgorithm
from shoal.rl.offline import OfflineAlgorithm

SMALL = {"net_arch": [8]}
NETWORK = {"tokenizer": "bytes", "context": 24, "width": 16, "heads": 2, "layers": 1}
OWN = {
    "ppo": {"batch_size": 16, "n_epochs": 2, "normalize": "obs,reward", "learning_rate": "lin_0.001"},
    "dqn": {"prioritized_replay": True, "n_step": 3, "target_update_interval": 40, "normalize": "obs"},
    "ars": {"normalize": "obs"},
    "grpo": {"samples": 4},
}
CONTINUOUS = {"sac", "td3", "ddpg"}
ITERATIONS, SAVED, DIED = 8, 3, 5
MEASURED = re.compile(r"time/|replay/bytes|elapsed_seconds|eval/")
"""Of a row, what is not a function of the run; evaluations have rows of their own."""


class BoxWalk(Walk):
    """With continuous actions."""

    def __init__(self):
        super().__init__(spaces.Box(-1, 1, (2,)))


class DiedError(BaseException):
    """What ends a training that has no time to save."""


class Die(Callback):
    """Saves a checkpoint after one iteration, and ends the program after a later one, which is written down already."""

    def __init__(self, folder, died=DIED):
        self.folder, self.died = folder, died

    def on_iteration_end(self, training, report):
        if report.iteration == SAVED:
            self.folder.save(training)
        if report.iteration == self.died:
            raise DiedError


@pytest.fixture
def sources(tmp_path, datasets):
    """What is learned from that is no environment."""
    names = {}
    for env in ("CartPole-v1", "Pendulum-v1"):
        with gymnasium.make(env) as made:
            seen, done = made.observation_space, made.action_space
        played = [episode(seen, done, 9, seed=seed) for seed in range(5)]
        names[env] = write_dataset(f"drawn/{env}", played, seen, done, env)
    rows = [{"prompt": f"{n}?", "chosen": "yes", "rejected": "no", "answer": "yes"} for n in range(9)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "texts.txt").write_text("the sea is wide, and a ship sails far out and back again")
    return names | {"rows": str(tmp_path / "rows.jsonl"), "texts": str(tmp_path / "texts.txt")}


def env_of(name):
    return BoxWalk if name in CONTINUOUS else Walk


def make(name, sources):
    """A tiny training, and its environment steps per iteration."""
    kind = ALGORITHMS[name]
    common = {"seed": 3, "preset": "none", "device": "cpu"} | OWN.get(name, {})
    if issubclass(kind, LanguageAlgorithm):
        own = {"n_envs": 8, "group_size": 4, "batch_size": 4, "max_new_tokens": 2, "policy_kwargs": NETWORK}
        return kind("copy-2", **own | common), 8
    if issubclass(kind, TextAlgorithm):
        source = sources["texts" if name == "pretrain" else "rows"]
        return kind(dataset=source, batch_size=2, gradient_steps=2, policy_kwargs=NETWORK, **common), 2
    if issubclass(kind, OfflineAlgorithm):
        source = sources["Pendulum-v1" if name == "td3_bc" else "CartPole-v1"]
        return kind(dataset=source, batch_size=4, gradient_steps=5, policy_kwargs=SMALL, **common), 5
    own = {"n_envs": 4, "group_size": 2, "policy_kwargs": SMALL, "eval_freq": 48, "eval_episodes": 2}
    known = {item.name for item in fields(kind.config_class)}
    if "save_replay" in known:
        own |= {"save_replay": True, "train_freq": 4, "learning_starts": 24, "batch_size": 4, "buffer_size": 60}
    elif "n_delta" in known:
        own |= {"n_delta": 2, "noise_table_size": 10_000}
    else:
        own |= {"n_steps": 8}
        own |= {"buffer_size": 100, "learning_starts": 16, "batch_size": 4} if name == "apex" else {}
    return kind(env_of(name), **own | common), 4 * own.get("train_freq", own.get("n_steps", 0))


def rows_of(folder, name):
    path = folder / name
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{key: value for key, value in row.items() if not MEASURED.match(key)} for row in rows]


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


@pytest.mark.slow
@pytest.mark.usefixtures("one_cycle_each")
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_killed_run_goes_on_as_if_it_had_not_been(name, sources, tmp_path):
    runtime.init(engine="serial")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    training, per_iteration = make(name, sources)
    total = ITERATIONS * per_iteration or 1500  # a generation of an evolution is as long as its episodes
    with RunFolder(whole) as folder, training:
        training.train(total, callbacks=[folder])
    with pytest.raises(DiedError), RunFolder(parts) as folder, make(name, sources)[0] as training:
        training.train(total, callbacks=[folder, Die(folder)])
    assert [row["iteration"] for row in rows_of(parts, "metrics.jsonl")] == list(range(1, DIED + 1))
    given = {"env": env_of(name)} if issubclass(ALGORITHMS[name], Collecting | EvolutionAlgorithm) else {}
    with RunFolder(parts, resume=True) as folder, ALGORITHMS[name].load(parts, **given) as training:
        assert training.iteration == SAVED
        training.train(total - training.timesteps, callbacks=[folder])
    if issubclass(ALGORITHMS[name], AsynchronousAlgorithm):  # what has come by when is not repeated, but recorded
        numbers = [row["iteration"] for row in rows_of(parts, "schedule.jsonl")]
        assert numbers == list(range(1, result_of(parts)["iterations"] + 1))
        return
    assert result_of(parts)["weights_sha256"] == result_of(whole)["weights_sha256"]
    for file in ("metrics.jsonl", "hashes.jsonl", "evaluations.jsonl", "examples.jsonl"):
        assert rows_of(parts, file) == rows_of(whole, file), file
    assert len(rows_of(parts, "metrics.jsonl")) == result_of(whole)["iterations"] > DIED
    assert len(rows_of(parts, "hashes.jsonl")) == result_of(whole)["iterations"]


PROGRAM = """
import os, signal, sys
from shoal import DQN
from shoal.rl import RunFolder, cycles
from shoal.rl.runs import files

written = 0

def write(path, content, whole=files.write_whole):
    global written
    written += 1
    if written == int(sys.argv[2]):  # half of a file is there
        path.with_name(f".{path.name}.tmp").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(path, content)

if __name__ == "__main__":
    folder = RunFolder(sys.argv[1], checkpoint_seconds=0)
    settings = dict(n_envs=2, train_freq=4, learning_starts=8, batch_size=4, save_replay=True, preset="none", seed=1)
    with folder, DQN("CartPole-v1", engine="serial", **settings) as dqn:
        for module in (files, sys.modules["shoal.rl.runs.run_folder"], sys.modules["shoal.rl.runs.metrics"]):
            if hasattr(module, "write_whole"):
                module.write_whole = write
        cycles.ITERATION_STEPS = 1
        dqn.train(64, callbacks=[folder])
"""


@pytest.mark.slow
def test_a_kill_in_the_middle_of_writing_loses_what_came_after_the_last_checkpoint_only(tmp_path, one_cycle_each):
    runtime.init(engine="serial")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    run = tmp_path / "run"

    def go(folder, nth):
        return subprocess.run([sys.executable, program, folder, str(nth)], check=False, capture_output=True).returncode

    whole = tmp_path / "whole"
    assert go(whole, 0) == 0
    assert go(run, 24) == -signal.SIGKILL  # within the third or fourth checkpoint of files each
    checkpoints = sorted(path.name for path in (run / "checkpoints").iterdir() if path.name.isdigit())
    assert list((run / "checkpoints").glob(".writing-*"))
    assert (run / ".lock").exists()  # of the dead: it locks nobody out
    with RunFolder(run, resume=True) as folder, ALGORITHMS["dqn"].load(run) as dqn:
        assert dqn.timesteps == int(checkpoints[-1])
        dqn.train(64 - dqn.timesteps, callbacks=[folder])
    assert result_of(run)["weights_sha256"] == result_of(whole)["weights_sha256"]
    for file in ("metrics.jsonl", "hashes.jsonl"):
        assert rows_of(run, file) == rows_of(whole, file)
    assert not list((run / "checkpoints").glob(".*"))
    assert verify(ALGORITHMS["dqn"], run).same
    assert os.listdir(run).count(".lock") == 0
