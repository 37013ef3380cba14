"""Bad input: exit code 2, one short message that names the thing, no traceback."""

import json
import shutil
import sys

import pytest
from agents_envs import Pair

from shoal.cli.main import main
from shoal.envs import register
from shoal.rl.runs.files import SUMS, write_summed


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


TRAIN = ["train", "ppo", "CartPole-v1", "--engine", "serial", "--total-timesteps", "100"]


def refused(arguments, capsys):
    """Run the command, expect exit code 2, and return the message."""
    code = main(arguments)
    output = capsys.readouterr()
    assert (code, output.out) == (2, ""), output.err
    assert output.err.startswith("error: "), output.err
    assert "Traceback" not in output.err
    assert len(output.err.splitlines()) == 1, output.err
    assert len(output.err) < 400, output.err
    return output.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "unknown command 'trian'. Did you mean 'train'?"),
        (["train"], "no algorithm is given; there are: ppo"),
        (["train", "pop", "CartPole-v1"], "unknown algorithm 'pop'. Did you mean 'ppo' or 'dpo'?"),
        (["train", "ppo", "--total-timesteps", "100"], "no environment is given"),
        (["train", "ppo", "CartPole-v1", "--engine", "serial", "--gamma", "1.5"], "gamma is 1.5"),
        ([*TRAIN, "--gama", "0.9"], "unknown flag '--gama'. Did you mean '--gamma'"),
        ([*TRAIN, "--n_stepz", "9"], "unknown flag '--n_stepz'. Did you mean '--n-steps'"),
        ([*TRAIN, "more"], "unexpected argument 'more'"),
        ([*TRAIN, "--workers"], "--workers wants a value"),
        ([*TRAIN, "--workers", "two"], "--workers: 'two' is not a whole number"),
        ([*TRAIN, "--gamma", "high"], "--gamma: 'high' is not a number"),
        ([*TRAIN, "--gamma", "nan"], "--gamma: 'nan' is not a finite number"),
        (["train", "ppo", "cli_envs:Lacking"], "cannot be made: the package 'nobody_has_this' is not installed"),
        (["train", "ppo", "cli_envs.py:Tinny"], "module 'cli_envs' has no class or function 'Tinny'. Did you"),
        (["train", "ppo", "Ant-v2"], "environment 'Ant-v2' cannot be made: The mujoco v2 and v3 based"),
        (["train", "ppo", "mo-four-v0"], "the package 'mo_gymnasium' is not installed: pip install mo_gymnasium"),
        (["envs", "nothing-like-it"], "no environment's id contains 'nothing-like-it'"),
        (["check"], "no environment is given. Write for example: shoal check CartPole-v1"),
        (["check", "CartPole-v1", "--step-timeout", "0"], "--step-timeout is 0.0, but must be above 0"),
        ([*TRAIN, "--step-timeout", "0"], "step_timeout is 0.0, but must be a number above 0"),
        ([*TRAIN, "--check", "never"], "--check: 'never' is not one of"),
        ([*TRAIN, "--env-kwargs", "gravity=1"], "--env-kwargs: 'gravity=1' is no JSON"),
        ([*TRAIN, "--env-kwargs", "[1]"], "--env-kwargs: '[1]' is no JSON object"),
        ([*TRAIN, "--gamma", "1.5"], "gamma is 1.5, but must be"),
        ([*TRAIN, "--learning-rate", "fast"], "'fast'"),
        ([*TRAIN, "--log", "cvs"], "log is 'cvs', but must be of csv"),
        ([*TRAIN, "--run-dir", "x" * 300], "cannot be written: File name too long"),
        ([*TRAIN, "--n-envs", "1e15"], "must be a whole number of at least 1 and at most 1,000,000"),
        ([*TRAIN, "--n-steps", "1e15"], "at 30 bytes a step they take 960000.0 TB, and this"),
        ([*TRAIN, "--workers", "0"], "workers is 0, but must be"),
        ([*TRAIN, "--gradient-shards", "1e11"], "gradient_shards is 100000000000, but must be a whole number of"),
        ([*TRAIN, "--learners", "3:1"], "learners is '3:1', but must be a whole number of at least 1, or two such as"),
        ([*TRAIN, "--total-timesteps", "-5"], "--total-timesteps is -5, but must be at least 1"),
        ([*TRAIN, "--total-timesteps", "0"], "--total-timesteps is 0"),
        ([*TRAIN, "--checkpoint-seconds", "-1"], "--checkpoint-seconds is -1"),
        ([*TRAIN, "--n-envs", "10", "--group-size", "4"], "n_envs is 10, which is not a multiple of group_size 4"),
        ([*TRAIN, "--batch-size", "100000"], "batch_size is 100000"),
        ([*TRAIN, "--preset", "CartPole"], "preset"),
        ([*TRAIN, "--policy-kwargs", '{"net_arc": [4]}'], "policy_kwargs has no entry 'net_arc'. Did you mean 'net_a"),
        ([*TRAIN, "--resume", "runs/none"], "runs/none"),
        (["evaluate"], "no run is given"),
        (["evaluate", "runs/none"], "there is no run or policy at 'runs/none'"),
        (["evaluate", "runs/none", "--episodes", "0"], "--episodes is 0"),
        (["evaluate", "runs/none", "--seed", "-1"], "--seed is -1"),
        (["serve"], "no run is given"),
        (["serve", "runs/none", "--engine", "serial"], "there is no run or policy at 'runs/none'"),
        (["serve", "runs/none", "--engine", "serial", "--replicas", "0"], "replicas is 0"),
        (["serve", "runs/none", "--engine", "serial", "--replicas", "1e12"], "replicas is 1000000000000, but must be"),
        (["serve", "runs/none", "--engine", "serial", "--http", ":::"], "http=':::': want HOST:PORT"),
        (["serve", "runs/none", "--engine", "serial", "--grpc", "1:70000"], "grpc='1:70000': want HOST:PORT"),
        (["serve", "runs/none", "--token-file", "none"], "--token-file none: No such file or directory"),
        (["serve", "runs/none", "--token-file", "/dev/zero"], "it holds more than 4,096 characters"),
        (["check", "CartPole-v1", "--env-kwargs", '{"x": 1e400}'], "'1e400' is not a finite number"),
    ],
)  # fmt: skip
def test_flags(arguments, message, capsys):
    assert message in refused(arguments, capsys)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("CartPole-v9", "CartPole-v1"),
        ("CatPole-v1", "CartPole-v1"),
        (":Env", "want module:Class, or module:Env-v0, with a name on either side"),
        ("cli_envs:", "want module:Class"),
        ("no_such_module:Env", "there is no module 'no_such_module'"),
        ("../elsewhere/mine.py:Maze", "lies outside the current folder, in which modules are looked for: go to"),
        ("/elsewhere/mine.py:Maze", "and name mine:Maze"),
        ("cli_envs:Tine", "has no class or function 'Tine'. Did you mean 'Tiny'?"),
        ("cli_envs:not_callable", "has no class or function 'not_callable'"),
        ("cli_envs:Lying", "observation"),
    ],
)
def test_environments(env, message, capsys):
    assert message in refused(["train", "ppo", env, "--engine", "serial", "--total-timesteps", "100"], capsys)


