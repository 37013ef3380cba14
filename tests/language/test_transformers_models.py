"""Causal models of the library transformers from local folders, made on the spot."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import needs

from shoal import runtime
from shoal.algorithms import GRPO, SFT, TokenPPO
from shoal.rl import load_policy, train_tokenizer
from shoal.rl.language.decoding import Decoding
from shoal.rl.language.sampling import Sampling
from shoal.rl.language.tokens import ANSWER, BEGIN, END, SPECIAL
from shoal.runtime import InputError, ShoalError

pytestmark = needs("transformers")
SIZES = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 4, "vocab_size": 270}
LLAMA = {"model_type": "llama", "num_key_value_heads": 2, "intermediate_size": 24, "max_position_embeddings": 40}
GPT2 = {"model_type": "gpt2", "n_layer": 2, "n_embd": 16, "n_head": 4, "n_positions": 40, "vocab_size": 270}


def make(folder, config, dtype=torch.float32):
    """Write a model with random weights, and a tokenizer of 262 tokens."""
    import transformers

    config = dict(config)
    made = transformers.AutoConfig.for_model(config.pop("model_type"), bos_token_id=263, eos_token_id=264, **config)
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(made).to(dtype).eval()
    model.save_pretrained(folder)
    train_tokenizer(["the sea is wide and the sea is deep"] * 4, 262, folder / "tokenizer.json")
    return model


def as_the_library_reads(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(params=[SIZES | LLAMA, GPT2], ids=["llama", "gpt2"])
def folder(request, tmp_path):
    runtime.init(engine="serial")
    make(tmp_path / "model", request.param)
    return tmp_path / "model"


SMALL_WINDOW = {"sliding_window": 6, "num_key_value_heads": 2, "intermediate_size": 24, "max_position_embeddings": 40}
OTHERS = {
    "qwen3": SIZES | LLAMA | {"model_type": "qwen3", "head_dim": 8},
    "gpt_neox": SIZES | {"model_type": "gpt_neox", "intermediate_size": 24, "max_position_embeddings": 40},
    "a window, and no sdpa": SIZES | SMALL_WINDOW | {"model_type": "gemma2", "head_dim": 8},
    "no attention": {"model_type": "mamba", "num_hidden_layers": 1, "hidden_size": 16, "vocab_size": 270},
}


@pytest.mark.parametrize("config", OTHERS.values(), ids=OTHERS)
def test_any_causal_model_says_what_the_library_s_own_pass_does(config, tmp_path):
    runtime.init(engine="serial")
    make(tmp_path / "model", config)
    theirs = as_the_library_reads(tmp_path / "model")
    with SFT("copy-2", initial=str(tmp_path / "model"), **SMALL, policy_kwargs={"context": 40}) as sft:
        model = sft.policy.model
        model.flat.mul_(3)  # far from uniform
        for parameter in theirs.parameters():
            parameter.data.mul_(3)
        ids = torch.cat([torch.full((3, 1), 263), torch.randint(0, 262, (3, 17))], 1)  # longer than the window
        ours = torch.where(ids == 263, BEGIN, ids + SPECIAL)
        with torch.no_grad():
            wanted = torch.log_softmax(theirs(ids).logits, -1)[..., :262]
            found = [model(ours), torch.cat([*model(ours[:2].view(1, -1), packed=True).split(18, 1), model(ours[2:])])]
        for logits in found:  # each in a row of its own, and two in one
            log_probs = torch.log_softmax(logits, -1)[..., SPECIAL:][..., :262]
            torch.testing.assert_close(log_probs, wanted, atol=1e-5, rtol=1e-5)
        prompts = ["ab", "the sea is deep", "b"]
        with torch.inference_mode():
            decoding = Decoding(model, 3, Sampling())
            decoding.read([model.tokens.encode(text) for text in prompts])
            decoding.answer(torch.rand(3, 12, dtype=torch.float64), np.ones(3, bool))
            length = int(decoding.lengths.max())
            tokens, mask = decoding.tokens[:, :length], decoding.mask[:, 1:length]
            again = torch.log_softmax(model(tokens), -1)[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
        assert mask.sum() > 10
        assert (again - decoding.log_probs[:, 1:length])[mask].abs().max() < 1e-4
        texts = sft.policy.generate(prompts, max_new_tokens=8, seed=3)
        assert sft.policy.generate(prompts[:1], max_new_tokens=8, seed=3) == texts[:1]
        sft.train(2)  # and packed rows have gradients


SMALL = {"batch_size": 4, "gradient_steps": 2, "examples": 12, "warmup": 0}


def test_its_log_probs_are_the_library_s_cached_packed_adapted_and_after_a_resume(folder, tmp_path):
    theirs = as_the_library_reads(folder)
    with SFT("copy-2", initial=str(folder), **SMALL, policy_kwargs={"lora": {"rank": 2}}) as sft:
        model = sft.policy.model
        ids = torch.randint(0, 262, (3, 9))
        ours = ids + SPECIAL
        with torch.no_grad():
            wanted, found = torch.log_softmax(theirs(ids).logits, -1), torch.log_softmax(model(ours), -1)
        torch.testing.assert_close(found[..., END], wanted[..., 264], atol=1e-6, rtol=0)
        keep = torch.arange(270) != 264
        torch.testing.assert_close(found[..., SPECIAL:][..., keep], wanted[..., keep], atol=1e-6, rtol=0)
        assert (found[..., END + 1 :].exp().sum(-1) + found[..., END].exp()).allclose(torch.ones(()))
        first = torch.cat([torch.full((3, 1), BEGIN), ours], 1)
        with torch.no_grad():
            row = torch.cat([first[0], first[1]])[None]
            torch.testing.assert_close(model(row, packed=True)[0, 10:], model(first[1:2])[0], atol=1e-5, rtol=0)
            before = model(first)
        sft.train(4)
        sft.save(tmp_path / "run")
        after = sft.policy.model(first)
    shutil.rmtree(folder)  # the run does not need it any more
    assert not torch.equal(after, before)
    again = load_policy(tmp_path / "run").model
    assert torch.equal(again(first), after)
    names = [name for name, _ in again.named_parameters()]
    assert sum(name.startswith("adapters.") for name in names) > 0
    with SFT.load(tmp_path / "run") as sft:
        sft.train(2)
        weights = dict(sft.policy.model.named_parameters())
        assert all(torch.equal(weights[n], p) for n, p in again.named_parameters() if not n.startswith("adapters."))


def test_it_samples_what_it_is_reinforced_by(folder):
    small = {"n_envs": 8, "group_size": 4, "samples": 4, "batch_size": 8, "max_new_tokens": 5, "preset": "none"}
    with GRPO("copy-2", initial=str(folder), **small) as grpo:
        model = grpo.policy.model
        decoding = Decoding(model, 3, Sampling())
        with torch.inference_mode():
            decoding.read([model.tokens.encode(text) for text in ("ab", "the sea is", "b")])
            decoding.answer(torch.rand(3, 6, dtype=torch.float64), np.ones(3, bool))
            decoding.read([model.tokens.encode("a"), None, model.tokens.encode("and the")])
            decoding.answer(torch.rand(3, 6, dtype=torch.float64), np.array([True, False, True]))
            length = int(decoding.lengths.max())
            tokens = decoding.tokens[:, :length]
            found = torch.log_softmax(model(tokens), -1)[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
            mask = decoding.mask[:, 1:length]
            assert (found - decoding.log_probs[:, 1:length])[mask].abs().max() < 1e-4
            assert not (tokens[decoding.mask[:, :length]] == ANSWER).any()
        assert grpo.train(8).iterations == 1
    with TokenPPO("copy-2", initial=str(folder), **small) as ppo:  # with a value of its own for each token
        before = ppo.policy.model.value.weight.detach().clone()
        ppo.train(16)
        assert not torch.equal(ppo.policy.model.value.weight, before)


def test_half_precision_and_names_without_a_prefix_are_read(tmp_path):
    runtime.init(engine="serial")
    model = make(tmp_path / "half", SIZES | LLAMA, torch.bfloat16)
    with SFT("copy-2", initial=str(tmp_path / "half"), **SMALL) as sft:
        own = dict(sft.policy.model.named_parameters())
        for name, value in model.named_parameters():
            assert torch.equal(own[f"network.{name}"], value.float())
    body = model.model.float()
    body.save_pretrained(tmp_path / "body")  # names without "model.", and no head
    shutil.copy(tmp_path / "half/tokenizer.json", tmp_path / "body")
    with pytest.raises(InputError, match=r"the weights of a llama lack: lm_head\.weight"):
        SFT("copy-2", initial=str(tmp_path / "body"), **SMALL).train(1)


def test_what_is_no_such_model_is_refused_with_what_to_do(tmp_path):
    runtime.init(engine="serial")
    make(tmp_path / "model", SIZES | LLAMA)

    def refusal(change, **given):
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(tmp_path / "model", tmp_path / "copy")
        change(tmp_path / "copy")
        with pytest.raises((InputError, ShoalError)) as error:
            SFT("copy-2", initial=str(tmp_path / "copy"), **SMALL, **given).train(1)
        return str(error.value)

    def config(**changes):
        def change(copy):
            known = json.loads((copy / "config.json").read_text())
            (copy / "config.json").write_text(json.dumps(known | changes))

        return change

    assert "it has no config.json" in refusal(lambda copy: (copy / "config.json").unlink())
    for other in ("{}", "5"):
        assert "says no model_type" in refusal(lambda copy, other=other: (copy / "config.json").write_text(other))
    assert "save_pretrained" in refusal(lambda copy: (copy / "model.safetensors").unlink())
    assert "tokenizer.json" in refusal(lambda copy: (copy / "tokenizer.json").unlink())
    assert "code of its own" in refusal(config(auto_map={"AutoModelForCausalLM": "evil.Model"}))
    assert "eos_token_id" in refusal(config(eos_token_id=None))
    assert "at most 40" in refusal(lambda copy: None, policy_kwargs={"context": 64})
    train_tokenizer(["the sea is wide and a ship goes far out over deep water"] * 4, 290, tmp_path / "large.json")
    for given in ({"lora": {"targets": ["qkv"]}}, {"tokenizer": str(tmp_path / "large.json")}):  # nothing has started
        with pytest.raises(InputError, match=r"but must be of down_proj, gate_proj, k_proj|tokens, but the model 270"):
            SFT("copy-2", initial=str(tmp_path / "model"), **SMALL, policy_kwargs=given)
    assert "but must be of down_proj" in refusal(lambda copy: None, policy_kwargs={"lora": {"targets": ["qkv"]}})
    assert "262 tokens, but the model 200" in refusal(config(vocab_size=200))
