"""Pre-training and supervised fine-tuning: what is learned of which text, and where it goes on."""

import io
import json
import math
import shutil
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from rich.console import Console

from shoal import data, envs, runtime
from shoal.algorithms import GRPO, SFT, Pretrain
from shoal.algorithms.pretrain import next_token_loss
from shoal.rl import Clock, ProgressDisplay, RunFolder, evaluate, load_policy, rows_of_dataset
from shoal.rl.language.packing import Corpus, RowOrder, conversation, fill_rows, plain_texts
from shoal.rl.language.text_training import TextConfig, rate_of
from shoal.rl.language.tokens import ANSWER, BEGIN, END, PAD, ByteTokens
from shoal.rl.lazy import losses
from shoal.rl.learn.optimizers import FlatAdamW
from shoal.rl.models.build import build_model
from shoal.rl.models.spec import ModelSpec
from shoal.runtime import InputError

NETWORK = {"tokenizer": "bytes", "context": 32, "width": 16, "heads": 2, "layers": 1}
SMALL = {"policy_kwargs": NETWORK, "batch_size": 4, "gradient_steps": 3, "warmup": 2}
TEXTS = ["the sea is wide", "a ship", "sails", "far out and back again", "ebb", "and flow of the tide, for ever"]


@pytest.fixture
def serial():
    runtime.init(engine="serial")


