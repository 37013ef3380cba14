"""Direct preference optimization against numbers worked by hand, and what goes wrong elsewhere."""

import json
import math
import tracemalloc

import numpy as np
import pytest
import torch

from shoal import runtime
from shoal.algorithms import DPO, SFT
from shoal.algorithms.dpo import DPOConfig, answer_log_probs, dpo_loss
from shoal.rl import Callback
from shoal.rl.language.pairs import Pairs
from shoal.rl.language.tokens import PAD, ByteTokens
from shoal.runtime import InputError

NETWORK = {"tokenizer": "bytes", "context": 24, "width": 16, "heads": 2, "layers": 1}
SMALL = {"policy_kwargs": NETWORK, "batch_size": 4, "gradient_steps": 4, "warmup": 0}
ROWS = [(f"{n}?", "yes", "no") for n in range(9)]


@pytest.fixture
def dataset(tmp_path):
    runtime.init(engine="serial")
    lines = (json.dumps(dict(zip(("prompt", "chosen", "rejected"), row, strict=True))) for row in ROWS)
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    return str(tmp_path / "pairs.jsonl")


def test_losses_and_metrics_are_those_worked_by_hand():
    answers = torch.tensor([[-1.0, -4.0], [-2.0, -1.0]], requires_grad=True)
    reference = torch.tensor([[-2.0, -3.0], [-2.0, -1.5]])
    margins = [0.5 * 2.0, 0.5 * -0.5]  # β h: h is (1 − (−1)) and (0 − 0.5)
    sigma = [1 / (1 + math.exp(-m)) for m in margins]
    loss, told = dpo_loss(answers, reference, DPOConfig(beta=0.5))
    assert loss.item() == pytest.approx(-(math.log(sigma[0]) + math.log(sigma[1])) / 2, abs=1e-6)
    assert told["accuracy"] == 0.5
    assert told["reward_margin"].item() == pytest.approx(sum(margins) / 2)
    assert told["reward_chosen"].item() == pytest.approx(0.5 * 0.5)
    assert told["reward_rejected"].item() == pytest.approx(0.5 * (-1 + 0.5) / 2)
    assert told["log_prob_chosen"] == -1.5
    loss.backward()  # equation 7's gradient: −β σ(−β h), half of it for each of two pairs
    wanted = [-0.5 * (1 - s) / 2 for s in sigma]
    torch.testing.assert_close(answers.grad, torch.tensor([[wanted[0], -wanted[0]], [wanted[1], -wanted[1]]]))
    smooth, _ = dpo_loss(answers, reference, DPOConfig(beta=0.5, label_smoothing=0.1))
    by_hand = [-0.9 * math.log(s) - 0.1 * math.log(1 - s) for s in sigma]
    assert smooth.item() == pytest.approx(sum(by_hand) / 2, abs=1e-6)
    ipo, _ = dpo_loss(answers, reference, DPOConfig(beta=0.5, loss="ipo"))
    assert ipo.item() == pytest.approx(((2 - 1) ** 2 + (-0.5 - 1) ** 2) / 2)


def test_ipo_stops_where_dpo_goes_on_for_ever():
    """One pair, always preferred: IPO's optimum is h = 1 / (2 β); DPO's gradient never ends."""
    for loss, wanted in (("ipo", 1 / (2 * 0.1)), ("sigmoid", None)):
        h = torch.zeros(1, 2, requires_grad=True)
        for _ in range(400):
            [gradient] = torch.autograd.grad(dpo_loss(h, torch.zeros(1, 2), DPOConfig(loss=loss))[0], h)
            h = (h - (0.1 if loss == "ipo" else 20.0) * gradient).detach().requires_grad_()
        distance = (h[0, 0] - h[0, 1]).item()
        assert distance == pytest.approx(wanted, abs=1e-4) if wanted else distance > 20


def test_prompts_and_filling_count_nothing_and_ipo_takes_means():
    class Uniform:
        """Every token is as likely as any other, of 8; NaN after what fills up."""

        def __call__(self, tokens):
            logits = torch.zeros(*tokens.shape, 300)
            logits[..., 8:] = -torch.inf
            return torch.where((tokens == PAD)[..., None], torch.nan, logits)

    pairs = Pairs.of([("a prompt", "abc", "b"), ("q", "x", "longer")], ByteTokens(), 24, 0, 0)
    laid = pairs.laid_out([0, 1])
    mask = torch.from_numpy(laid["mask"])
    tokens = torch.where(mask, 4, torch.from_numpy(laid["tokens"].astype(np.int64)))
    rows = {"tokens": tokens, "mask": mask}
    lengths = torch.tensor([[4.0, 2.0], [2.0, 7.0]])  # END is a token, too
    torch.testing.assert_close(answer_log_probs(Uniform(), rows, "sigmoid"), -math.log(8) * lengths)
    torch.testing.assert_close(answer_log_probs(Uniform(), rows, "ipo"), torch.full((2, 2), -math.log(8)))


