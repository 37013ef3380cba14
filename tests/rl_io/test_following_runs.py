"""Runs that are executed once more, and runs that are compared with each other."""

import binascii
import json

import pytest
from agents_envs import Crowd
from gymnasium import spaces
from learning_envs import Walk

from shoal import runtime
from shoal.algorithms import ALGORITHMS, PPO
from shoal.cli.main import main
from shoal.envs import episode_seed, resolve
from shoal.rl import RunFolder, difference, replay_episode, verify
from shoal.rl.hashes import Parting, digest_of, parting, weights_are_due
from shoal.runtime import InputError

SMALL = {"n_envs": 4, "group_size": 2, "seed": 1, "preset": "none", "policy_kwargs": {"net_arch": [8]}}
PER_UPDATE = {"n_steps": 8, "batch_size": 16, "n_epochs": 1}
DQN = {"train_freq": 8, "learning_starts": 16, "batch_size": 8, "gradient_steps": 1}
STEPS = 6 * 8 * 4


def train(folder, name="ppo", env=Walk, **changes):
    """A run of 6 iterations, with a checkpoint after each."""
    own = PER_UPDATE if name == "ppo" else DQN
    with (
        RunFolder(folder, checkpoint_seconds=0) as run,
        ALGORITHMS[name](env, **SMALL | own | changes) as algorithm,
    ):
        return algorithm.train(STEPS, callbacks=[run])


@pytest.fixture(autouse=True)
def _serial():
    runtime.init(engine="serial", ignore_reinit_error=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    runtime.init(engine="serial", ignore_reinit_error=True)
    folder = tmp_path_factory.mktemp("runs") / "ppo"
    train(folder)
    return folder


def lines_of(run):
    return [json.loads(line) for line in (run / "hashes.jsonl").read_text().splitlines()]


def test_what_is_noted_of_an_iteration(run):
    lines = lines_of(run)
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["total_timesteps"] for line in lines] == [STEPS] * 6
    names = list(lines[0])
    assert names[3:7] == ["random", "observations", "actions", "rewards"]
    assert names[-1] == "weights"
    assert {"finals", "terminations", "truncations", "log_probs"} < set(names)
    assert lines[-1]["weights"] == json.loads((run / "result.json").read_text())["weights_sha256"]
    for name in names[3:]:
        if name not in ("rewards", "terminations", "truncations"):  # which may well be the same
            assert len({line[name] for line in lines}) == 6


def test_a_window_is_the_same_on_other_workers(run):
    found = verify(PPO, run, workers=2)
    assert found.same
    assert (found.start, found.updates, found.timesteps, found.compared) == (5, 1, 32, 1)
    assert found.saved_sha256 == found.followed_sha256
    whole = verify(PPO, run, from_beginning=True, iterations=99)
    assert whole.same
    assert (whole.start, whole.updates, whole.compared) == (0, 6, 6)
    assert whole.followed_sha256 == found.followed_sha256
    assert verify(PPO, run, from_beginning=True).updates == 4  # where the first checkpoint that is kept stands
    named = verify(PPO, run / "checkpoints" / f"{4 * 32:012d}", iterations=2)
    assert (named.start, named.updates, named.same) == (4, 2, True)
    with pytest.raises(InputError, match="nothing was recorded after it"):
        verify(PPO, run / "checkpoints" / f"{6 * 32:012d}")