@pytest.fixture
def folder(tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    for index, text in enumerate(TEXTS):
        (texts / f"{index}.txt").write_text(text)
    return str(texts)


def spec(**changes):
    from gymnasium.spaces import Text

    return ModelSpec("language_model", Text(32), Text(32), NETWORK | changes)


def corpus_of(texts, context=32):
    tokens = ByteTokens()
    return Corpus.of(
        (text for i, each in enumerate(texts) for text in plain_texts(each, i, tokens, context, 0)), context, 0
    )


def test_tokens_lie_in_a_file_and_not_in_memory():
    documents = ("the sea is wide " * 500 for _ in range(100))
    tracemalloc.start()
    try:
        corpus = corpus_of(documents, context=256)
        kept, _ = corpus.divide(0.02)
        kept.sha256, kept.laid_out(kept.epoch(0)[:4])
        assert corpus.tokens > 800_000
        assert tracemalloc.get_traced_memory()[1] < 5 * corpus.tokens / 4  # 5 bytes each
    finally:
        tracemalloc.stop()


def test_a_text_has_the_same_loss_alone_and_packed_and_sees_nothing_of_others():
    model, corpus = build_model(spec(kv_heads=1), seed=1), corpus_of(TEXTS)
    rows = corpus.laid_out(corpus.epoch(0))
    assert any((row == BEGIN).sum() > 1 for row in rows["tokens"])
    tokens = torch.from_numpy(rows["tokens"].astype(np.int64))
    packed = losses.log_probs_of(model(tokens, packed=True), tokens)
    for text in corpus.texts:
        row, at = next(
            (r, a)
            for r in range(len(tokens))
            for a in range(32 - len(text.ids) + 1)
            if (rows["tokens"][r, a : a + len(text.ids)] == text.ids).all()
        )
        alone = torch.from_numpy(text.ids.astype(np.int64))[None]
        wanted = losses.log_probs_of(model(alone), alone)[0, 1:]
        torch.testing.assert_close(packed[row, at + 1 : at + len(text.ids)], wanted, atol=1e-6, rtol=0)
    row = next(r for r in range(len(tokens)) if (tokens[r] == BEGIN).sum() > 1)
    second = int(torch.nonzero(tokens[row] == BEGIN)[1])
    changed = tokens.clone()
    changed[row, 1:second] = 77
    after = losses.log_probs_of(model(changed, packed=True), changed)
    assert torch.equal(after[row, second + 1 :], packed[row, second + 1 :])  # to the bit


def test_what_is_learned_of_a_text_and_of_a_conversation():
    [first, second] = plain_texts("abcdefgh", 3, ByteTokens(), 8, 0)
    assert first.ids[0] == second.ids[0] == BEGIN
    assert second.ids[-1] == END
    assert END not in first.ids  # it goes on
    said = ByteTokens().decode(first.ids.tolist()) + ByteTokens().decode(second.ids.tolist())
    assert said == "abcdefgh"
    for text in (first, second):
        assert (text.ids == ANSWER).sum() == 1
        assert np.array_equal(text.learned, ~np.isin(text.ids, (BEGIN, ANSWER)))
    assert first.nbytes + second.nbytes == 8
    talk = conversation([("hi", "yo"), ("ok", "!")], 0, ByteTokens())
    b = [4 + byte for byte in b"hiyook!"]
    assert talk.ids.tolist() == [BEGIN, b[0], b[1], ANSWER, b[2], b[3], END, b[4], b[5], ANSWER, b[6], END]
    assert np.flatnonzero(talk.learned).tolist() == [4, 5, 6, 10, 11]


def test_rows_hold_every_text_once_an_epoch_and_what_is_held_out_is_in_none():
    assert fill_rows(range(5), [5, 4, 3, 2, 6], 8) == [[0, 2], [1, 3], [4]]
    corpus = corpus_of(TEXTS * 3)
    kept, held_out = corpus.divide(0.2)
    assert len({text.document for text in held_out.texts}) == 4
    assert not {text.document for text in held_out.texts} & {text.document for text in kept.texts}
    order, epoch = RowOrder(kept), kept.epoch(0)
    assert sorted(number for row in epoch for number in row) == list(range(len(kept)))
    assert kept.epoch(1) != epoch
    long = order.of(0, 3 * len(epoch))
    assert long[: len(epoch)] == epoch
    assert order.of(5, 4) == long[5:9]  # backwards, too
    assert RowOrder(kept).of(len(epoch) + 1, 2) == long[len(epoch) + 1 : len(epoch) + 3]
    assert (kept.laid_out([[0]])["tokens"][0, len(next(kept.texts).ids) :] == PAD).all()


def test_the_loss_is_the_mean_over_learned_tokens_however_a_minibatch_is_cut():
    model, corpus = build_model(spec(), seed=1), corpus_of(TEXTS)
    rows = corpus.laid_out(corpus.epoch(0))
    tokens, mask = torch.from_numpy(rows["tokens"].astype(np.int64)), torch.from_numpy(rows["mask"])
    batch = {"tokens": tokens, "mask": mask, "weights": losses.token_weights(mask, "token", 0)}
    loss, told = next_token_loss(model, batch)
    found = losses.log_probs_of(model(tokens, packed=True), tokens)
    assert loss.item() == pytest.approx(-found[mask].mean().item(), abs=1e-6)
    halves = [
        next_token_loss(model, {name: v[part] for name, v in batch.items()}) for part in (slice(2), slice(2, None))
    ]
    share = 2 / len(tokens)
    assert halves[0][0].item() * share + halves[1][0].item() * (1 - share) == pytest.approx(loss.item(), abs=1e-6)
    assert 0 <= float(told["accuracy"]) <= 1


def test_the_step_size_warms_up_and_falls_as_worked_by_hand():
    config = TextConfig(learning_rate=1.0, warmup=4, final_rate=0.1)
    assert [rate_of(config, Clock(at, 24)) for at in (0, 3)] == [0.25, 1.0]
    assert rate_of(config, Clock(14, 24)) == pytest.approx(0.1 + 0.9 * 0.5)
    assert rate_of(config, Clock(24, 24)) == pytest.approx(0.1)
    linear = TextConfig(learning_rate=2.0, warmup=0, schedule="linear", final_rate=0.0)
    assert rate_of(linear, Clock(5, 20)) == pytest.approx(2 * 0.75)
    assert rate_of(TextConfig(learning_rate=2.0, warmup=0, schedule="constant"), Clock(19, 20)) == 2


def test_weight_decay_draws_matrices_alone_and_is_torch_s_adamw():
    model = build_model(spec(), seed=1)
    decayed = torch.zeros_like(model.flat)
    for where in model.matrices(0, None):
        decayed[where] = 1
    by_name = model.parameters_layout.views(decayed)
    assert {name for name, value in by_name.items() if value.any()} == {
        f"blocks.0.{name}.weight" for name in ("qkv", "out", "gate_up", "down")
    }
    weights, gradient = torch.randn(6, dtype=torch.float32), torch.randn(6)
    ours, own_gradient = weights.clone(), torch.zeros(6)
    adam = FlatAdamW(ours, own_gradient, weight_decay=0.5, decayed=[slice(0, 6)])
    theirs = weights.clone().requires_grad_()
    other = torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.5)
    for _ in range(3):
        own_gradient.copy_(gradient)
        adam.step(learning_rate=0.1)
        theirs.grad = gradient.clone()
        other.step()
    torch.testing.assert_close(ours, theirs.detach(), atol=1e-6, rtol=0)


