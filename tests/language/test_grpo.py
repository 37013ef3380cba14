"""GRPO from the settings to the run folder: what decides its weights, and what it says."""

import json
import tomllib
from dataclasses import replace
from threading import Event

import numpy as np
import pytest

from shoal import envs, runtime
from shoal.algorithms import GRPO, PPO
from shoal.rl import Clock, RunFolder, RunSettings, UnknownWeightsError, evaluate, load_policy, replay_episode, verify
from shoal.rl.chosen_settings import split_settings

SMALL = {
    "n_envs": 16,
    "group_size": 4,
    "samples": 4,
    "batch_size": 8,
    "max_new_tokens": 3,
    "preset": "none",
    "policy_kwargs": {"tokenizer": "characters", "context": 24, "width": 16, "heads": 2, "layers": 1},
}


def sha_of(env="copy-2", iterations=3, disturb=None, **settings):
    with GRPO(env, **{**SMALL, **settings}) as grpo:
        callbacks = [] if disturb is None else [disturb]
        return grpo.train(16 * iterations, callbacks=callbacks).weights_sha256


@pytest.fixture
def serial():
    runtime.init(engine="serial")


def test_weights_are_the_same_after_a_resume_and_for_every_kind_of_loss(serial, tmp_path):
    given = {"kl_penalty": "k3_corrected", "truncation": "penalise", "recompute": "same_shape", "n_epochs": 2}
    whole = sha_of("recall-2", iterations=4, **given)
    with GRPO("recall-2", **SMALL, **given) as grpo:
        initial = grpo.policy.get_weights()
        grpo.train(32)
        grpo.save(tmp_path)
        assert np.array_equal(grpo.actors.snapshot(grpo._start())[0]["target"], initial)  # the reference never moves
    with GRPO.load(tmp_path) as grpo:
        assert grpo.train(32).weights_sha256 == whole
    assert sha_of("recall-2", iterations=4, **given, seed=1) != whole


def test_a_run_folder_tells_what_was_asked_and_said(serial, tmp_path):
    with (
        GRPO("recall-2", **SMALL, kl_penalty="k1_in_reward", recompute="same_shape") as grpo,
        RunFolder(tmp_path / "run") as f,
    ):
        grpo.train(32, callbacks=[f])
    [first, second] = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert first["train/log_prob_difference"] < 1e-4
    assert first["train/kl"] == pytest.approx(0, abs=1e-5)
    assert second["lag/0"] == 1
    wanted = {"reward_mean", "tokens_mean", "entropy", "cut", "dead_groups", "filtered"}
    assert wanted <= {name.removeprefix("rollout/") for name in first}
    examples = [json.loads(line) for line in (tmp_path / "run/examples.jsonl").read_text().splitlines()]
    assert len(examples) == 2 * 4 * 2
    assert [len(example["answers"]) for example in examples] == [2] * 16
    found = evaluate(tmp_path / "run", episodes=3, samples=4)
    assert set(found.pass_at) == {1, 2, 4}
    assert found.pass_at[1] <= found.pass_at[2] <= found.pass_at[4]
    assert len(evaluate(tmp_path / "run", episodes=5).returns) == 5
    with pytest.raises(runtime.InputError, match="they are answers of a language model"):
        replay_episode(tmp_path / "run", 1)
    with pytest.raises(runtime.InputError, match="must be a list of texts"):
        load_policy(tmp_path / "run").generate("abc")


def test_the_first_minibatch_has_ratio_one_at_every_temperature(serial):
    for temperature in (0.5, 2.0):
        with GRPO("copy-2", **SMALL, temperature=temperature, learning_rate=1e-9) as grpo:
            run, state = grpo.actors, grpo._start()
            outcome = grpo.training_step(run, state, Clock(0, 100))
        assert outcome.metrics["train/log_prob_difference"] < 1e-4
        assert outcome.metrics["train/clip_fraction"] == 0
    with GRPO("copy-2", **SMALL | {"batch_size": 16}, recompute="same_shape") as grpo:
        outcome = grpo.training_step(grpo.actors, grpo._start(), Clock(0, 100))
        assert outcome.metrics["train/approx_kl"] == 0  # exactly


