"""Self-play against snapshots: ratings by hand, and who learns from what."""

import json

import numpy as np
import pytest
from agents_envs import Crowd, Rounds
from by_hand import joint_worker

from shoal import DQN, PPO, evaluate, runtime
from shoal.algorithms import PPOConfig
from shoal.envs import Episode
from shoal.rl import Callback, Clock
from shoal.rl.collect.worker import GroupProgress
from shoal.rl.evaluation.match import Match
from shoal.rl.league import League, expected_score, score_of
from shoal.rl.models.joint_model import JointModel
from shoal.runtime import InputError

SETTINGS = {"preset": "none", "n_envs": 6, "group_size": 3, "seed": 5, "n_steps": 14, "batch_size": 32, "n_epochs": 1,
            "league_freq": 100, "league_size": 2}  # fmt: skip


@pytest.fixture(autouse=True)
def _serial():
    runtime.shutdown()
    runtime.init(engine="serial")


def game(opponent, earned, seat="a"):
    agents = dict(zip("abc", earned, strict=False))
    return Episode(0, 0, sum(earned), 9, 1, 9, agents=agents, opponent=opponent, seat=seat)


def test_who_has_won():
    assert score_of(game("x", (1, -1))) == 1
    assert score_of(game("x", (1, -1), seat="b")) == 0
    assert score_of(game("x", (0, 0))) == 0.5
    assert score_of(game("x", (2, 1, 3))) == 0.5  # as much as the others on average


def test_ratings_by_hand():
    assert expected_score(1200, 1600) == pytest.approx(1 / 11)
    league = League(1300).with_snapshot("old", 100, 1, None)
    league = League(1200, league.opponents, league.weights)
    expected = 1 / (1 + 10 ** (100 / 400))
    won = league.after([game("old", (1, -1)), game("", (1, -1)), game("unknown", (1, -1))])
    assert won.rating == pytest.approx(1200 + 16 * (1 - expected))
    assert won.opponents[0].rating == pytest.approx(1300 - 16 * (1 - expected))
    assert (won.opponents[0].games, won.opponents[0].won, won.opponents[0].drawn) == (1, 0, 0)
    drawn = won.after([game("old", (0, 0))])
    again = 1 / (1 + 10 ** ((won.opponents[0].rating - won.rating) / 400))
    assert drawn.rating == pytest.approx(won.rating + 16 * (0.5 - again))
    assert drawn.rating + drawn.opponents[0].rating == pytest.approx(2500)  # what one wins the other loses
    assert League.from_json(json.loads(json.dumps(drawn.to_json())), drawn.weights) == drawn


def test_a_league_never_changes_and_knows_weights_by_their_hash():
    empty = League()
    one = empty.with_snapshot("x", 100, 1, "weights")
    assert one.with_snapshot("x", 200, 2, "others") is one
    assert empty.opponents == ()
    assert one.meeting(0, 0, 0, latest=0.0, size=5).weights == "weights"
    assert one.meeting(0, 0, 0, latest=1.0, size=5) is None
    many = one
    for index in range(6):
        many = many.with_snapshot(f"y{index}", index, index, index)
    met = [many.meeting(3, group, rollout, latest=0.5, size=2) for group in range(20) for rollout in range(20)]
    names = [None if meeting is None else meeting.sha256 for meeting in met]
    assert {name: round(names.count(name) / 400, 1) for name in set(names)} == {None: 0.5, "y4": 0.3, "y5": 0.2}


class Told(Callback):
    def __init__(self):
        self.reports = []

    def on_iteration_end(self, training, report):
        self.reports.append(report)


@pytest.mark.slow
def test_a_league_grows_is_kept_and_goes_on(tmp_path):
    told = Told()
    with PPO(Rounds, **SETTINGS) as ppo:
        ppo.train(6 * 14 * 5, callbacks=[told])
        ppo.save(tmp_path / "run")
        whole = ppo.train(6 * 14 * 3).weights_sha256
    folders = sorted(folder for folder in (tmp_path / "run" / "league").iterdir() if folder.is_dir())
    table = json.loads((tmp_path / "run" / "league" / "table.json").read_text())["table"]
    assert len(folders) == told.reports[-1].metrics["league/size"] == 5
    assert {entry["policy"] for entry in table} == {"latest", *(folder.name for folder in folders)}
    assert sum(entry.get("games", 0) for entry in table) > 0
    assert [entry["rating"] for entry in table] == sorted((entry["rating"] for entry in table), reverse=True)
    assert evaluate(folders[0], episodes=2).episodes == 2  # a policy as any other
    with PPO.load(tmp_path / "run") as again:
        assert again.train(6 * 14 * 3).weights_sha256 == whole
    (folders[0] / "policy.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"policy\.safetensors"):
        PPO.load(tmp_path / "run").train(84)


def test_against_a_snapshot_one_agent_of_each_environment_learns():
    for env, kwargs in ((Crowd, {"reborn": True}), (Rounds, {})):
        worker, joint = joint_worker(PPO, PPOConfig(n_steps=28), env, 3, env_kwargs=kwargs)
        weights = JointModel(joint).get_weights()
        rollouts, _, stats = worker.collect(
            0, GroupProgress(), weights, 0, Clock(0, 9), opponent="x", opponent_weights=np.zeros_like(weights)
        )
        worker.close()
        acted = (~rollouts["shared"].steps["resets"]).any(0).reshape(3, 3)
        assert acted.tolist() == np.eye(3, dtype=bool).tolist()  # environment e's agent e
        assert [episode.opponent for episode in stats.episodes] == ["x"] * len(stats.episodes)
        assert [episode.seat for episode in stats.episodes[:3]] == ["a", "b", "c"]


def test_what_does_not_play_in_a_league():
    for algorithm, changes, words in [
        (PPO, {"policies": "separate"}, "a league is for one policy that all agents share"),
        (PPO, {"policy_kwargs": {"memory": "lstm"}}, "a policy with a memory does not play in a league"),
        (PPO, {"league_freq": 0}, "league_freq is 0, but must be a whole number of at least 1"),
        (PPO, {"league_latest": 2}, "league_latest is 2, but must be a number of at least 0 and at most 1"),
    ]:
        with pytest.raises(InputError, match=words):
            algorithm(Crowd, **{"league_freq": 100, **changes})
    with pytest.raises(InputError, match="league_freq is 100, but environment 'CartPole-v1' has one agent"):
        PPO("CartPole-v1", league_freq=100)


@pytest.mark.slow
def test_an_off_policy_algorithm_plays_in_a_league():
    with DQN(Rounds, preset="none", n_envs=6, train_freq=7, learning_starts=50, batch_size=8, league_freq=84) as dqn:
        assert dqn.train(420).timesteps == 420


def test_matches_are_counted_from_every_seat():
    with PPO(Rounds, **SETTINGS) as ppo:
        ppo.train(84)
        policy = ppo.policy
    found = evaluate(policy, Rounds, episodes=6, against="random")
    assert found.scores == (1, 0, 1) * 2  # each is paid by its place: b, who dies early, least
    assert found.to_json()["won"] + found.to_json()["drawn"] + found.to_json()["lost"] == 6
    match = Match(policy, None, seed=0)
    assert match.agents == ["a", "b", "c"]
    with (
        PPO("CartPole-v1", preset="none", n_steps=8, batch_size=8) as single,
        pytest.raises(InputError, match="nobody plays against it"),
    ):
        evaluate(single.policy, "CartPole-v1", episodes=1, against="random")
