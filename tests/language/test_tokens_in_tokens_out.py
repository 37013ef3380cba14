"""What the model has read and said is what is learned from: over turns, in metrics, and with older weights."""

from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from gymnasium.spaces import Text

from shoal import GRPO, envs, runtime
from shoal.envs.language import Recall
from shoal.rl import Batch, Clock, sampling_metrics
from shoal.rl.language.decoding import Decoding
from shoal.rl.language.episodes import play
from shoal.rl.language.evaluation import pass_at
from shoal.rl.language.samples import Samples
from shoal.rl.language.sampling import Sampling
from shoal.rl.language.tokens import END, PAD, BytePairTokens, ByteTokens, train_tokenizer
from shoal.rl.models.build import build_model
from shoal.rl.models.spec import ModelSpec

SMALL = {
    "n_envs": 16,
    "group_size": 16,
    "samples": 4,
    "batch_size": 16,
    "max_new_tokens": 3,
    "preset": "none",
    "policy_kwargs": {"tokenizer": "characters", "context": 24, "width": 16, "heads": 2, "layers": 1},
}


class Talk(Recall):
    """Three turns between words, of which the tokenizer has several spellings."""

    def __init__(self):
        super().__init__(turns=3)
        self.observation_space = self.action_space = Text(64, min_length=0, charset="the catsomn,")

    def _letter(self):
        return "the cat, the mat"


def test_each_turns_ids_continue_those_before_whatever_the_tokenizer_would_say(tmp_path):
    path = tmp_path / "bpe.json"
    train_tokenizer(["the cat sat on the mat, the cat"] * 3, 270, path)
    space = Talk().observation_space
    spec = ModelSpec("language_model", space, space, {"tokenizer": path.read_text(), "context": 200, "width": 16})
    model = build_model(spec, seed=0)
    rows, turns = 4, []
    environments = envs.TextEnvironments(envs.EnvSpec("talk", Talk), rows, run_seed=0, check="warn")
    with torch.inference_mode():
        model.flat.mul_(4)
        decoding = Decoding(model, rows, Sampling())

        def ids():
            return [decoding.tokens[row, :length].tolist() for row, length in enumerate(decoding.lengths)]

        def noise(row, turn):
            return np.random.default_rng([row, turn]).random(12)

        played = play(decoding, environments, range(rows), noise=noise, each_turn=lambda: turns.append(ids()))
        turns.append(ids())
    environments.close()
    assert len(turns) == 4
    for before, after in pairwise(turns):
        for short, long in zip(before, after, strict=True):
            assert long[: len(short)] == short
            assert len(long) > len(short)
    other = 0
    for row in range(rows):  # a reply's text is the decoding of exactly the ids that are learned from
        own = decoding.tokens[row][decoding.mask[row]].tolist()
        spoken = [i for i in own if i != END]
        assert "".join(played.answers[row]) == model.tokens.decode(spoken) or "�" in "".join(played.answers[row])
        other += model.tokens.encode(model.tokens.decode(spoken)) != spoken
        length = int(decoding.lengths[row])  # beyond the end is nothing, and nothing of that is learned
        assert (decoding.tokens[row, length:] == PAD).all()
        assert not decoding.mask[row, length:].any()
    assert other  # encoded anew, some would have become other tokens


def samples(**changed):
    mask = np.array([[0, 1, 1, 0, 1], [0, 1, 0, 0, 0]], np.bool_)
    steps = {
        "mask": mask,
        "tokens": np.ones((2, 5), np.int32),
        "log_probs": np.where(mask, -1.0, 0),
        "sampled_log_probs": np.where(mask, -0.5, 0),
        "entropies": np.where(mask, 2.0, 0),
        "rewards": np.array([1.0, 0.0]),
        "cut": np.array([False, True]),
        "solved": np.array([True, False]),
    }
    return Samples(Batch({**steps, **changed}), Batch({}), 3)


def test_tokens_that_the_model_did_not_say_are_in_no_metric():
    class Learner:
        iteration, n_updates = 3, 7

    dead = torch.zeros(2, dtype=torch.bool)
    plain = sampling_metrics(Learner, samples(), dead, 0)
    assert (plain["rollout/tokens_mean"], plain["rollout/tokens_max"], plain["rollout/entropy"]) == (2, 3, 2)
    assert plain["rollout/filtered"] == pytest.approx(1 - np.exp(-0.5))
    mask = samples().steps["mask"]
    wild = {
        name: np.where(mask, samples().steps[name], np.nan) for name in ("log_probs", "sampled_log_probs", "entropies")
    }
    wild["tokens"] = np.where(mask, 1, 99).astype(np.int32)
    assert sampling_metrics(Learner, samples(**wild), dead, 0) == plain


def test_old_is_the_policy_that_sampled_not_the_one_before_the_update():
    runtime.init(engine="serial")
    with GRPO("copy-2", **SMALL, max_lag=1, learning_rate=0.01) as grpo:
        state, clock = grpo._start(), Clock(0, 100)
        run = grpo.actors
        told = [run.workers.begin(0, state.groups[0], state.weights, clock)]
        made = type(run.workers.collect(state, clock)).of(told, 16)
        first = run.learn(state, made, clock)
        second = run.learn(first.state, made, clock)  # the same answers, one update later
    assert first.metrics["train/log_prob_difference"] < 1e-4
    assert second.metrics["lag/1"] == 1
    assert second.metrics["train/log_prob_difference"] > 1e-3  # to those that sampled
    assert second.metrics["train/approx_kl"] > 1e-6


def test_pass_at_k_is_the_unbiased_estimator():
    solved = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], np.bool_)
    found = pass_at(solved)
    assert found[1] == pytest.approx((1 / 2 + 0 + 1) / 3)
    assert found[2] == pytest.approx(((1 - 1 / 6) + 0 + 1) / 3)  # of 6 pairs of 4 answers one has no right one
    assert found[4] == pytest.approx(2 / 3)
    every = [np.array([[i in right for i in range(5)]]) for right in ((), (0,), (0, 1), (0, 1, 2))]
    for one in every:  # the chance that k of the 5, drawn without putting back, hold a right one
        for k, value in pass_at(one).items():
            held = [one[0, list(chosen)].any() for chosen in combinations(range(5), k)]
            assert value == pytest.approx(np.mean(held))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    train_tokenizer(["abc"], 256, tmp_path / "tokens.json")
    for tokens in (ByteTokens(), BytePairTokens((tmp_path / "tokens.json").read_text())):
        with pytest.raises(runtime.InputError, match=r"holds '\\udcff', which is no character"):
            tokens.encode("a\udcff")