class Silent(envs.TextTask):
    """Rewards nothing."""

    def answer(self, prompt):
        return "z"

    def reward(self, right, answer):
        return 0.0


def test_it_says_where_no_group_has_any_variance(serial, caplog):
    sha_of(Silent, iterations=2)
    assert [record.message[:52] for record in caplog.records] == [
        "no group had any variance in 1 iteration (now 1): all"[:52]
    ]


def test_it_says_so_once_for_each_length_and_not_where_all_is_right(serial, caplog):
    with GRPO(Silent, **SMALL) as grpo:
        outcome = grpo.training_step(grpo.actors, grpo._start(), Clock(0, 100))
        alive = replace(outcome, metrics={"rollout/dead_groups": 0.5})
        right = replace(outcome, metrics={"rollout/dead_groups": 1.0, "rollout/solved": 1.0})
        for each in [alive, outcome, alive, *[outcome] * 10, *[right] * 100]:
            grpo._tell_dead(each)
    assert ["1 iteration (" in caplog.messages[0], "10 iterations" in caplog.messages[1]] == [True, True]
    assert len(caplog.messages) == 2


class Shaped(Silent):
    """Solved never, but answers have rewards by their lengths."""

    def reward(self, right, answer):
        return len(answer) / 10


def test_groups_of_one_outcome_are_left_out_where_that_is_wished(serial, caplog):
    with GRPO(Shaped, **SMALL) as grpo:
        before = grpo.policy.get_weights()
        assert grpo.training_step(grpo.actors, grpo._start(), Clock(0, 100)).metrics["rollout/dead_groups"] < 1
    with GRPO(Shaped, **SMALL, gate="outcome") as grpo:
        grpo.train(16)
        assert np.array_equal(grpo.policy.get_weights(), before)  # nothing was learned
    assert "no group had any variance" in caplog.text


def judge(prompt, answer):
    raise ZeroDivisionError("the judge fell over")


def test_a_reward_that_raises_names_prompt_and_answer(serial):
    envs.register("judged", envs.Prompts, prompts=["ab", "cd"], reward=lambda prompt, answer: float(len(answer)))
    assert sha_of("judged", iterations=1)
    env = envs.Prompts(["ab"], [(0.5, lambda p, a: 2.0), (2.0, lambda p, a: 1.0)])
    env.reset(seed=0)
    assert env.step("x")[1] == 3.0
    rows = envs.TextEnvironments(envs.EnvSpec("bad", envs.Prompts, {"prompts": ["ab"], "reward": judge}), 2, run_seed=0)
    rows.reset(1, 5)
    with pytest.raises(ZeroDivisionError) as caught:
        rows.step(1, "hello")
    assert "'hello' to 'ab' (row 1" in "".join(caught.value.__notes__)
    rows.close()


def wait_for_ever(prompt, answer):
    Event().wait()


def test_a_reward_that_does_not_return_is_ended():
    spec = envs.EnvSpec("stuck", envs.Prompts, {"prompts": ["ab"], "reward": wait_for_ever})
    rows = envs.TextEnvironments(spec, 1, run_seed=0, step_timeout=0.05)
    rows.reset(0, 5)
    with pytest.raises(envs.EnvTimeoutError, match="step had not returned"):
        rows.step(0, "hello")
    rows.close()


def test_answers_of_unknown_weights_are_refused(serial):
    with GRPO("copy-2", **SMALL) as grpo:
        run, state = grpo.actors, grpo._start()
        rollouts = run.workers.collect(state, Clock(0, 100))
        other = runtime.put(np.array(runtime.get(state.weights.ref)) + 1)
        foreign = run.workers.begin(0, state.groups[0], type(state.weights)(0, other), Clock(0, 100))
        mixed = type(rollouts)((foreign.rollout, *rollouts.rollouts[1:]), rollouts.groups, rollouts.stats, 16)
        with pytest.raises(UnknownWeightsError, match="group 0 was sampled by weights"):
            run.learn(state, mixed, Clock(0, 100))