def test_a_function_of_the_current_folder_that_maps_policies(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    (tmp_path / "teams_here.py").write_text("def choose(agent):\n    return 3\n")
    register("cli-pair", Pair)
    arguments = ["train", "ppo", "cli-pair", "--policies", "teams_here:choose", "--engine", "serial"]
    assert "the function of policies gave 3 for agent" in refused(arguments, capsys)


def test_an_unpicklable_environment(capsys, tmp_path):
    (tmp_path / "locked_envs.py").write_text(
        "import threading\nfrom cli_envs import Tiny\nlock = threading.Lock()\n"
        "make = lambda: (lock, Tiny())[1]\nmake.__module__ = '__main__'\n"
    )
    assert "lock" in refused(
        ["train", "ppo", "locked_envs:make", "--engine", "serial", "--total-timesteps", "9"], capsys
    )


def test_what_only_a_worker_finds_out(capsys):
    assert main([*TRAIN, "--device", "abacus"]) == 2
    message = capsys.readouterr().err
    assert "error: device is 'abacus'" in message
    assert "Traceback" not in message


def test_nothing_is_written(capsys, tmp_path):
    refused([*TRAIN, "--gamma", "1.5"], capsys)
    assert not list(tmp_path.iterdir())


def test_a_run_folder_that_exists(capsys, tmp_path):
    (tmp_path / "old" / "checkpoints" / "000000000100").mkdir(parents=True)
    (tmp_path / "old" / "config.json").write_text("{}")
    message = refused([*TRAIN, "--run-dir", "old"], capsys)
    assert "'old' exists already" in message
    assert "--resume old" in message
    assert "--overwrite" in message


@pytest.fixture(scope="module")
def a_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("module") / "run"
    small = ["--n-envs", "2", "--n-steps", "64", "--batch-size", "64", "--n-epochs", "1"]
    assert main([*TRAIN, *small, "--run-dir", str(folder)]) == 0
    return folder


def test_folders_that_are_no_runs(a_run, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    shutil.copytree(a_run, tmp_path / "cut")
    weights = next((tmp_path / "cut" / "checkpoints").glob("*/policy.safetensors"))
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    for command in ("evaluate RUN", "serve RUN --engine serial", "train --engine serial --resume RUN"):
        for folder, message in (("missing", "does not exist"), ("empty", "is empty"), ("cut", "damaged or cut off")):
            if (command[0], folder) != ("t", "cut"):  # that one needs more steps: see the next test
                assert message in refused(command.replace("RUN", folder).split(), capsys)


def test_a_cut_training_state(a_run, capsys, tmp_path):
    shutil.copytree(a_run, tmp_path / "cut")
    for name in ("training.json", "training.safetensors", "policy.safetensors"):
        file = next((tmp_path / "cut" / "checkpoints").glob(f"*/{name}"))
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        message = refused(["train", "--resume", "cut", "--engine", "serial", "--total-timesteps", "999"], capsys)
        assert "damaged or cut off" in message
        file.write_bytes(whole)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "has done 128 of 100 steps: there is nothing left to do"),
        (["--total-timesteps", "128"], "has done 128 of 128 steps"),
        (["--total-timesteps", "500", "--gamma", "0.9"], "--gamma cannot be given with --resume"),
        (["--total-timesteps", "500", "--gamma", "0.9"], "a new run can begin with its weights: --initial"),
        (["--total-timesteps", "500", "--initial", "b"], "goes on with the settings that it began with\n"),
        (["--total-timesteps", "500", "--seed", "1"], "--seed cannot be given with --resume"),
        (["--total-timesteps", "500", "--run-dir", "b"], "--run-dir cannot be given with --resume"),
    ],
)
def test_what_a_resumed_run_cannot_change(a_run, arguments, message, capsys):
    assert message in refused(["train", "--resume", str(a_run), "--engine", "serial", *arguments], capsys)