def test_a_run_folder_tells_losses_and_speed_and_draws_them(serial, folder, tmp_path):
    with Pretrain(dataset=folder, held_out=0.2, **SMALL) as pretrain, RunFolder(tmp_path / "run") as run:
        pretrain.train(12, callbacks=[run])
    told = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert told[-1]["train/loss"] < told[0]["train/loss"]
    assert told[0]["eval/perplexity"] == pytest.approx(math.exp(told[0]["eval/loss"]))
    assert told[0]["train/tokens_seen"] == 3 * told[0]["train/tokens"]
    assert told[0]["time/tokens_per_second"] > 0
    assert (tmp_path / "run/learning_curve.png").exists()
    rows = pretrain.held_out_rows()
    nats = told[0]["eval/loss"] * rows["mask"].sum()
    assert told[0]["eval/bits_per_byte"] == pytest.approx(nats / math.log(2) / rows["nbytes"].sum())


def test_five_gradient_steps_are_five_and_not_an_iteration(serial, folder):
    """And they read the rows that follow, wherever the iterations before ended."""
    with Pretrain(dataset=folder, **SMALL | {"gradient_steps": 4, "schedule": "constant"}) as pretrain:
        assert pretrain.train(5).timesteps == 5
        weights = pretrain.train(1).weights_sha256
    with Pretrain(dataset=folder, **SMALL | {"gradient_steps": 3, "schedule": "constant"}) as pretrain:
        assert pretrain.train(6).weights_sha256 == weights


def test_a_training_that_stopped_in_mid_epoch_goes_on_with_the_same_bits(serial, folder, tmp_path):
    given = {"dataset": folder, "schedule": "constant", **SMALL, "batch_size": 2, "gradient_steps": 2}
    with Pretrain(**given) as pretrain:
        assert 8 % len(pretrain._divided[0].epoch(0))
        whole = pretrain.train(8).weights_sha256
    with Pretrain(**given) as pretrain:
        pretrain.train(4)
        half = pretrain.save(tmp_path / "half")
    with Pretrain.load(half) as pretrain:
        assert pretrain.train(4).weights_sha256 == whole
    (tmp_path / "texts/0.txt").write_text("another text")
    with pytest.raises(InputError, match="another dataset"):
        Pretrain.load(half)


@pytest.mark.slow
@pytest.mark.engines("native", reason="learners are processes")
def test_the_same_weights_for_one_learner_two_and_one_that_is_killed(folder):
    from shoal.rl import Callback

    class Kill(Callback):
        def on_iteration_end(self, training, report):
            if report.iteration == 2:
                runtime.kill(training.actors.learner.members[0])

    def sha_of(callbacks=(), **settings):
        with Pretrain(dataset=folder, gradient_shards=2, **SMALL, **settings) as pretrain:
            return pretrain.train(15, callbacks=list(callbacks)).weights_sha256

    one = sha_of()
    assert sha_of(learners=2) == one
    assert sha_of([Kill()], learners=2) == one


def test_fine_tuning_and_grpo_begin_with_a_run_and_then_do_not_need_it(serial, folder, tmp_path):
    network = NETWORK | {"tokenizer": "characters"}
    with Pretrain(
        dataset=folder + "," + write(tmp_path, "digits.txt", "0123456789+="), **SMALL | {"policy_kwargs": network}
    ) as pretrain:
        pretrain.train(3)
        pretrain.save(tmp_path / "pretrained")
        weights, size = pretrain.policy.get_weights(), pretrain.tokens.size
    with pytest.raises(InputError, match="evaluate needs an environment"):
        evaluate(tmp_path / "pretrained")
    assert len(evaluate(tmp_path / "pretrained", "sums-1", episodes=2).returns) == 2  # not what it learned from
    with pytest.raises(envs.SpaceMismatchError, match="it cannot act there"):
        evaluate(tmp_path / "pretrained", "CartPole-v1")
    with SFT("sums-1", initial=str(tmp_path / "pretrained"), examples=30, batch_size=4, gradient_steps=3) as sft:
        assert sft.tokens.size == size  # the characters of the texts, not those of the sums
        assert np.array_equal(sft.policy.get_weights(), weights)
        sft.train(3)
        sft.save(tmp_path / "tuned")
        tuned = sft.policy.get_weights()
    assert not np.array_equal(tuned, weights)
    shutil.rmtree(tmp_path / "pretrained")
    small = {"n_envs": 8, "group_size": 4, "samples": 4, "batch_size": 8, "max_new_tokens": 3, "preset": "none"}
    with GRPO("sums-1", initial=str(tmp_path / "tuned"), kl_penalty="k3_in_loss", **small) as grpo:
        assert np.array_equal(grpo.policy.get_weights(), tuned)
        grpo.train(8)
        assert np.array_equal(grpo.actors.snapshot(grpo._start())[0]["target"], tuned)  # the reference
        grpo.save(tmp_path / "grpo")
        grpo.train(8)
        wanted = grpo.policy.get_weights()
    shutil.rmtree(tmp_path / "tuned")
    with GRPO.load(tmp_path / "grpo") as grpo:
        grpo.train(8)
        assert np.array_equal(grpo.policy.get_weights(), wanted)