def test_presets_are_settings_and_can_be_combined(serial):
    table = tomllib.loads(GRPO.presets_path.read_text())
    for name, values in table.items():
        split_settings(values, (RunSettings, GRPO.config_class), name)
    with GRPO("copy-4", preset="auto,dapo") as grpo:
        assert (grpo.config.aggregation, grpo.config.truncation, grpo.run.n_envs) == ("token", "mask", 512)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 2**70}, "top_k is 1180591620717411303424, but must be .* at most 1,000,000,000"),
        ({"temperature": 1e-308}, "temperature is 1e-308, but must be a number of at least 0.0001"),
        ({"samples": 3}, "group_size is 4, but must be a multiple of samples = 3"),
        ({"samples": 1}, "samples is 1, but must be at least 2"),
        ({"batch_size": 32}, "batch_size is 32, but must be at most n_envs = 16"),
        ({"recompute": "same_shape", "max_lag": 1}, "recompute is 'same_shape', but must be none.*see behaviour_cap"),
        ({"behaviour_cap": 0}, "behaviour_cap is 0"),
        ({"normalize": "reward"}, "normalize is 'reward'"),
    ],
)
def test_settings_that_cannot_work_are_refused(serial, settings, message):
    with pytest.raises(runtime.InputError, match=message):
        GRPO("copy-2", **{**SMALL, **settings})


def test_other_algorithms_refuse_texts_and_this_one_numbers(serial):
    with pytest.raises(runtime.InputError, match=r"ppo does not work with action space Text.*with it work: .*grpo"):
        PPO("copy-4")
    with pytest.raises(runtime.InputError, match="grpo does not work with action space"):
        GRPO("CartPole-v1")


def test_the_decoupled_objective_of_its_own_samples_is_that_of_computed_log_probabilities(serial):
    given = {"batch_size": 16, "learning_rate": 1e-2, "aggregation": "token"}
    with GRPO("copy-2", **SMALL | given, behaviour_cap=2.0) as grpo:
        outcome = grpo.training_step(grpo.actors, grpo._start(), Clock(0, 100))
        assert outcome.metrics["train/approx_kl"] == 0  # π_old is what the update began with
        assert outcome.metrics["train/importance"] == pytest.approx(1, abs=1e-4)  # and what sampled
        weights = grpo.policy.get_weights()
    with GRPO("copy-2", **SMALL | given, recompute="same_shape") as grpo:
        grpo.training_step(grpo.actors, grpo._start(), Clock(0, 100))
        np.testing.assert_allclose(grpo.policy.get_weights(), weights, atol=1e-4)
    with GRPO("copy-2", **SMALL | given, behaviour_cap=0.5) as grpo:  # everything counts half
        half = grpo.training_step(grpo.actors, grpo._start(), Clock(0, 100))
    assert half.metrics["train/importance"] == 0.5
    told = [each.metrics["train/policy_gradient_loss"] for each in (half, outcome)]
    assert abs(told[1]) > 1e-3  # answers differ in length
    assert told[0] == pytest.approx(told[1] / 2, rel=1e-4)


@pytest.mark.parametrize("behaviour_cap", [None, 2.0])
def test_an_asynchronous_run_repeats_its_schedule(serial, tmp_path, behaviour_cap):
    given = SMALL | {"behaviour_cap": behaviour_cap, "n_epochs": 2, "learning_rate": 1e-2}
    with GRPO("copy-2", **given, max_lag=2, workers=2) as grpo, RunFolder(tmp_path / "run") as folder:
        result = grpo.train(16 * 6, callbacks=[folder])
    found = verify(GRPO, tmp_path / "run", workers=1)
    assert found.followed_sha256 == result.weights_sha256
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert sum(lines[-1][f"lag/{lag}"] for lag in range(3)) == pytest.approx(1)
