"""Where the time of a run went: shares and gains against numbers worked by hand, on made-up runs, and a real one."""

import json

import pytest

from shoal.cli.main import main
from shoal.rl import diagnose
from shoal.runtime import InputError


def run_folder(folder, times, *, algorithm="ppo", engine="native", cores=4, iterations=4, **run):
    """A run whose iterations of 1 s and 1,000 steps have these times; the first, with the start in it, took 100 s."""
    settings = {
        "workers": 2,
        "n_envs": 8,
        "group_size": 2,
        "vectorization": "sync",
        "learners": 1,
        "gradient_shards": 1,
    }
    config = {
        "algorithm": algorithm, "env": "CartPole-v1", "engine": engine, "total_timesteps": 4000, "stop_return": None,
        "run": settings | run, "hyperparameters": {"batch_size": 512}, "machine": {"cores": cores},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    rows = [
        {"iteration": i + 1, "timesteps": 1000 * (i + 1), "elapsed_seconds": 100.0 + i}
        | {f"time/{name}_seconds": seconds for name, seconds in times.items()}
        for i in range(iterations)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def gains(found):
    return {suggestion.setting: round(suggestion.gain, 3) for suggestion in found.suggestions}


def test_shares_are_those_of_the_slowest_workers_path(tmp_path):
    # 2 workers act for 0.8 s together, one of them for 0.5: 0.3 + 0.1 of each, 0.1 of waiting; 0.3 of update; rest 0.2
    times = {"environment": 0.6, "inference": 0.2, "slowest_worker": 0.5, "update": 0.3}
    found = diagnose(run_folder(tmp_path, times))
    wanted = {"environment": 0.3, "inference": 0.1, "transfer": 0.2, "learner": 0.3, "waiting": 0.1}
    assert dict(found.shares) == pytest.approx(wanted)
    assert sum(found.shares.values()) == pytest.approx(1)
    assert (found.steps_per_second, found.iteration_seconds) == pytest.approx((1000, 1))


def test_more_workers_and_larger_groups_gain_what_the_sum_says(tmp_path):
    times = {"environment": 1.2, "inference": 0.4, "slowest_worker": 0.8, "update": 0.2}
    found = diagnose(run_folder(tmp_path, times))
    assert found.bottleneck == "environment"
    # four workers: 1.6 / 4 in place of 0.8; groups of 4: two forward passes in place of four, 0.6 + 0.4 / 4
    assert gains(found)["workers 4"] == round(1 / 0.6, 3)
    assert gains(found)["group_size 4"] == round(1 / 0.9, 3)
    # asynchronous: 1.8 s of work for 4 cores, but the rollouts take 0.8
    assert gains(found)["algorithm appo"] == round(1 / 0.8, 3)
    assert list(gains(found).values()) == sorted(gains(found).values(), reverse=True)


def test_what_is_full_is_not_suggested(tmp_path):
    times = {"environment": 0.6, "inference": 0.2, "slowest_worker": 0.4, "update": 0.6}
    found = diagnose(run_folder(tmp_path, times, cores=2, group_size=4), can_shard=True)
    assert found.bottleneck == "learner"
    assert gains(found) == {"learners 2, gradient_shards 2": round(1 / 0.7, 3), "algorithm appo": round(1 / 0.7, 3)}


def test_one_process_is_told_to_become_several(tmp_path):
    times = {"environment": 0.6, "inference": 0.2, "slowest_worker": 0.8, "update": 0.2}
    found = diagnose(run_folder(tmp_path, times, engine="serial"))
    assert gains(found)["engine native, workers 4"] == round(1 / 0.4, 3)


def test_asynchronous_workers_do_not_wait_for_transfer(tmp_path):
    times = {"environment": 0.4, "inference": 0.2, "update": 0.9}
    found = diagnose(run_folder(tmp_path, times, algorithm="appo", group_size=4), can_shard=True)
    assert dict(found.shares) == pytest.approx(
        {"environment": 0.2, "inference": 0.1, "transfer": 0, "learner": 0.7, "waiting": 0}
    )
    assert gains(found) == {"learners 2, gradient_shards 2": 2.0}


@pytest.mark.parametrize("iterations", [0, 1])
def test_a_run_without_times_is_refused(tmp_path, iterations):
    with pytest.raises(InputError, match=f"has {iterations} in all"):
        diagnose(run_folder(tmp_path, {"update": 0.1}, iterations=iterations))


def test_a_real_run(tmp_path, capsys):
    run = str(tmp_path / "run")
    flags = ["--engine", "serial", "--n-envs", "4", "--n-steps", "8", "--batch-size", "32", "--n-epochs", "1"]
    assert main(["train", "ppo", "CartPole-v1", "--total-timesteps", "160", "--run-dir", run, *flags]) == 0
    capsys.readouterr()
    assert main(["doctor", run, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sum(found["shares"].values()) == pytest.approx(1)
    assert min(found["shares"][part] for part in ("environment", "inference", "learner")) > 0
    assert main(["doctor", run]) == 0
    assert f"bottleneck: {found['bottleneck']}" in capsys.readouterr().out