def write(folder, name, text):
    (folder / name).write_text(text)
    return str(folder / name)


def test_answers_from_columns_messages_and_a_task(serial, tmp_path):
    rows = [{"prompt": "1+1=", "answer": "2"}, {"prompt": "2+2=", "answer": "4"}]
    pairs = write(tmp_path, "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    talk = [
        {"role": "system", "content": "add"},
        {"role": "user", "content": "1+1="},
        {"role": "assistant", "content": "2"},
    ]
    chat = write(tmp_path, "chat.jsonl", json.dumps({"messages": talk}) + "\n")
    assert list(SFT(dataset=pairs, **SMALL).examples()) == [[("1+1=", "2")], [("2+2=", "4")]]
    assert list(SFT(dataset=chat, **SMALL).examples()) == [[("add\n1+1=", "2")]]
    for name, mark in (("rows.csv", ","), ("rows.tsv", "\t")):  # numbers stay texts, and cells may have several lines
        table = write(tmp_path, name, 'prompt,answer\n1+1=,02\n"2+\n2=",\n'.replace(",", mark))
        assert list(SFT(dataset=table, **SMALL).examples()) == [[("1+1=", "02")], [("2+\n2=", "")]]
    sums = list(SFT("sums-2", examples=40, **SMALL).examples())
    assert all(sum(map(int, prompt[:-1].split("+"))) == int(answer) for [(prompt, answer)] in sums)
    kept_back = {envs.make("sums-2", evaluation=True).reset(seed=seed)[0] for seed in range(40)}
    assert not kept_back & {prompt for [(prompt, _)] in sums}
    assert [len(turns) for turns in SFT("recall-3", examples=2, **SMALL).examples()] == [3, 3]
    for [first, second, third] in SFT("recall-3", examples=5, **SMALL).examples():
        assert (first[1], second[1], third[1]) == (first[0], first[0], second[0])


def test_what_cannot_be_learned_is_refused(serial, folder, tmp_path):
    for message, given in {
        "no dataset is given": {},
        "no column 'text'": {"dataset": write(tmp_path, "rows.jsonl", '{"texts": "a"}\n')},
        "'texts'": {"dataset": str(tmp_path / "rows.jsonl")},
        "there is no file": {"dataset": str(tmp_path / "none.txt")},
        "holds no file that ends in": {"dataset": write_folder(tmp_path / "empty")},
        "held_out is 0.9": {"dataset": folder, "held_out": 0.9},
        "no run or policy": {"dataset": str(tmp_path / "texts/0.txt"), "initial": str(tmp_path / "none")},
        "must be of qkv, out": {
            "dataset": str(tmp_path / "texts/0.txt"),
            "policy_kwargs": {"lora": {"targets": ["w"]}},
        },
        "no entry 'ranks'": {"dataset": str(tmp_path / "texts/0.txt"), "policy_kwargs": {"lora": {"ranks": 2}}},
    }.items():
        with pytest.raises((InputError, FileNotFoundError), match=message):
            Pretrain(**SMALL | given).train(1)
    talk = write(tmp_path, "talk.jsonl", '{"messages": "hello"}\n')
    with pytest.raises(InputError, match=r"row 0 of .*: the message 'h' must have a role"):
        list(SFT(dataset=talk, **SMALL).examples())
    with pytest.raises(InputError, match="dataset is '', but must be given, or a task"):
        SFT(**SMALL)
    with Pretrain(dataset=str(tmp_path / "texts/0.txt"), **SMALL) as pretrain:
        pretrain.save(tmp_path / "run")
    with pytest.raises(InputError, match="leave it out"):
        SFT("sums-1", initial=str(tmp_path / "run"), policy_kwargs={"width": 32})
    with pytest.raises(InputError, match="all texts have more tokens"):
        SFT("sums-1", examples=4, policy_kwargs=NETWORK | {"context": 4})


def write_folder(path):
    path.mkdir()
    (path / "picture.bin").write_bytes(b"\0")
    return str(path)