def test_the_wrong_run_to_resume(a_run, capsys):
    command = ["train", "ppo", "Acrobot-v1", "--resume", str(a_run), "--engine", "serial"]
    assert "is of environment 'CartPole-v1', not of 'Acrobot-v1'" in refused(command, capsys)


def test_a_damaged_config(a_run, capsys, tmp_path):
    shutil.copytree(a_run, tmp_path / "run")
    file = tmp_path / "run" / "config.json"
    config = json.loads(file.read_text())
    for content, message in (
        ('{"env": "Cart', "is damaged"),
        (json.dumps(config | {"run": [1]}), "is damaged: its entry 'run' is [1]"),
    ):
        file.write_text(content)
        for command in ("train --resume run --engine serial", "doctor run", "diff run run", "replay run --episode 1"):
            assert message in refused(command.split(), capsys)
    file.unlink()
    file.mkdir()
    assert "config.json' cannot be read: Is a directory" in refused(["doctor", "run"], capsys)


@pytest.mark.parametrize(
    ("file", "entry", "value", "command", "message"),
    [
        ("metrics.jsonl", "elapsed_seconds", "x", "doctor run", "metrics.jsonl' is damaged, or from another program"),
        ("metrics.jsonl", "episode_returns", 5, "plot run", "metrics.jsonl' is damaged, or from another program"),
        ("metrics.jsonl", "timesteps", "x", "plot run", "line 1 of 'run/metrics.jsonl' is damaged"),
        ("hashes.jsonl", "total_timesteps", None, "verify run --engine serial", "it lacks total_timesteps"),
        ("episodes.jsonl", "seed", "x", "replay run --episode 2", "episodes.jsonl' is damaged: seed is 'x'."),
        ("policy.json", "env", 5, "evaluate run", "policy.json' is damaged: its entry 'env' is 5"),
        ("policy.json", "model", "x", "evaluate run", "policy.json': there is no kind of model 'x'"),
        (
            "training.json", "recent", 5,
            "train --resume run --engine serial --total-timesteps 999", "training.json' is damaged, or from another",
        ),
    ],
)  # fmt: skip
def test_a_file_that_holds_something_else(a_run, capsys, tmp_path, file, entry, value, command, message):
    shutil.copytree(a_run, tmp_path / "run")
    if file.endswith(".jsonl"):
        path = tmp_path / "run" / file
        lines = [json.loads(line) | {entry: value} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines * 2))
    else:
        checkpoint = next((tmp_path / "run" / "checkpoints").iterdir())
        files = {each.name: each.read_bytes() for each in checkpoint.iterdir() if each.name != SUMS}
        write_summed(checkpoint, files | {file: json.dumps(json.loads(files[file]) | {entry: value}).encode()})
    assert message in refused(command.split(), capsys)


def test_where_nothing_can_be_written(a_run, capsys, tmp_path):
    for folder in ("x.png", "x.gif"):
        (tmp_path / folder).mkdir()
    for command in (
        "plot RUN --out /proc/x.png",
        "evaluate RUN --video /proc/x.gif",
        "plot RUN --out x.png",
        "evaluate RUN --video x.gif",
    ):
        assert "cannot be written: " in refused(command.replace("RUN", str(a_run)).split(), capsys)


def test_a_training_state_that_lacks_entries(a_run, capsys, tmp_path):
    shutil.copytree(a_run, tmp_path / "run")
    checkpoint = next((tmp_path / "run" / "checkpoints").iterdir())
    files = {file.name: file.read_bytes() for file in checkpoint.iterdir() if file.name != SUMS}
    document = json.loads(files["training.json"])
    del document["hyperparameters"]
    write_summed(checkpoint, files | {"training.json": json.dumps(document).encode()})
    for command in ("verify run --engine serial", "train --resume run --engine serial --total-timesteps 999"):
        assert "training.json' lacks the entry 'hyperparameters'" in refused(command.split(), capsys)


def test_an_environment_that_does_not_fit(a_run, capsys):
    message = refused(["evaluate", str(a_run), "--env", "Pendulum-v1"], capsys)
    assert "'Pendulum-v1' has the observation space" in message
    assert "it cannot act there" in message


def test_the_run_is_as_it_was(a_run):
    assert json.loads((a_run / "result.json").read_text())["timesteps"] == 128
