"""Every command and snippet of the README, executed."""

import json
import os
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
SNIPPETS = [text for kind, text in BLOCKS if kind == "python"]
COMMANDS = [
    shlex.split(line, comments=True) for kind, text in BLOCKS if kind == "sh" for line in text.splitlines() if line
]
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def run(command, folder, timeout=300):
    done = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def command(*beginning):
    """Return the README's command that begins like this."""
    [found] = [words for words in COMMANDS if tuple(words[: len(beginning)]) == beginning]
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder where `make train`'s training command was run."""
    folder = tmp_path_factory.mktemp("readme")
    recipe = re.search(
        r"^\t\$\(BIN\)/(shoal train .*?[^\\])$", (ROOT / "Makefile").read_text(), flags=re.DOTALL | re.MULTILINE
    )
    assert recipe is not None
    run(shlex.split(recipe[1].replace("\\\n", "")), folder)
    return folder


def test_all_blocks_are_tested_here():
    assert [words[0] for words in COMMANDS] == ["make", "make", "shoal", "shoal", "shoal", "curl"]
    assert len(SNIPPETS) == 2


def test_numbers_are_those_of_committed_rows():
    table = {}
    for line in (ROOT / "benchmarks/rl/rows/table.md").read_text().splitlines():
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        if len(cells) == 3 and cells[2].replace(".", "").isdigit():
            table[name.replace(" against sb3", "")] = [float(cell.replace(" ", "")) for cell in cells]
    rate, cpu = "steps/s", "steps per processor second"
    trained = {name: table[f"{name}, shoal, {rate}"] for name in ("ppo-cartpole", "ppo-cheetah", "sac-pendulum")}
    [sampled] = json.loads((ROOT / "benchmarks/language/rows/generation.json").read_text())
    tokens = sampled["tokens_per_cpu_second"]
    told = {
        "PPO solves CartPole-v1": table["solve CartPole-v1, process start included, s"],
        "PPO on CartPole-v1": [*trained["ppo-cartpole"], table[f"ppo-cartpole, shoal, {cpu}"][2]],
        "with gymnasium's vector version": table[f"ppo-cartpole, shoal-vector, {rate}"][::2],
        "PPO on HalfCheetah-v5": [*trained["ppo-cheetah"], table[f"ppo-cheetah, shoal, {cpu}"][2]],
        "SAC on Pendulum-v1": trained["sac-pendulum"],
        "DQN on CartPole-v1": table[f"dqn-cartpole, shoal, {rate}"],
        "sampling from": [tokens["groups"], tokens["transformers"], sampled["times_transformers"]["groups"]],
        "start the runtime": [value / 1e3 for value in measured_of_the_runtime("init_ms")],
        "new actor": measured_of_the_runtime("actor_ms"),
        "actor call, synchronous": measured_of_the_runtime("call_us"),
        "task, synchronous": measured_of_the_runtime("task_us")[::2],
        "actor calls, pipelined": measured_of_the_runtime("calls_per_s"),
        "tasks, pipelined": measured_of_the_runtime("tasks_per_s"),
        "`put` of 100 MB": measured_of_the_runtime("put_100mb_gb_s"),
    }
    for name, values in told.items():
        [line] = [
            line for line in README.splitlines() if line.startswith("|") and name in line and "steps in" not in line
        ]
        for value in values:
            assert any(_says(text, value) for text in re.findall(r"\d[\d ]*\d(?:\.\d+)?|\d(?:\.\d+)?", line)), (
                name,
                value,
            )


def measured_of_the_runtime(name):
    """Return the medians of the rivals that were measured in that."""
    rows = [json.loads(line) for line in (ROOT / "benchmarks/rows/runtime_latency.jsonl").read_text().splitlines()]
    rivals = dict.fromkeys(row["rival"] for row in rows)
    values = ([row[name] for row in rows if row["rival"] == rival and name in row] for rival in rivals)
    return [statistics.median(each) for each in values if each]


def _says(text, value):
    """Whether a number is another one, rounded to so many digits."""
    whole, dot, part = text.replace(" ", "").partition(".")
    digits = len((whole + part).lstrip("0")) if dot else len(whole.rstrip("0"))
    return float(f"{value:.{digits}g}") == float(text.replace(" ", "")) if digits else False


def test_make_targets_exist():
    for words in COMMANDS[:2]:
        assert re.search(rf"^{words[1]}: setup", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_runtime_snippet(tmp_path):
    (tmp_path / "snippet.py").write_text(SNIPPETS[1])
    assert "[0, 1, 5, 14]" in run([sys.executable, "snippet.py"], tmp_path)


@pytest.mark.slow
def test_learning_snippet(tmp_path):
    (tmp_path / "snippet.py").write_text(SNIPPETS[0])
    assert "solved=True" in run([sys.executable, "snippet.py"], tmp_path)


@pytest.mark.slow
def test_training_writes_what_the_readme_promises(trained):
    run_folder = trained / "runs" / "cartpole"
    assert json.loads((run_folder / "result.json").read_text())["solved"] is True
    for name in ("config.json", "metrics.jsonl", "learning_curve.png", "checkpoints"):
        assert (run_folder / name).exists()
    assert list(run_folder.glob("events.out.tfevents.*"))


@pytest.mark.slow
def test_evaluate_command(trained):
    output = run([*command("shoal", "evaluate"), "--json"], trained)
    assert json.loads(output)["episode_return_mean"] >= 475


@pytest.mark.slow
def test_serve_command_and_curl(trained):
    words = command("shoal", "serve")
    address = words[words.index("--http") + 1]
    server = subprocess.Popen(words, cwd=trained, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://{address}/health", timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "the server did not come up"
                assert server.poll() is None, "the server has ended"
                os.sched_yield()
        curl = command("curl")
        if shutil.which("curl"):
            answer = json.loads(run(curl, trained))
        else:
            with urllib.request.urlopen(f"http://{curl[2]}", data=curl[-1].encode(), timeout=30) as reply:
                answer = json.load(reply)
        assert answer["action"] in (0, 1)
        assert "version" in answer
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_pendulum_command(trained):
    run(command("shoal", "train"), trained, timeout=600)
    result = json.loads((trained / "runs" / "pendulum" / "result.json").read_text())
    assert result["episode_return_mean"] > -250