def test_adapters_alone_are_learned_and_begin_with_the_bits_of_the_base(serial, folder, tmp_path):
    with Pretrain(dataset=folder, **SMALL) as pretrain:
        pretrain.train(3)
        pretrain.save(tmp_path / "base")
    base = load_policy(tmp_path / "base").model
    tokens = torch.randint(4, 200, (2, 12))
    lora = {"rank": 2, "alpha": 8, "targets": ["qkv", "down"]}
    given = {"dataset": folder, "initial": str(tmp_path / "base"), **SMALL, "policy_kwargs": {"lora": lora}}
    with Pretrain(**given, learning_rate=0.01) as pretrain:
        assert torch.equal(pretrain.policy.model(tokens), base(tokens))
        pretrain.train(6)
        pretrain.save(tmp_path / "adapted")
        state = pretrain.actors.snapshot(pretrain._start())[0]
    adapted = load_policy(tmp_path / "adapted").model
    assert not torch.equal(adapted(tokens), base(tokens))
    own = dict(base.named_parameters())
    for name, value in adapted.named_parameters():
        assert name.startswith("adapters.") or torch.equal(value, own[name])
    adapters = sum(v.numel() for n, v in adapted.named_parameters() if n.startswith("adapters."))
    assert len(state["optimizers"]["model"]["first_moment"]) == adapters < len(adapted.flat)
    assert np.array_equal(state["optimizers"]["model"]["first_moment"] != 0, np.ones(adapters, bool))
    cache = adapted.cache(2)
    with torch.inference_mode():
        last = torch.zeros(2, dtype=torch.long)
        stepwise = [
            adapted.predict(adapted.extend(cache, tokens[:, [t]], torch.full((2,), t), last, 32)) for t in range(12)
        ]
        torch.testing.assert_close(torch.stack(stepwise, 1), adapted(tokens), atol=1e-4, rtol=0)
    small = {"n_envs": 8, "group_size": 4, "samples": 4, "batch_size": 8, "max_new_tokens": 3, "preset": "none"}
    with GRPO("copy-2", initial=str(tmp_path / "adapted"), **small) as grpo:  # goes on with the same adapters
        assert grpo.model_spec.architecture.lora == lora | {"alpha": 8.0}
        grpo.train(8)


def test_progress_tells_the_loss_where_no_episodes_are_played(serial, folder):
    told = io.StringIO()
    with (
        Pretrain(dataset=folder, **SMALL) as pretrain,
        ProgressDisplay(Console(file=told, width=200)) as display,
    ):
        pretrain.train(3, callbacks=[display])
    lines = told.getvalue().splitlines()
    assert "loss 5." in lines[1]
    assert "pretrain texts: loss 5." in lines[-1]


def test_a_text_file_is_a_row_whole_and_one_that_is_no_text_is_named(serial, tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo")
    assert list(data.read_text(tmp_path, whole_files=True).iter_rows()) == [{"text": "one\n\ntwo"}]
    (tmp_path / ".editor").mkdir()
    (tmp_path / ".editor" / "settings.json").write_text("{}")  # no other kind: it is hidden
    assert list(rows_of_dataset(str(tmp_path))) == [{"text": "one\n\ntwo"}]
    (tmp_path / "b.txt").write_bytes(b"\xff")
    assert issubclass(data.DataError, runtime.InputError)  # the command line tells it in one line
    with pytest.raises(data.DataError, match=r"b\.txt.*no UTF-8"):
        list(data.read_text(tmp_path, whole_files=True).iter_rows())


def test_rows_of_a_function_and_none_of_a_module_that_a_run_holds(serial, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    write(
        tmp_path,
        "own_rows.py",
        "def talk():\n    return [{'prompt': 'a', 'completion': 'b'}] * 4\nnothing = None\nnumbers = [1]\n",
    )
    for name, message in (
        ("nothing", "is None, but must be a"),
        ("numbers", "row 0 of dataset .* is 1, but must be a"),
    ):
        with pytest.raises(InputError, match=message):
            list(SFT(dataset=f"own_rows:{name}", **SMALL).examples())
    with SFT(dataset="own_rows:talk", **SMALL, held_out=0) as sft, RunFolder(tmp_path / "run") as run:
        assert list(sft.examples()) == [[("a", "b")]] * 4
        sft.train(3, callbacks=[run])
    assert (tmp_path / "run/learning_curve.png").exists()  # of what is learned from alone
    with SFT.load(tmp_path / "run") as sft:
        sft.train(3)
    (tmp_path / "own_rows.py").rename(tmp_path / "run/own_rows.py")
    monkeypatch.syspath_prepend(str(tmp_path / "run"))  # as where the run's folder is the current one
    del sys.modules["own_rows"]
    with pytest.raises(InputError, match="own_rows"):
        SFT.load(tmp_path / "run")