def test_what_is_not_the_same_is_named(run, tmp_path, capsys):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("checkpoints", "config.json"):
        (copy / name).symlink_to(run / name)
    lines = lines_of(run)
    lines[4]["actions"] = lines[4]["weights"] = "0"
    (copy / "hashes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = verify(PPO, copy, from_beginning=True, iterations=6)
    assert not found.same
    assert found.parting == Parting(5, ("actions", "weights"))
    runtime.shutdown()
    assert main(["verify", str(copy), "--from-beginning", "--iterations", "4", "--engine", "serial"]) == 0
    assert "the same in 4 iterations from the beginning" in capsys.readouterr().out
    assert main(["verify", str(copy), "--from-beginning", "--iterations", "5", "--engine", "serial"]) == 1
    assert "iteration 5, actions of the rollouts (actions, weights)" in capsys.readouterr().out
    (copy / "hashes.jsonl").unlink()
    assert main(["verify", str(copy), "--engine", "serial"]) == 2
    assert "has recorded no hashes" in capsys.readouterr().err


@pytest.mark.usefixtures("one_cycle_each")
@pytest.mark.parametrize("saved", [True, False])
def test_without_its_replay_buffer_a_run_is_repeated_from_its_beginning(tmp_path, saved):
    train(tmp_path / "run", "dqn", save_replay=saved)
    found = verify(ALGORITHMS["dqn"], tmp_path / "run")
    assert found.same
    assert (found.start, found.updates) == ((5, 1) if saved else (0, 4))
    if not saved:
        with pytest.raises(InputError, match="it does not hold the replay buffer"):
            verify(ALGORITHMS["dqn"], next((tmp_path / "run" / "checkpoints").iterdir()))


@pytest.mark.parametrize(
    ("changes", "setting", "quantity"),
    [
        ({"workers": 2, "check": "warn"}, None, None),
        ({"learning_rate": 0.1}, "hyperparameters.learning_rate", "weights"),
        ({"seed": 2}, "run.seed", "random"),
        ({"env_kwargs": {"noise": 0.5}}, "environment.kwargs.noise", "observations"),
        ({"gae_lambda": 0.5}, "hyperparameters.gae_lambda", "weights"),
    ],
)
def test_two_runs_part_where_something_is_different_first(run, tmp_path, capsys, changes, setting, quantity):
    train(tmp_path / "other", **changes)
    found = difference(run, tmp_path / "other")
    assert list(found.settings) == ([] if setting is None else [setting])
    assert (found.machine, found.iterations) == ({}, (6, 6))
    assert (found.parting and (found.parting.iteration, found.parting.quantities[0])) == (quantity and (1, quantity))
    assert main(["diff", str(run), str(tmp_path / "other")]) == (0 if quantity is None else 1)
    printed = capsys.readouterr().out
    assert (setting or "") in printed
    assert ("the same in all 6 iterations" if quantity is None else "iteration 1: ") in printed


def test_nothing_is_noted_where_it_is_not_wanted(run, tmp_path, capsys):
    result = train(tmp_path / "none", record="none")
    assert not (tmp_path / "none" / "hashes.jsonl").exists()
    assert result.weights_sha256 == lines_of(run)[-1]["weights"]
    assert main(["diff", str(run), str(tmp_path / "none")]) == 2
    assert "none' has recorded no hashes" in capsys.readouterr().err
    assert main(["diff", str(run)]) == 2
    assert "two runs are compared, but 1 are given" in capsys.readouterr().err


def test_lines_of_which_only_one_has_something_are_compared_in_the_rest():
    one = [{"iteration": 1, "a": "x"}, {"iteration": 2, "a": "x", "weights": "w"}, {"iteration": 3, "a": "y"}]
    assert parting(one, one[1:]) is None
    assert parting(one, [{"iteration": 2, "a": "x"}, {"iteration": 3, "a": "z", "b": "c"}]) == Parting(3, ("a",))


def test_large_columns_and_many_weights_are_hashed_in_part():
    import numpy as np

    assert digest_of([np.zeros((0, 2)), np.arange(3)]) == digest_of([np.arange(3)])  # of a rollout without a whole turn
    large = np.zeros((1000, 2000), np.float64)  # 16 MB: every fifth row
    changed = large.copy()
    changed[1] = 1
    assert digest_of([large]) == digest_of([changed])
    changed[5] = 1
    assert digest_of([large]) != digest_of([changed])
    assert digest_of([large[:3]]) != digest_of([changed[:3]])
    assert [weights_are_due(999_999, iteration) for iteration in (1, 2, 3)] == [True, True, True]
    assert [weights_are_due(2_500_000, iteration) for iteration in range(1, 7)] == [False, False, True] * 2


@pytest.mark.parametrize(
    ("settings", "bytes_of_a_step"),
    [
        ({}, 1),
        ({"name": "dqn", "save_replay": True}, 1),
        ({"env": Crowd, "env_kwargs": {}}, 3),
        ({"env_kwargs": {"action_space": spaces.Box(-1, 1, (3,))}, "record": "all"}, 12),
    ],
)
def test_episodes_are_played_once_more(tmp_path, settings, bytes_of_a_step, monkeypatch):
    train(tmp_path / "run", **settings)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    spec = resolve(settings.get("env", Walk), settings.get("env_kwargs"))
    monkeypatch.setattr("shoal.rl.evaluation.replayed_episode.spec_from_json", lambda described, folder: spec)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    returns = [value for row in rows for value in row["episode_returns"]]
    lengths = [value for row in rows for value in row["episode_lengths"]]
    assert len(returns) > 4
    for number in (1, 3, len(returns)):
        found = replay_episode(tmp_path / "run", number)
        assert found.same
        assert (found.steps, found.episode_return) == (lengths[number - 1], returns[number - 1])
        assert found.seed == episode_seed(config["run"]["seed"], found.environment, found.index)
    line = json.loads((tmp_path / "run" / "episodes.jsonl").read_text().splitlines()[2])
    assert len(binascii.a2b_base64(line["actions"])) == bytes_of_a_step * lengths[2]


def test_the_command_films_the_episode_that_it_replays(tmp_path):
    pytest.importorskip("imageio", reason="the extra video is not installed")
    train(tmp_path / "run", env="CartPole-v1")
    runtime.shutdown()
    film = tmp_path / "film.gif"
    assert main(["replay", str(tmp_path / "run"), "--episode", "1", "--video", str(film)]) == 0
    assert film.read_bytes()[:3] == b"GIF"


def test_the_command_replays_and_says_what_is_not_there(tmp_path, capsys):
    train(tmp_path / "run", env="CartPole-v1")
    runtime.shutdown()
    run = str(tmp_path / "run")
    assert main(["replay", run, "--episode", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same"] is True
    lines = [json.loads(line) for line in (tmp_path / "run" / "episodes.jsonl").read_text().splitlines()]
    lines[0]["return"] += 1
    (tmp_path / "run" / "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["replay", run, "--episode", "1"]) == 1
    assert "but in the training return" in capsys.readouterr().out
    assert main(["replay", run, "--episode", "999"]) == 2
    assert f"has recorded {len(lines)} episodes" in capsys.readouterr().err
    assert main(["replay", run, "--episode", "9" * 30]) == 2
    assert "so there is none of number 999" in capsys.readouterr().err
    damaged = [{**lines[0], "actions": "x"}, {name: lines[0][name] for name in ("iteration", "timesteps", "seed")}]
    (tmp_path / "run" / "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in damaged))
    assert main(["replay", run, "--episode", "1"]) == 2
    assert "the actions of the episode in episodes.jsonl are damaged" in capsys.readouterr().err
    assert main(["replay", run, "--episode", "2"]) == 2
    assert (
        "is damaged: environment is missing, index is missing, return is missing, length is missing, actions"
        in capsys.readouterr().err
    )
    (tmp_path / "run" / "episodes.jsonl").unlink()
    assert main(["replay", run, "--episode", "1"]) == 2
    assert "has recorded no actions of episodes: record is 'auto'" in capsys.readouterr().err
