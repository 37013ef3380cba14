"""What the commands do with run folders: claims, locks, damage, full disks, and folders of another kind."""

import json
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shoal.cli import signals
from shoal.cli.main import main
from shoal.rl import find_run
from shoal.rl.runs.checkpoint import list_checkpoints, read_policy, read_training
from shoal.rl.runs.files import SUMS, with_sums
from shoal.rl.runs.run_lock import lock_run, unlock_run

SMALL = ["--n-envs", "2", "--n-steps", "64", "--batch-size", "64", "--n-epochs", "1", "--preset", "none"]
TRAIN = ["train", "ppo", "CartPole-v1", "--engine", "serial", *SMALL]
RESUME = ["train", "--engine", "serial", "--resume"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    arguments = ["--total-timesteps", "384", "--checkpoint-seconds", "0", "--run-dir", str(folder)]
    assert main([*TRAIN, *arguments]) == 0
    return folder


@pytest.fixture
def run(trained):
    """A run of 384 steps in three iterations, with a checkpoint after each."""
    return Path(shutil.copytree(trained, "run"))


def refused(arguments, capsys):
    capsys.readouterr()
    code = main(arguments)
    output = capsys.readouterr()
    assert (code, output.out) == (2, ""), output.err
    assert output.err.startswith("error: "), output.err
    assert output.err.count("\n") == 1, output.err
    return output.err


def test_the_previous_good_checkpoint_is_offered_and_resumed(run, capsys):
    whole = json.loads((run / "result.json").read_text())
    first, second, third = list_checkpoints(run)
    (third / "training.json").write_bytes((second / "training.json").read_bytes())
    (second / "policy.safetensors").write_bytes(b"")
    for command in (["evaluate", "run"], ["serve", "run", "--engine", "serial"], [*RESUME, "run"]):
        message = refused(command, capsys)
        assert "000000000384/training.json' is damaged" in message
        assert f"The previous good checkpoint is '{first}'" in message
    offered = message.partition("Continue from it with: ")[2].split()
    assert offered == ["shoal", "train", "--resume", str(first)]
    assert main([*RESUME, offered[-1]]) == 0
    assert json.loads((run / "result.json").read_text())["weights_sha256"] == whole["weights_sha256"]
    assert [path.name for path in list_checkpoints(run)] == ["000000000128", "000000000384"]
    assert read_training(run)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [1, 2, 3]


def test_good_later_checkpoints_are_kept_unless_told(run, capsys):
    first = list_checkpoints(run)[0]
    message = refused([*RESUME, str(first)], capsys)
    assert "has a later checkpoint than the one of 128 steps" in message
    assert "--overwrite" in message
    assert len(list_checkpoints(run)) == 3
    assert main([*RESUME, str(first), "--overwrite"]) == 0


@pytest.mark.slow
def test_a_folder_that_is_written_is_left_alone(run, capsys):
    source = (
        "import sys\nfrom pathlib import Path\nfrom shoal.rl.runs.run_lock import lock_run\nlock_run(Path('run'))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", source + "print(flush=True)\ninput()", "words"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        holder.stdout.readline()
        for command in (
            [*RESUME, "run", "--total-timesteps", "999"],
            [*TRAIN, "--run-dir", "run"],
            [*TRAIN, "--run-dir", "run", "--overwrite"],
        ):
            assert f"is being written by process {holder.pid}: -c words" in refused(command, capsys)
        holder.kill()
    assert main([*RESUME, "run", "--total-timesteps", "512"]) == 0


def test_a_lock_that_comes_after_the_checks_is_seen(run, capsys, monkeypatch):
    from shoal.rl.runs import run_folder

    monkeypatch.setattr(run_folder, "check_unlocked", lambda folder: None)
    lock_run(run)
    try:
        assert "is being written" in refused([*TRAIN, "--run-dir", "run", "--overwrite"], capsys).split("\n")[-2]
    finally:
        unlock_run(run)


@pytest.mark.slow
def test_three_runs_that_start_together():
    arguments = [sys.executable, "-m", "shoal.cli.main", *TRAIN, "--total-timesteps", "256", "--seed"]
    runs = [
        subprocess.Popen([*arguments, str(seed)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for seed in range(3)
    ]
    printed = [process.communicate()[0] for process in runs]
    assert [process.returncode for process in runs] == [0, 0, 0]
    folders = {str(path) for path in Path("runs").iterdir()}
    assert folders == {f"runs/ppo-CartPole-v1-{number}" for number in (1, 2, 3)}
    kept = {json.loads(Path(folder, "result.json").read_text())["weights_sha256"] for folder in folders}
    assert kept == {output.split()[1] for output in printed}


def test_a_full_disk_is_one_line(run, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))  # a checkpoint does not fit
    try:
        code = main([*RESUME, "run", "--total-timesteps", "9999", "--checkpoint-seconds", "0"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    output = capsys.readouterr()
    assert code == 1
    assert "Traceback" not in output.err
    last = list_checkpoints(run)[-1]
    error = next(line for line in output.err.splitlines() if line.startswith("error: "))
    assert error.startswith("error: run folder 'run' cannot be written: File too large")
    assert f"The last checkpoint is whole: '{last}'" in error
    assert last.name == "000000000384"
    assert {path.name for path in last.parent.iterdir()} == {path.name for path in list_checkpoints(run)}
    assert main([*RESUME, "run", "--total-timesteps", "512"]) == 0


def test_a_run_that_fails_at_its_start_leaves_no_folder(capsys):
    assert main([*TRAIN, "--total-timesteps", "128", "--device", "abacus"]) == 2
    assert "run folder" not in capsys.readouterr().err
    assert not list(Path("runs").iterdir())


def test_only_a_curve_that_was_drawn_is_told(capsys):
    assert main(["train", "ppo", "cli_envs:Tiny", "--engine", "serial", *SMALL, "--total-timesteps", "128"]) == 0
    output = capsys.readouterr().out
    assert Path(output.partition("curve: ")[2].strip()).exists()
    endless = ["--env-kwargs", '{"length": 1000}']
    arguments = ["--engine", "serial", *SMALL, "--total-timesteps", "128", "--run-dir", "endless", *endless]
    assert main(["train", "ppo", "cli_envs:Endless", *arguments]) == 0
    assert "no curve: no episode ended" in capsys.readouterr().out


def test_what_can_be_resumed_and_what_not(run, capsys):
    from shoal.rl import Policy

    Policy.load(run).save("policy")
    shutil.copytree(find_run(run)[1], "copy")
    for folder, message in (
        ("policy", "'policy' is a saved policy: `shoal evaluate` and `shoal serve` take it"),
        ("copy", "'copy' is no run: it holds what a program has saved, without config.json"),
        ("run/config.json", "it is a file. Name the folder"),
        ("run/checkpoints", "it holds the checkpoints of a run"),
        (".", "it holds runs. Name one: run"),
    ):
        for command in ([*RESUME, folder], ["train", "ppo", *RESUME[1:], folder]):
            assert message in refused(command, capsys)
    for folder, message in (
        ("run/config.json", "it is a file. Name the folder"),
        (".", "it holds runs. Name one: run"),
    ):
        for command in (["evaluate", folder], ["serve", folder, "--engine", "serial"]):
            assert message in refused(command, capsys)
    for folder in ("policy", "copy", "run/checkpoints/000000000128"):
        assert main(["evaluate", folder, "--episodes", "1"]) == 0


def test_a_training_that_diverges_is_one_line_and_the_last_checkpoint_stays(capsys):
    arguments = ["--engine", "serial", *SMALL, "--total-timesteps", "9999", "--run-dir", "run"]
    assert main(["train", "ppo", "cli_envs:Lavish", *arguments]) == 1
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("error: training diverged: the loss is not finite in iteration 2. ")
    assert "The largest reward is 1e+20, the largest advantage" in errors
    (saved,) = list_checkpoints("run")
    assert saved.name == "000000000128"
    assert np.isfinite(read_policy(saved).weights).all()


def tamper(run, **changed):
    """Write other entries into the description of the environment, with the right checksums."""
    checkpoint = list_checkpoints(run)[-1]
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir() if path.name != SUMS}
    for name, key in (("policy.json", "env"), ("training.json", "environment")):
        document = json.loads(files[name])
        document[key] |= changed
        files[name] = json.dumps(document).encode()
    for name, content in with_sums(files).items():
        (checkpoint / name).write_bytes(content)


@pytest.mark.parametrize(
    ("python", "message"),
    [
        ("subprocess:Popen", "not a class that can be imported here"),
        ("run.evil:World", "which lies in 'run' itself"),
        ("evil:World", "needs the module 'evil'"),
    ],
)
def test_a_run_folder_cannot_have_anything_run(run, python, message, capsys, monkeypatch):
    source = "from cli_envs import Tiny as World\nraise AssertionError"
    (run / "evil.py").write_text(source)
    monkeypatch.chdir(run if python == "evil:World" else run.parent)
    folder = "." if python == "evil:World" else "run"
    kwargs = {"args": "touch done", "shell": True}
    tamper(folder, id=python, entry={"python": python}, kwargs=kwargs if "Popen" in python else {})
    for command in (["evaluate", folder], [*RESUME, folder, "--total-timesteps", "999"]):
        assert message in refused(command, capsys)
    assert not Path("done").exists()
    assert "evil" not in sys.modules


@pytest.mark.slow
def test_a_registered_environment_is_found_again_by_its_module(tmp_path):
    shutil.copy(Path(__file__).with_name("cli_envs.py"), "worlds.py")
    Path("catalogue.py").write_text(
        "import gymnasium\nfrom worlds import Tiny\n"
        "gymnasium.register('Shop/Tiny-v0', entry_point=lambda: Tiny(3), max_episode_steps=9)\n"
    )
    shoal = [sys.executable, "-m", "shoal.cli.main"]
    steps = [
        ["train", "ppo", "catalogue:Shop/Tiny-v0", "--engine", "serial", *SMALL, "--total-timesteps", "128"],
        ["evaluate", "run", "--episodes", "2", "--json"],
        [*RESUME, "run", "--total-timesteps", "256"],
        ["train", "ppo", "catalogue:Shop/Tiny-v0", *RESUME[1:], "run", "--total-timesteps", "384"],
    ]
    steps[0] += ["--run-dir", "run"]
    for step in steps:
        done = subprocess.run([*shoal, *step], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (step, done.stderr)
    assert json.loads(Path("run/result.json").read_text())["timesteps"] == 384


def test_a_script_can_be_named_instead(run, capsys):
    tamper(run, entry={"python": "__main__:Cart"}, script="train.py")
    config = json.loads((run / "config.json").read_text())
    config["environment"]["entry"] = {"python": "__main__:Cart"}
    (run / "config.json").write_text(json.dumps(config))
    Path("train.py").write_text("from gymnasium.envs.classic_control import CartPoleEnv as Cart\n")
    for command in (["evaluate", "run"], [*RESUME, "run", "--total-timesteps", "512"]):
        assert "on the command line, name it train:Cart (" in refused(command, capsys)
    assert main(["evaluate", "run", "--env", "train:Cart", "--episodes", "1"]) == 0
    assert main(["train", "ppo", "train:Cart", *RESUME[1:], "run", "--total-timesteps", "512"]) == 0
    assert json.loads((run / "config.json").read_text())["environment"]["max_episode_steps"] == 500


def test_a_solved_run_is_not_trained_on(capsys):
    always = ["--stop-return", "0", "--n-envs", "8"]
    arguments = ["--engine", "serial", *SMALL, *always, "--total-timesteps", "9999", "--run-dir", "run"]
    assert main(["train", "ppo", "cli_envs:Tiny", *arguments]) == 0
    result = json.loads(Path("run/result.json").read_text())
    assert result["solved"] is True
    assert result["timesteps"] < 9999
    before = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}
    for more in ([], ["--total-timesteps", "99999"], ["--total-timesteps", "1"]):
        capsys.readouterr()
        assert main([*RESUME, "run", "--json", *more]) == 0
        output = capsys.readouterr()
        assert json.loads(output.out) == result
        assert f"solved at {result['timesteps']:,} steps, nothing is left to do" in output.err
    assert {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")} == before
    Path("run/result.json").unlink()  # as if it had been killed after the last checkpoint
    assert main([*RESUME, "run"]) == 0
    assert json.loads(Path("run/result.json").read_text())["weights_sha256"] == result["weights_sha256"]
    assert len(Path("run/metrics.jsonl").read_text().splitlines()) == result["iterations"]
    assert main([*RESUME, "run", "--stop-return", "99", "--total-timesteps", "2048"]) == 0
    assert json.loads(Path("run/result.json").read_text())["timesteps"] >= 2048


INTERRUPTED = """
import os, signal, sys
from shoal.cli.main import main
from shoal.rl import Callback, RunFolder
from shoal.rl.callbacks import progress
from shoal.rl.runs import checkpoint

presses = int(sys.argv.pop(1))

class Interrupts(progress.ProgressDisplay):
    def on_iteration_end(self, training, report):
        if training.iteration == 2 and presses:
            signal.raise_signal(signal.SIGINT)
        if training.iteration == 2:
            raise RuntimeError("of its own")

def slow_write(folder, files, write=checkpoint.write_summed):
    for _ in range(presses - 1 if presses else 1):
        signal.raise_signal(signal.SIGINT)
    write(folder, files)

import shoal.cli.train
shoal.cli.train.ProgressDisplay = Interrupts
checkpoint.write_summed = slow_write
sys.exit(main(sys.argv[1:]))
"""


def press():
    signal.raise_signal(signal.SIGINT)


def test_a_later_ctrl_c_ends_at_once_only_if_nothing_is_lost(monkeypatch, capfd):
    ended = []
    monkeypatch.setattr(signals, "_quit", lambda *_: ended.append(True))
    with signals.stop_as_interrupt() as stop:
        with pytest.raises(KeyboardInterrupt):
            press()
        press()
        assert len(ended) == 1, "nothing is at risk"
        stop.at_risk = lambda: "3 steps"
        press()
        assert capfd.readouterr().err == "still saving; once more ends at once, and 3 steps are lost\n"
        assert len(ended) == 1
        press()
        assert capfd.readouterr().err == "ended before the checkpoint was written: 3 steps are lost\n"
        assert len(ended) == 2
    with signals.stop_as_interrupt() as stop:
        stop.finish()
        stop.at_risk = lambda: "3 steps"
        press()
        assert "still saving" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("presses", [2, 3, 0])
def test_ctrl_c_while_saving_says_what_the_next_one_loses(presses):
    """Two: the first ends the training. Three: the last ends the saving, too. None: one comes after an error."""
    arguments = [*TRAIN, "--total-timesteps", "9999", "--run-dir", "run"]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(presses), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == (130 if presses else 1), done.stderr
    assert "still saving; once more ends at once, and the 256 steps since the last checkpoint are lost" in done.stderr
    if presses == 3:
        assert done.stderr.endswith(
            "ended before the checkpoint was written: the 256 steps since the last checkpoint are lost\n"
        )
        assert not list_checkpoints("run")
    else:
        assert "continue with: shoal train --resume run" in done.stderr
        assert [path.name for path in list_checkpoints("run")] == ["000000000256"]