def test_pairs_come_once_an_epoch_and_what_is_held_out_never():
    pairs = Pairs.of(ROWS, ByteTokens(), 24, 3, 0.2)
    assert len(pairs.held_out) == 2
    assert not set(pairs.held_out) & set(pairs.learned)
    all_rows = pairs.rows(0, 21)["tokens"]
    for epoch in range(3):
        assert len(np.unique(all_rows[epoch * 7 : (epoch + 1) * 7], axis=0)) == 7
    assert np.array_equal(pairs.rows(5, 6)["tokens"], all_rows[5:11])  # wherever it goes on
    with pytest.raises(InputError, match="row 0: prompt and answer have 8 tokens"):
        Pairs.of(ROWS, ByteTokens(), 7, 0, 0)


def test_pairs_lie_in_a_file_and_not_in_memory():
    rows = ((f"{number:06}?", "yes " * 100, "no " * 100) for number in range(2000))  # read one by one
    tracemalloc.start()
    try:
        pairs = Pairs.of(rows, ByteTokens(), 512, 0, 0.1)
        pairs.rows(0, 16)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(pairs) == 2000
    assert peak < 5 * int(pairs.texts.lengths.sum()) / 4  # 5 bytes each
    everything = pairs.laid_out(range(2000))
    assert len(np.unique(everything["tokens"][:, 0], axis=0)) == 2000
    assert everything["mask"].sum((0, 2)).tolist() == [2000 * 401, 2000 * 301]  # END is a token, too
    other = Pairs.of([("000000?", "yes", "no")], ByteTokens(), 512, 0, 0)
    assert len(pairs.sha256) == len(other.sha256) == 64
    assert pairs.sha256 != other.sha256


def test_a_training_begins_at_log_two_prefers_what_is_chosen_and_leaves_the_reference(dataset, tmp_path):
    with SFT("copy-2", **SMALL, examples=8) as sft:
        sft.train(4)
        sft.save(tmp_path / "sft")
    given = SMALL | {"policy_kwargs": {}, "initial": str(tmp_path / "sft"), "dataset": dataset}
    told = []

    class Watch(Callback):
        def on_iteration_end(self, training, report):
            told.append(report.metrics)

    with DPO(**given, learning_rate=3e-3, held_out=0.3) as dpo:
        initial = dpo.policy.get_weights()
        dpo.train(40, callbacks=[Watch()])
        state = dpo.actors.snapshot(dpo._start())[0]
        assert np.array_equal(state["target"], initial)
        dpo.save(tmp_path / "dpo")
    assert told[-1]["eval/accuracy"] == told[-1]["train/accuracy"] == 1
    assert told[-1]["train/reward_margin"] > told[0]["train/reward_margin"]
    assert told[-1]["eval/loss"] < math.log(2)
    for precision in ("float32", "bfloat16"):
        with DPO(**given | {"gradient_steps": 1}, learning_rate=1e-9, precision=precision) as dpo:
            dpo.train(1, callbacks=[Watch()])
        # Nothing is away from the reference yet, which is computed as the policy is.
        assert told[-1]["train/loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_the_same_bits_resumed_and_the_gradient_of_any_parts(dataset, tmp_path):
    given = {**SMALL, "dataset": dataset, "schedule": "constant", "learning_rate": 1e-3}
    with DPO(**given) as dpo:
        whole = dpo.train(8).weights_sha256
    with DPO(**given) as dpo:
        dpo.train(4)
        dpo.save(tmp_path / "half")
    with DPO.load(tmp_path / "half") as dpo:
        assert dpo.train(4).weights_sha256 == whole
    with DPO(**given, gradient_shards=3) as dpo:
        dpo.train(8)
        parts = dpo.policy.get_weights()
    with DPO(**given) as dpo:
        dpo.train(8)
        np.testing.assert_allclose(parts, dpo.policy.get_weights(), atol=2e-4)


def test_what_dpo_refuses(dataset, tmp_path):
    same = tmp_path / "same.jsonl"
    same.write_text('{"prompt": "a", "chosen": "b", "rejected": "b"}\n')
    with pytest.raises(InputError, match=r"row 0 .* are the same"):
        DPO(dataset=str(same), **SMALL)
    with pytest.raises(InputError, match=r"label_smoothing is 0\.1, but must be 0 with loss 'ipo'"):
        DPO(dataset=dataset, loss="ipo", label_smoothing=0.1, **SMALL)
    with pytest.raises(InputError, match="loss is 'hinge', but must be one of 'sigmoid', 'ipo'"):
        DPO(dataset=dataset, loss="hinge", **SMALL)
