"""What the commands do when all is well, and when something else goes wrong."""

import io
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from conftest import wait_until

from shoal.cli.failures import _OWN_FOLDERS, describe_failure
from shoal.cli.main import main
from shoal.envs import EnvTimeoutError
from shoal.rl import Algorithm, RunFolderError
from shoal.runtime import ActorUnavailableError, exceptions

SMALL = ["--n-envs", "2", "--n-steps", "64", "--batch-size", "64", "--n-epochs", "1", "--preset", "none"]


@pytest.fixture(params=["serial", pytest.param("native", marks=pytest.mark.slow)])
def engine(request):
    return request.param


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def train(env, *flags, engine="serial", steps=256):
    return main(["train", "ppo", env, "--engine", engine, "--total-timesteps", str(steps), *SMALL, *flags])


def shoal(*arguments, **options):
    """Start the command as a process of its own."""
    command = [sys.executable, "-m", "shoal", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_train_prints_one_line_of_json(engine, capsys):
    assert train("CartPole-v1", "--run-dir", "run", "--json", "--workers", "2", engine=engine) == 0
    output = capsys.readouterr()
    result = json.loads(output.out)
    assert output.out.count("\n") == 1
    assert result == json.loads(Path("run/result.json").read_text())
    wanted = "algorithm env seed workers timesteps episode_return_mean solved wall_seconds total_seconds weights_sha256"
    assert set(wanted.split()) <= set(result)
    assert (result["env"], result["workers"], result["timesteps"]) == ("CartPole-v1", 2, 256)
    assert "run folder: run" in output.err
    config = json.loads(Path("run/config.json").read_text())
    assert config["run"]["n_envs"] == 2
    assert config["hyperparameters"]["n_steps"] == 64
    assert config["preset"] == {}


def test_the_default_run_folder_is_new_and_told(capsys):
    for number in (1, 2):
        assert train("CartPole-v1") == 0
        assert f"run folder: runs/ppo-CartPole-v1-{number}" in capsys.readouterr().err
        assert Path(f"runs/ppo-CartPole-v1-{number}/result.json").exists()


def test_a_preset_is_told_and_overridden_by_flags(capsys):
    command = ["train", "ppo", "CartPole-v1", "--engine", "serial", "--total-timesteps", "10", "--n-steps", "32"]
    assert main([*command, "--run-dir", "run"]) == 0
    told = capsys.readouterr().err
    assert "preset for CartPole-v1: n_envs=32" in told
    assert "n_steps" not in told
    config = json.loads(Path("run/config.json").read_text())
    assert config["hyperparameters"]["n_steps"] == 32
    assert config["run"]["n_envs"] == 32


def test_a_default_that_follows_from_another_setting_is_told_and_written(capsys):
    command = ["train", "ppo", "cli_envs:Tiny", "--engine", "serial", "--total-timesteps", "10", "--n-epochs", "1"]
    assert main([*command, "--n-envs", "4", "--run-dir", "run"]) == 0
    assert "default for 4 environments: n_steps=512 (2048 / n_envs)" in capsys.readouterr().err
    config = json.loads(Path("run/config.json").read_text())
    assert config["hyperparameters"]["n_steps"] == 512
    assert main(["train", "ppo", "--help"]) == 0
    assert "(default: 2048 / n_envs)" in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_overwrite(capsys):
    assert train("CartPole-v1", "--run-dir", "run") == 0
    assert train("CartPole-v1", "--run-dir", "run") == 2
    assert train("CartPole-v1", "--run-dir", "run", "--overwrite", "--seed", "5") == 0
    assert json.loads(Path("run/result.json").read_text())["seed"] == 5


def test_resume_is_as_if_it_had_not_stopped(engine, capsys):
    assert train("CartPole-v1", "--run-dir", "whole", steps=512, engine=engine) == 0
    assert train("CartPole-v1", "--run-dir", "parts", steps=256, engine=engine) == 0
    resume = ["train", "--resume", "parts", "--engine", engine, "--total-timesteps", "512", "--workers", "2"]
    assert main(resume) == 0
    whole, parts = (json.loads(Path(name, "result.json").read_text()) for name in ("whole", "parts"))
    assert parts["timesteps"] == 512
    assert parts["weights_sha256"] == whole["weights_sha256"]
    lines = Path("parts/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["timesteps"] for line in lines] == [128, 256, 384, 512]


def test_an_environment_of_the_current_folder(engine, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    source = (Path(__file__).parent / "cli_envs.py").read_text()
    (tmp_path / "own_envs.py").write_text(source)
    code = train("own_envs:Tiny", "--env-kwargs", '{"length": 3}', "--run-dir", "run", "--workers", "2", engine=engine)
    assert code == 0, capsys.readouterr().err
    assert json.loads(Path("run/metrics.jsonl").read_text().splitlines()[0])["episode_lengths"][0] == 3
    assert main(["evaluate", "run", "--episodes", "2", "--json"]) == 0
    assert main(["train", "--resume", "run", "--engine", engine, "--total-timesteps", "512"]) == 0
    sys.path.remove(str(tmp_path))  # a command of its own has not looked there before
    assert main(["verify", "run", "--from-beginning", "--engine", engine]) == 0, capsys.readouterr().err


@pytest.mark.slow
def test_a_network_of_the_current_folder(engine, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    source = (Path(__file__).parents[1] / "rl" / "own_networks.py").read_text()
    (tmp_path / "networks_here.py").write_text(source)
    kwargs = '{"encoder": "networks_here:Halves", "encoder_kwargs": {"width": 4}}'
    assert train("CartPole-v1", "--policy-kwargs", kwargs, "--run-dir", "run", engine=engine) == 0
    assert main(["train", "--resume", "run", "--engine", engine, "--total-timesteps", "512"]) == 0
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    assert main(["evaluate", "run", "--episodes", "2", "--json"]) == 0
    wrong = kwargs.replace("Halves", "Halfs")
    assert train("CartPole-v1", "--policy-kwargs", wrong, "--run-dir", "other") == 2
    assert "has no 'Halfs'. Did you mean 'Halves'?" in capsys.readouterr().err
    assert not Path("other").exists()


def test_with_json_what_an_environment_prints_goes_to_standard_error(engine, capfd):
    assert train("cli_envs:Talking", "--run-dir", "run", "--json", steps=128, engine=engine) == 0
    output = capfd.readouterr()
    assert json.loads(output.out)["env"] == "cli_envs:Talking"
    assert "hello from the environment" in output.err


def test_an_exception_in_the_environment(engine, capsys):
    assert train("cli_envs:Failing", "--run-dir", "run", engine=engine, steps=5000) == 1
    message = capsys.readouterr().err
    assert "error: cli_envs.OutOfFuelError: the tank is empty   (in ColocatedActor.update" in message
    assert message.count('  File "') == 1, "the user's frames alone"
    assert "environment 'cli_envs:Failing', index" in message
    assert "cli_envs.py" in message
    assert 'raise OutOfFuelError("the tank is empty")' in message
    assert "cli/main.py" not in message
    assert "continue with: shoal train --resume run" in message
    assert not Path("run/result.json").exists()
    saved = int(max(path.name for path in Path("run/checkpoints").iterdir()))
    assert saved >= 128


def test_a_process_that_died_is_told_by_its_report_alone():
    error = ActorUnavailableError("the actor crashed: exit code 3")
    error.add_note("A worker died 11 times")
    assert describe_failure(error) == "error: the actor crashed: exit code 3\nA worker died 11 times"


@pytest.mark.parametrize("kind", [EnvTimeoutError, RunFolderError])
def test_what_was_made_to_be_told_has_no_traceback(kind):
    error = kind("step had not returned after 1 s")
    error.add_note("in step of environment 'Mine', index 0")
    assert describe_failure(error) == f"error: {error}\nin step of environment 'Mine', index 0"
    assert "InternalError: a bug" in describe_failure(exceptions.InternalError("a bug"))


def test_an_exception_that_the_check_meets(capsys, tmp_path):
    (tmp_path / "tankless.py").write_text(
        "from cli_envs import Tiny\nclass Dry(Tiny):\n    def step(self, action):\n        return self.tank\n"
    )
    assert train("tankless:Dry") == 1
    message = capsys.readouterr().err
    assert message.startswith("error: AttributeError: 'Dry' object has no attribute 'tank'\n\nTraceback")
    assert message.count('  File "') == 1, "the user's frames alone"
    assert "in step of environment 'tankless:Dry'" in message


def test_a_module_that_imports_one_which_cannot_be_compiled(capsys, tmp_path):
    (tmp_path / "imports_unfinished.py").write_text("import unfinished\n")
    (tmp_path / "unfinished.py").write_text("def step(self:\n")
    assert train("imports_unfinished:Env") == 1
    message = capsys.readouterr().err
    assert message.startswith("error: SyntaxError: '(' was never closed\n\nTraceback")
    assert f'  File "{tmp_path}/unfinished.py", line 1' in message


def test_frames_of_every_layer_are_our_own():
    assert {Path(folder).name for folder in _OWN_FOLDERS} == {
        entry.name for entry in Path(__file__).parents[2].joinpath("src", "shoal").iterdir() if entry.is_symlink()
    }


def test_stopping_before_the_first_iteration(monkeypatch, capsys):
    def interrupted(self, *_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Algorithm, "train", interrupted)
    assert train("CartPole-v1", "--run-dir", "run") == 130
    assert "nothing new to save" in capsys.readouterr().err
    assert not Path("run").exists()


def test_evaluate(capsys):
    assert train("CartPole-v1", "--run-dir", "run") == 0
    capsys.readouterr()
    answers = []
    for flags in ([], [], ["--seed", "1"], ["--stochastic"]):
        assert main(["evaluate", "run", "--episodes", "3", "--json", *flags]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0]["episodes"] == 3
    assert answers[0]["episode_return_mean"] >= 8
    assert answers[0]["episode_return_std"] >= 0
    assert answers[0] == answers[1]
    assert main(["evaluate", "run", "--episodes", "2"]) == 0
    assert "CartPole-v1: mean return" in capsys.readouterr().out


def read_until(stream, text):
    """Read lines until one holds `text`; return them all."""
    lines = []
    for line in stream:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"{text!r} never came:\n{''.join(lines)}")


def trains(process, run="run"):
    """Return once a process has finished an iteration."""
    metrics = Path(run, "metrics.jsonl")
    wait_until(lambda: process.poll() is not None or (metrics.exists() and metrics.stat().st_size), 60)
    assert process.poll() is None, process.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_stopping_a_training(number, engine):
    flags = ["--engine", engine, "--total-timesteps", "100000000", "--run-dir", "run"]
    process = shoal("train", "ppo", "CartPole-v1", *flags)
    trains(process)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "continue with: shoal train --resume run" in errors
    assert output == ""
    assert not Path("run/result.json").exists()
    assert list(Path("run/checkpoints").glob("[0-9]*"))
    saved = int(next(Path("run/checkpoints").iterdir()).name)

    assert main(["train", "--resume", "run", "--engine", engine, "--total-timesteps", str(saved + 1)]) == 0
    assert json.loads(Path("run/result.json").read_text())["timesteps"] > saved


def test_ctrl_c_while_the_command_is_imported_prints_no_traceback():
    program = """
import os, signal, sys
class Impatient:
    def find_spec(self, name, *more):
        if name == "shoal.cli.main":
            os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Impatient())
from shoal.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


@pytest.mark.slow
def test_a_second_stop_quits_at_once():
    process = shoal("train", "ppo", "CartPole-v1", "--engine", "serial", "--total-timesteps", "100000000")
    with process:
        read_until(process.stderr, "steps/s")
        for _ in range(20):
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_serve_until_it_is_stopped(number, engine, capsys):
    assert train("CartPole-v1", "--run-dir", "run") == 0
    Path("token").write_text("secret\n")
    process = shoal(
        *("serve", "run", "--engine", engine, "--replicas", "2", "--http", "127.0.0.1:0", "--token-file", "token")
    )
    line = read_until(process.stderr, "http://")[-1]
    url = next(word for word in line.split() if word.startswith("http://"))
    body = json.dumps({"observation": [0, 0, 0, 0]}).encode()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{url}/act", body)
    request = urllib.request.Request(f"{url}/act", body, {"Authorization": "Bearer secret"})
    with urllib.request.urlopen(request) as reply:
        answer = json.load(reply)
    assert answer["action"] in (0, 1)
    assert answer["version"] == 2
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["--help"], ["shoal COMMAND", "train", "evaluate", "serve"]),
        (["train", "--help"], ["shoal train ALGORITHM", "Algorithms: ppo", "--workers", "--resume"]),
        (
            ["train", "ppo", "--help"],
            ["--n-steps", "--learning-rate", "--gae-lambda", "--workers", "--json", "Discount"],
        ),
        (["evaluate", "--help"], ["--episodes"]),
        (["serve", "--help"], ["--replicas", "--http", "--token-file"]),
        (["--version"], ["shoal 0."]),
    ],
)
def test_help(arguments, texts, capsys):
    assert main(arguments) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for text in texts:
        assert text in shown


def test_every_setting_is_a_flag_with_help():
    from shoal.algorithms import ALGORITHMS
    from shoal.cli.flags import field_help
    from shoal.cli.train import TrainFlags
    from shoal.rl import RunSettings

    for cls in (TrainFlags, RunSettings, *(algorithm.config_class for algorithm in ALGORITHMS.values())):
        helps = field_help(cls)
        assert set(helps) >= set(cls.__dataclass_fields__), cls
        assert all(text.endswith(".") for text in helps.values()), cls


def test_no_arguments(capsys):
    assert main([]) == 2
    assert "usage" in capsys.readouterr().out


def test_output_without_unicode(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert main(["check", "CartPole-v1"]) == 0
    assert b"\\u2026" in raw.getvalue()


def shoal_into_a_closed_pipe(*arguments, closed):
    """Run the command with a standard stream that nobody reads; return the exit code and what it said elsewhere."""
    reading, writing = os.pipe()
    os.close(reading)
    other = "stderr" if closed == "stdout" else "stdout"
    command = [sys.executable, "-m", "shoal", *arguments]
    with subprocess.Popen(command, text=True, **{closed: writing, other: subprocess.PIPE}) as process:
        os.close(writing)
        told = (process.stderr or process.stdout).read()
    return process.returncode, told


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        *(pytest.param(words.split(), marks=pytest.mark.slow) for words in ("train ppo --help", "evaluate run")),
    ],
)
def test_nobody_reads_standard_output(arguments):
    if "run" in arguments:
        assert train("CartPole-v1", "--run-dir", "run", steps=128) == 0
    code, told = shoal_into_a_closed_pipe(*arguments, closed="stdout")
    assert (code, told) == (141, "")


@pytest.mark.slow
def test_nobody_reads_what_a_training_tells():
    process = shoal("train", "ppo", "CartPole-v1", "--engine", "serial", "--total-timesteps", "1e8", "--run-dir", "run")
    with process:
        read_until(process.stderr, "steps/s")
        process.stderr.close()
        assert process.wait(60) == 141
    saved = int(next(Path("run/checkpoints").iterdir()).name)
    assert saved >= 2048
    assert not Path("run/result.json").exists()


def test_an_error_that_nobody_reads():
    assert shoal_into_a_closed_pipe("evaluat", closed="stderr") == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_standard_output():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "shoal.cli.main", "--help"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: the output cannot be written: No space left on device\n")
