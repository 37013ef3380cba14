"""The same weights for 1, 2, 3 and 8 workers, on either engine, though workers and learners are killed on purpose."""

import json

import pytest
from agents_envs import Crowd
from gymnasium import spaces
from learning_envs import Walk

from shoal import runtime
from shoal.algorithms import ALGORITHMS
from shoal.cli.main import main

COMMON = {"n_envs": 8, "group_size": 1, "seed": 3, "preset": "none", "device": "cpu"}
SMALL = {"net_arch": [8]}
ON_POLICY = {"n_steps": 16, "policy_kwargs": SMALL}
PPO = ON_POLICY | {"batch_size": 32, "n_epochs": 2}
REPLAY = {"train_freq": 8, "learning_starts": 100, "batch_size": 8, "policy_kwargs": SMALL, "gradient_steps": 4}
BOX = {"action_space": spaces.Box(-1, 1, (2,))}
CHAOS = "kill_worker=0.25,kill_learner=0.25,seed=1"
STEPS = 6 * 16 * 8

TEXTS = {
    "n_envs": 16,
    "group_size": 4,
    "samples": 4,
    "batch_size": 8,
    "max_new_tokens": 3,
    "policy_kwargs": {"tokenizer": "characters", "context": 24, "width": 16, "heads": 2, "layers": 1},
}

CASES = {
    "ppo": ("ppo", Walk, {}, PPO),
    "a2c": ("a2c", Walk, {}, ON_POLICY),
    "dqn": ("dqn", Walk, {}, REPLAY | {"prioritized_replay": True, "n_step": 3, "target_update_interval": 64}),
    "ppo, continuous": ("ppo", Walk, BOX, PPO),
    "sac": ("sac", Walk, BOX, REPLAY),
    "td3": ("td3", Walk, BOX, REPLAY),
    "ppo, agents": ("ppo", Crowd, {}, PPO),
    "ppo, lstm": ("ppo", Walk, {}, PPO | {"policy_kwargs": SMALL | {"memory": "lstm", "sequence_length": 8}}),
    "ppo, two learners": ("ppo", Walk, {}, PPO | {"gradient_shards": 2, "learners": 2}),
    "grpo": ("grpo", "copy-2", {}, TEXTS),
    "es": ("es", Walk, {}, {"n_delta": 8, "noise_table_size": 10_000, "policy_kwargs": SMALL}),
}


def train(case, workers, chaos="none"):
    name, env, env_kwargs, settings = CASES[case]
    if name == "es":
        chaos = chaos.replace("kill_learner=0.25,", "")
    made = ALGORITHMS[name](env, env_kwargs=env_kwargs, chaos=chaos, **COMMON | settings | {"workers": workers})
    with made as algorithm:
        return algorithm.train(8 * 16 if name == "grpo" else STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_no_bit_of_the_weights_depends_on_workers_engine_and_deaths(case):
    runtime.shutdown()
    runtime.init(engine="serial")
    expected = train(case, 1).weights_sha256
    runtime.shutdown()
    runtime.init(engine="native")
    many = 8 if case in ("ppo", "sac") else 3
    assert [train(case, workers).weights_sha256 for workers in (1, many)] == [expected, expected]
    with_replay = case in {"dqn", "sac", "td3"}  # one worker is where the learner is then
    for workers in {2, many} if case == "ppo" else {1, 2} if with_replay else {2}:
        disturbed = train(case, workers, CHAOS)
        assert disturbed.weights_sha256 == expected
        assert disturbed.chaos["worker_deaths"] > 0
        assert case == "es" or disturbed.chaos["learner_deaths"] > 0
    runtime.shutdown()


@pytest.mark.slow
def test_the_command_kills_tells_and_goes_on(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    runtime.shutdown()
    settings = ["--n-envs=4", "--group-size=1", "--n-steps=16", "--batch-size=32", "--n-epochs=1", "--preset=none"]
    command = ["train", "ppo", "CartPole-v1", *settings, "--total-timesteps=256", "--workers=2", "--engine=native"]
    assert main([*command, "--run-dir=calm"]) == 0
    assert main([*command, "--run-dir=chaos", "--chaos=kill_worker=0.4,kill_learner=0.5,seed=2"]) == 0
    told = capfd.readouterr()
    calm, chaos = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("calm", "chaos"))
    assert calm["weights_sha256"] == chaos["weights_sha256"]
    assert calm["chaos"] == {}
    assert min(chaos["chaos"].values()) > 0
    assert "chaos: kill_worker=0.4,kill_learner=0.5,seed=2" in told.err
    assert f"worker deaths: {chaos['chaos']['worker_deaths']}" in told.out
    rows = [json.loads(line) for line in (tmp_path / "chaos" / "metrics.jsonl").read_text().splitlines()]
    assert sum(row["chaos/worker_deaths"] for row in rows) == chaos["chaos"]["worker_deaths"]
