"""`shoal envs` and `shoal check`."""

import json
from pathlib import Path

from shoal.cli.main import main


def test_envs_lists_what_can_be_made(capsys):
    assert main(["envs", "cartpole", "--format", "json"]) == 0
    found = {listed["id"]: listed for listed in json.loads(capsys.readouterr().out)}
    assert found["CartPole-v1"] == {"id": "CartPole-v1", "source": "classic_control", "needs": "", "agents": ""}
    assert main(["envs", "MountainCar"]) == 0
    assert "MountainCarContinuous-v0  classic_control" in capsys.readouterr().out


def test_check_says_what_it_found(capsys):
    assert main(["check", "Pendulum-v1", "--env-kwargs", '{"g": 9.0}']) == 0
    output = capsys.readouterr().out
    assert "Pendulum-v1 keeps the contract" in output
    assert "truncated after 200 steps" in output


def test_environments_of_several_agents_are_listed_and_checked(capsys):
    assert main(["envs", "_v", "--format", "json"]) == 0
    found = {listed["id"]: listed for listed in json.loads(capsys.readouterr().out)}
    assert found["classic/tictactoe_v3"] | {"needs": ""} == {
        "id": "classic/tictactoe_v3", "source": "pettingzoo", "needs": "", "agents": "in turns"
    }  # fmt: skip
    assert found["sisl/pursuit_v5"]["agents"] == "together"
    assert main(["check", "agents_envs:Crowd"]) == 0
    output = capsys.readouterr().out
    assert "agents        3, which act together\na, b, c:\nobservations  Box(3,) float32 in [0, 12]" in output
    assert main(["check", "agents_envs.py:Rounds"]) == 0
    assert "agents        3, which act in turns" in capsys.readouterr().out


def test_check_of_a_file_that_breaks_the_contract(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("broken_walls.py").write_text(
        "import gymnasium, numpy as np\n"
        "class Broken(gymnasium.Env):\n"
        "    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)\n"
        "    action_space = gymnasium.spaces.Discrete(2)\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        super().reset(seed=seed)\n"
        "        return np.full(2, 3, np.float32), {}\n"
    )
    assert main(["check", "broken_walls.py:Broken"]) == 2
    assert "broken_walls:Broken" in (told := capsys.readouterr().err)
    assert "[-1" in told
