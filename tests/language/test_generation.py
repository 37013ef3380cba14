"""The transformer, its cache, and what is sampled from it."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Text

from shoal.rl.language import losses
from shoal.rl.language.decoding import Decoding
from shoal.rl.language.sampling import Sampling
from shoal.rl.language.tokens import ANSWER, BEGIN, END, ByteTokens, CharacterTokens, make_tokens, train_tokenizer
from shoal.rl.models.build import build_model
from shoal.rl.models.spec import ModelSpec
from shoal.runtime import InputError

PLAIN = Sampling()


def made(seed=0, **policy_kwargs):
    space = Text(8, charset="abcdefgh")
    given = {"tokenizer": "characters", "kv_heads": 2, "context": 48} | policy_kwargs
    model = build_model(ModelSpec("language_model", space, space, given), seed=seed)
    model.flat.mul_(3)  # a policy that is far from uniform
    return model


def noise(rows, tokens, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).random((rows, tokens)))


def played(model, prompts, turns=1, tokens=5, sampling=PLAIN, seed=0):
    with torch.inference_mode():
        decoding = Decoding(model, len(prompts), sampling)
        said = []
        for turn in range(turns):
            decoding.read([model.tokens.encode(prompt) for prompt in prompts])
            everybody = np.ones(len(prompts), np.bool_)
            said.append(decoding.answer(noise(len(prompts), tokens, seed + turn), everybody))
    return decoding, said


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sampled_log_probabilities_are_those_of_a_forward_pass_over_all_turns(temperature):
    model = made()
    decoding, said = played(model, ["a", "bcdefg", "ab"], turns=3, sampling=Sampling(temperature))
    with torch.no_grad():
        found = losses.log_probs_of(model(decoding.tokens), decoding.tokens, temperature)
    assert decoding.mask.sum() > 15
    assert (found - decoding.log_probs)[decoding.mask].abs().max() < 1e-4
    for row in range(3):  # tokens in, tokens out: what was said is what is learned from
        own = decoding.tokens[row][decoding.mask[row]].tolist()
        assert [i for i in own if i != END] == [i for answer in said for i in answer.ids[row]]
        ids = decoding.tokens[row, : decoding.lengths[row]].tolist()
        assert (ids[0], ids.count(ANSWER)) == (BEGIN, 3)


@pytest.mark.parametrize("policy_kwargs", [{}, {"lora": {"rank": 2}}, {"kv_heads": 4, "tokenizer": "bytes"}])
def test_passes_that_are_planned_ahead_have_the_bits_of_single_ones(policy_kwargs):
    model = made(context=140, **policy_kwargs)
    begins, steps = torch.tensor([25, 3, 120]), 30  # over the ends of tiles, of a block, and of the context
    tokens = torch.arange(3 * steps).view(steps, 3) * 7 % (model.tokens.size - 4) + 4
    with torch.inference_mode():
        one, other = model.cache(3), model.cache(3)
        for cache in (one, other):
            prompt = torch.arange(360).view(3, 120) % 8 + 4
            model.extend(cache, prompt, torch.zeros(3, dtype=torch.long), begins - 1, 128)
        for step, places in enumerate(model.ahead(one, begins, steps)):
            reach, own = -(-(min(120 + step, 140) + 1) // 32) * 32, (begins + step).clamp(max=140)
            wanted = model.extend(other, tokens[step][:, None], own, torch.zeros_like(own), reach)
            assert torch.equal(model.follow(tokens[step], places), wanted)
    assert step == steps - 1


def test_a_row_is_as_it_is_alone_and_unpadded():
    model = made()
    texts = [[BEGIN, 5, 6, 7, ANSWER, 4, 5, END], [BEGIN, 9, ANSWER, END]]
    rows = torch.tensor([texts[0] + [0] * 3, texts[1] + [0] * 7])
    with torch.no_grad():
        together = losses.log_probs_of(model(rows), rows)
        for row, text in zip(together, texts, strict=True):
            alone = torch.tensor([text])
            assert torch.allclose(losses.log_probs_of(model(alone), alone)[0], row[: len(text)], atol=1e-5)


def test_top_k_and_top_p_leave_the_most_likely_and_temperature_0_the_first():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).expand(1000, 4)
    uniform = (torch.arange(1000) + 0.5).double()[:, None] / 1000

    def shares(**settings):
        chosen, full, left = (each[:, 0] for each in Sampling(**settings).draw(logits, uniform)[:3])
        return torch.bincount(chosen, minlength=4).tolist(), full, left, chosen

    assert shares()[0] == [500, 300, 150, 50]
    assert shares(top_k=2)[0] == [625, 375, 0, 0]
    assert shares(top_p=0.81)[0] == [526, 316, 158, 0]
    assert shares(top_p=5e-324)[0] == [1000, 0, 0, 0]
    assert shares(temperature=0)[0] == [1000, 0, 0, 0]
    _, full, left, chosen = shares(top_k=2)  # both are told: of the whole softmax, and of what was sampled from
    assert full[chosen == 1][0].exp() == pytest.approx(0.3)
    assert left[chosen == 1][0].exp() == pytest.approx(0.375)


def test_noise_decides_and_an_answer_ends_with_a_stop_text_or_is_cut_off():
    model = made()
    first, _ = played(model, ["abc", "abc"])
    again, _ = played(model, ["abc", "abc"])
    assert torch.equal(first.tokens, again.tokens)
    other, _ = played(model, ["abc", "abc"], seed=9)
    assert not torch.equal(first.tokens, other.tokens)
    _, [answers] = played(model, ["abc"] * 40, tokens=2)
    assert 0 < answers.ended.sum() < 40
    assert all(len(ids) == 2 for ids, ended in zip(answers.ids, answers.ended, strict=True) if not ended)
    letters = tuple("abcdefgh")
    decoding, [stopped] = played(model, ["abc"] * 4, tokens=9, sampling=Sampling(stop=letters))
    assert stopped.ended.all()
    assert max(map(len, stopped.ids)) == 1
    with torch.inference_mode():  # an END that the framework puts is not the model's own
        decoding.read([model.tokens.encode("a")] * 4)
    ends = decoding.tokens == END
    assert torch.equal(ends & decoding.mask, ends & (decoding.log_probs != 0))


def test_a_stop_text_of_several_tokens_ends_an_answer_where_it_is_said_for_the_first_time():
    model, prompts = made(tokenizer="bytes", width=16), [letter * 3 for letter in "abcdefgh"]
    _, [whole] = played(model, prompts, tokens=40)
    texts = [model.tokens.decode(ids) for ids in whole.ids]
    pairs = {text[5:7] for text in texts if len(text) > 7 and "�" not in text[5:7]}
    assert pairs
    _, [stopped] = played(model, prompts, tokens=40, sampling=Sampling(stop=tuple(pairs)))
    for text, ids in zip(texts, stopped.ids, strict=True):
        ends = [text.index(pair) + 2 for pair in pairs if pair in text]
        assert model.tokens.decode(ids) == text[: min(ends, default=None)]
    assert stopped.ended.sum() > whole.ended.sum()


def test_an_answer_ends_where_the_context_does():
    model = made(context=9)
    decoding, [answers] = played(model, ["abc"] * 6, tokens=20)
    assert decoding.lengths.max() == 9
    assert [len(ids) for ids in answers.ids] == [
        4 if not ended else len(i) for i, ended in zip(answers.ids, answers.ended, strict=True)
    ]


def test_tokens_come_back_as_the_same_text(tmp_path):
    assert ByteTokens().decode(ByteTokens().encode("Grüße, 世界\n")) == "Grüße, 世界\n"
    with pytest.raises(ValueError, match="'z'"):
        CharacterTokens("abc").encode("az")
    path = tmp_path / "bpe.json"
    train_tokenizer(["the cat sat on the mat, the cat"] * 3, 270, path)
    pairs = make_tokens(path.read_text(), "")
    text = "the cat, ünder"
    assert pairs.decode(pairs.encode(text)) == text
    assert len(pairs.encode("the cat")) < len("the cat")
    split = [*pairs.encode("the"), *pairs.encode(" c"), *pairs.encode("at")]
    assert split != pairs.encode("the cat")  # encoded anew, a turn would become other tokens: so it never is
    assert pairs.decode(split) == "the cat"
    with pytest.raises(InputError, match="train_tokenizer"):
        made(tokenizer=str(tmp_path / "none.json"))
