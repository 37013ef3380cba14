"""Each example is short, says how it is run, and runs."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from shoal import runtime

EXAMPLES = Path(__file__).parents[2] / "examples"

#: Example → arguments that make it short, and what it must print.
RUNS = {
    "hello_runtime.py": ([], ["pi is about 3.1", "totals: [1000000.0, 1000000.0, 1000000.0]", "AttributeError: 'str'"]),
    "train_ppo_cartpole.py": (["--total-timesteps", "2000"], ["solved: False", "greedy: ", "weights "]),
    "custom_env.py": (["--total-timesteps", "2000"], ["mean return "]),
    "external_simulator.py": (
        ["--total-timesteps", "1000"],
        ["timesteps=", "the simulator ends"],
    ),
    "train_from_dataset.py": ([], ["after batch 400", "the same weights: True"]),
    "fit_digits.py": (["--steps", "200"], ["held out: {'accuracy': 0.9", "the same weights: True"]),
    "fit_table.py": (
        ["--rounds", "5"],
        ["XGBoost, held out: {'rmse': ", "network, held out: {'rmse': ", "'district'"],
    ),
    "serve_policy.py": (
        ["--total-timesteps", "2000", "--replicas", "1"],
        ["one observation: ", "over HTTP: {'action': ", "'status': 'ok'"],
    ),
}


def test_every_example_is_run():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_it_is_short_and_says_how_it_is_run(name):
    text = (EXAMPLES / name).read_text()
    assert len(text.splitlines()) < 60
    assert f"python examples/{name}" in text.split('"""')[1]


@pytest.mark.parametrize("name", sorted(set(RUNS) - {"external_simulator.py", "fit_digits.py"}))  # which take long
def test_it_runs(name, tmp_path, monkeypatch, capsys):
    arguments, wanted = RUNS[name]
    runtime.init(engine="serial")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    output = capsys.readouterr().out
    for text in wanted:
        assert text in output


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_it_runs_as_a_user_runs_it(name, tmp_path):
    arguments, wanted = RUNS[name]
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    for text in wanted:
        assert text in done.stdout
