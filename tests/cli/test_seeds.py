"""Several seeds side by side, and pictures of runs."""

import json
import subprocess
import sys

import psutil
import pytest
from conftest import wait_until

from shoal.cli.main import main
from shoal.cli.seeds import Seeds, parallel_trainings, without_flags


def test_what_each_seed_is_given():
    given = ["E", "--seeds", "3", "--gamma", "0.9", "--seed=4", "--run_dir", "x", "--json", "--overwrite"]
    assert without_flags(given) == ["E", "--gamma", "0.9", "--overwrite"]


def test_at_least_one_at_a_time():
    assert parallel_trainings(5, 10_000) == 1
    assert parallel_trainings(1, 1) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "ppo", "CartPole-v1", "--seeds", "0"], "--seeds is 0, but must be at least 1"),
        (
            ["train", "ppo", "CartPole-v1", "--seeds", "1e11"],
            "--seeds is 100000000000, but must be at least 1 and at most",
        ),
        (["train", "ppo", "CartPole-v1", "--seeds", "2", "--run-dir", __file__], "test_seeds.py' is a file"),
        (["train", "ppo", "CatPole-v1", "--seeds", "2"], "unknown environment 'CatPole-v1'"),
        (["train", "ppo", "CartPole-v1", "--seeds", "2", "--gamma", "2"], "gamma is 2"),
        (["train", "ppo", "CartPole-v1", "--seeds", "2", "--preset", "CatPole-v1"], "preset is 'CatPole-v1'"),
        (
            ["train", "ppo", "CartPole-v1", "--seeds", "2", "--group-size", "5"],
            "n_envs is 32, which is not a",
        ),
        (["train", "ppo", "--seeds", "2"], "--seeds begins new runs"),
        (["train", "ppo", "CartPole-v1", "--seeds", "2", "--listen", "0"], "--listen is one address"),
        (["plot"], "no run is given"),
        (["plot", "nowhere"], "there is nothing to draw of 'nowhere'"),
        (["plot", "nowhere", "--x", "epochs"], "steps, time"),
    ],
)
def test_what_is_refused(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_what_was_there_before_is_not_summed_up(tmp_path):
    for name in (".", "seed-0", "seed-4", "seed-5"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "metrics.jsonl").write_text("{}")
    for seed in (0, 4, 5):
        (tmp_path / f"seed-{seed}.log").write_text("")
    (tmp_path / "seed-5" / "notes").write_text("mine")
    Seeds("ppo", "E", [], first=0, count=2, folder=tmp_path, parallel=1)._remove_others(range(2))
    assert sorted(path.name for path in tmp_path.glob("*")) == ["seed-0", "seed-0.log", "seed-5"]
    assert sorted(path.name for path in tmp_path.glob("seed-*/*")) == ["checkpoints", "metrics.jsonl", "notes"]


@pytest.mark.slow
def test_a_seed_that_fails_is_named_and_the_others_finish(tmp_path, capsys):
    (tmp_path / "runs").mkdir()
    command = (
        "train ppo CartPole-v1 --seeds 2 --n-envs 2 --n-steps 64 --batch-size 64 --total-timesteps 512 --engine serial"
    )
    (tmp_path / "runs" / "seed-1").write_text("in the way")
    assert main([*command.split(), "--overwrite", "--json", "--run-dir", str(tmp_path / "runs")]) == 1
    told = capsys.readouterr()
    result = json.loads(told.out)
    assert result == json.loads((tmp_path / "runs" / "result.json").read_text())
    assert result["failed"] == [1]
    assert result["iqm"] == result["episode_return_means"]["0"] == result["interval"][0]
    assert "seed 1 failed (exit code 2)" in told.err
    assert (tmp_path / "runs" / "learning_curves.png").exists()
    assert main(["plot", str(tmp_path / "runs"), "--out", str(tmp_path / "plot.svg")]) == 0


@pytest.mark.slow
def test_seeds_end_when_the_command_is_killed(tmp_path):
    command = "train ppo CartPole-v1 --seeds 2 --n-envs 2 --total-timesteps 10000000 --engine serial --preset none"
    parent = subprocess.Popen(
        [sys.executable, "-m", "shoal.cli.main", *command.split(), "--run-dir", str(tmp_path / "runs")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    metrics = tmp_path / "runs" / "seed-0" / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.stat().st_size, 60)
    children = psutil.Process(parent.pid).children(recursive=True)
    parent.kill()
    parent.wait()
    psutil.wait_procs(children, timeout=60)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert list((tmp_path / "runs" / "seed-0" / "checkpoints").iterdir())
