"""Continuous batching: what it says does not depend on who else is answered, and is never half of a character."""

import random
from itertools import pairwise

import pytest
import torch
from gymnasium.spaces import Text

from shoal.rl import LanguagePolicy
from shoal.rl.language.agreement import Agreement
from shoal.rl.language.asked import LENGTH, STOP, Asked, conversation
from shoal.rl.language.continuous import ContinuousDecoding
from shoal.rl.language.text_stream import TextStream
from shoal.rl.language.tokens import ByteTokens, make_tokens, train_tokenizer
from shoal.rl.models.spec import ModelSpec
from shoal.runtime import InputError


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


SPACE = Text(8, charset="abcdefgh")


def made(seed=0, **policy_kwargs):
    policy = LanguagePolicy(
        ModelSpec("language_model", SPACE, SPACE, {"tokenizer": "bytes", "context": 200} | policy_kwargs)
    )
    generator = torch.Generator().manual_seed(seed)
    policy.model.flat.add_(torch.randn(policy.model.flat.shape, generator=generator) * 0.1)
    return policy


def asked(policy, prompt, tokens=20, **given):
    return Asked(prompt=conversation([policy.model.tokens.encode(prompt)]), max_new_tokens=tokens, **given)


def answers(policy, requests, places=4, begins=None):
    """What is said to each of `requests`, of which number i comes at step begins[i]."""
    decoding, said, step = ContinuousDecoding(policy.model, places), [[] for _ in requests], 0
    coming = sorted(range(len(requests)), key=lambda i: (begins or {}).get(i, 0))
    with torch.inference_mode():
        while coming or decoding.busy:
            while coming and (begins or {}).get(coming[0], 0) <= step:
                decoding.add(coming[0], requests[coming.pop(0)])
            for key, each in decoding.step():
                said[key].append(each)
            step += 1
    return said


@pytest.mark.parametrize("policy_kwargs", [{}, {"width": 128, "layers": 3, "heads": 4, "kv_heads": 2}])
def test_an_answer_has_the_same_bits_whoever_else_is_answered(policy_kwargs):
    policy, order = made(**policy_kwargs), random.Random(3)
    lengths = [1, 7, 30, 70, 130, 3, 90, 11]
    requests = [
        asked(policy, "abcdefgh" * (n // 8) + "x" * (n % 8), 5 + n % 50, seed=n, alternatives=n % 3, **settings)
        for n, settings in zip(
            lengths,
            [
                {},
                {"temperature": 0.0},
                {"top_k": 3},
                {},
                {"top_p": 0.5},
                {"temperature": 2.0},
                {},
                {"top_k": 5, "top_p": 0.9},
            ],
            strict=True,
        )
    ]
    alone = [answers(policy, [request])[0] for request in requests]
    assert all(alone)
    together = answers(policy, requests)
    assert together == alone  # log-probabilities included, to the last bit
    for _ in range(2):
        begins = {i: order.randrange(30) for i in range(len(requests))}
        assert answers(policy, requests, begins=begins) == alone


def test_passes_are_as_large_as_what_is_answered_and_shapes_that_give_other_bits_are_not_used(monkeypatch):
    policy, shapes = made(width=32), []
    extend, predict = type(policy.model).extend, type(policy.model).predict

    def noted(self, cache, tokens, *rest):
        shapes.append((tuple(tokens.shape), rest[-1]))
        return extend(self, cache, tokens, *rest)

    def other_bits(self, states):
        return predict(self, states) * (1 + 1e-6 * (len(states) in {2, 8}))

    monkeypatch.setattr(type(policy.model), "extend", noted)
    requests = [asked(policy, "abcd" * 3, 12, seed=seed) for seed in range(5)]
    with torch.inference_mode():
        agreed = ContinuousDecoding(policy.model, 16)._agreed
    assert agreed.answers[-1] == 16
    assert agreed.widths[-1] == 128
    del shapes[:]
    alone = answers(policy, requests[:1], places=16)[0]
    assert shapes == [((1, 16), agreed.reach(14))] + [((agreed.rows(1), 1), agreed.reach(15 + i)) for i in range(11)]
    del shapes[:]
    assert answers(policy, requests, places=16)[0] == alone
    assert shapes[0] == ((agreed.prompts_together(16, 5), 16), agreed.reach(14))
    assert max(rows for (rows, length), _ in shapes if length == 1) == agreed.rows(5)
    monkeypatch.setattr(type(policy.model), "predict", other_bits)
    with torch.inference_mode():  # of another network: what agrees is known once it was found out
        assert not {2, 8} & set(ContinuousDecoding(made(width=48).model, 16)._agreed.answers)


def test_attention_looks_at_whole_blocks_and_a_last_one_that_is_as_wide_as_it_must_be():
    agreed = Agreement((4, 16), {}, (32, 96, 128))
    assert [agreed.reach(places) for places in (1, 32, 33, 97, 128, 129, 161, 257)] == [
        32,
        32,
        96,
        128,
        128,
        160,
        224,
        288,
    ]
    assert [agreed.rows(wanted) for wanted in (1, 4, 5, 16)] == [4, 4, 16, 16]


def test_what_is_said_has_the_log_probabilities_of_a_forward_pass():
    policy = made(kv_heads=2, context=400)
    request = asked(policy, "abcdefgh" * 20, 150, seed=5, alternatives=4)
    said = answers(policy, [request])[0]
    ids = torch.tensor([[*request.prompt, *(each.token for each in said)]])
    with torch.no_grad():
        log_policy = policy.model(ids).log_softmax(-1)[0, len(request.prompt) - 1 :]
    assert len(said) > 100  # attention has gone over several blocks
    for at, each in enumerate(said):
        assert each.log_prob == pytest.approx(float(log_policy[at, each.token]), abs=1e-4)
        assert [p for _, p in each.alternatives] == pytest.approx(log_policy[at].topk(4).values.tolist(), abs=1e-4)


def test_generate_repeats_what_streams_and_what_comes_alone():
    policy = made()
    prompts = ["ab", "cd", "e" * 100, "f"] * 6  # more than there are places
    texts = policy.generate(prompts, max_new_tokens=12, seed=7)
    assert texts == policy.generate(prompts, max_new_tokens=12, seed=7)
    assert policy.generate(prompts[:1], max_new_tokens=12, seed=7) == texts[:1]
    pieces = {}
    for index, said in policy.stream(["ab"], samples=3, max_new_tokens=12, seed=7):
        pieces.setdefault(index, []).append(said)
    assert "".join(said.text for said in pieces[0]) == texts[0]
    assert len({tuple(said.token for said in own) for own in pieces.values()}) == 3
    assert policy.generate(["ab"], max_new_tokens=12) != policy.generate(["ab"], max_new_tokens=12)
    greedy = policy.generate(["ab"] * 2, max_new_tokens=12, temperature=0.0)
    assert greedy[0] == greedy[1]


def test_one_that_is_dropped_is_not_computed_any_more_and_its_place_is_free():
    policy = made()
    decoding = ContinuousDecoding(policy.model, 1)
    long, short = asked(policy, "ab", 190, seed=1), asked(policy, "ab", 3, seed=2)
    with torch.inference_mode():
        decoding.add("long", long)
        decoding.add("short", short)
        assert [key for key, _ in decoding.step()] == ["long"]
        decoding.drop("long")
        keys = [key for _ in range(3) for key, _ in decoding.step()]
    assert set(keys) == {"short"}
    assert not decoding.busy


def test_those_who_are_answered_go_on_while_a_long_prompt_is_read():
    policy = made(context=1200)
    decoding = ContinuousDecoding(policy.model, 2)
    with torch.inference_mode():
        decoding.add("first", asked(policy, "ab", 100, seed=1))
        decoding.step()
        decoding.add("long", asked(policy, "a" * 1000, 2, seed=1))
        steps = [[key for key, _ in decoding.step()] for _ in range(7)]
    assert steps == [["first"]] * 7  # 128 tokens of the prompt in each
    with torch.inference_mode():
        assert "long" in [key for key, _ in decoding.step()]


def test_why_an_answer_ends():
    policy = made(context=40)
    ended = answers(policy, [asked(policy, "ab", 100, seed=seed) for seed in range(12)])
    assert {said[-1].finish for said in ended} == {LENGTH, STOP} or {said[-1].finish for said in ended} == {LENGTH}
    for said in ended:
        assert all(each.finish is None for each in said[:-1])
        assert len(said) <= 40 - 4
        assert (said[-1].finish == LENGTH) == (len(said) == 36 and said[-1].token != 3)
    with pytest.raises(InputError, match="no room"):
        policy.generate(["a" * 38])


def streamed(tokens, ids, stop=()):
    text, pieces = TextStream(tokens, stop), []
    for number in ids:
        piece, ended = text.add(number)
        pieces.append(piece)
        if ended:
            return pieces, True
    return [*pieces, text.end()], False


def test_half_of_a_character_is_never_told(tmp_path):
    text = "añ世🎉e\u0301"
    tokens = ByteTokens()
    pieces, _ = streamed(tokens, tokens.encode(text))
    assert "".join(pieces) == text
    assert "�" not in "".join(pieces)
    assert [piece for piece in pieces if piece] == list(text)
    path = tmp_path / "bpe.json"
    train_tokenizer(["the cat sat on the mat"] * 3, 260, path)
    pairs = make_tokens(path.read_text(), "")
    pieces, _ = streamed(pairs, pairs.encode("the cat 世 sat"))
    assert "".join(pieces) == "the cat 世 sat"
    assert not any("�" in piece for piece in pieces)


def test_what_is_no_text_at_all_is_told_as_decoding_it_at_once_does():
    order, tokens = random.Random(0), ByteTokens()
    for _ in range(300):
        ids = [4 + order.choice([0x41, 0xC3, 0xA9, 0xE4, 0xB8, 0x96, 0xFF, 0xF0, 0x80]) for _ in range(12)]
        assert "".join(streamed(tokens, ids)[0]) == tokens.decode(ids)


@pytest.mark.parametrize(
    ("text", "stop", "told"),
    [
        ("one\n\ntwo", ["\n\n"], "one"),
        ("aaab", ["aab"], "a"),
        ("abcabd", ["abd"], "abc"),
        ("one", ["e!"], "one"),
        ("xENDy", ["END", "x"], ""),
        ("世界", ["界"], "世"),
        ("abc", [], "abc"),
    ],
)
def test_a_stop_text_ends_an_answer_across_tokens_and_no_part_of_it_is_told(text, stop, told):
    tokens = ByteTokens()
    pieces, ended = streamed(tokens, tokens.encode(text), stop)
    assert "".join(pieces) == told
    assert ended == (told != text)
    told_by_then = ""
    for piece, following in pairwise([*pieces, ""]):
        told_by_then += piece
        assert told.startswith(told_by_then), following


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"temperature": -1}, "temperature is -1"),
        ({"top_p": 0}, "top_p is 0"),
        ({"top_k": -2}, "top_k is -2"),
        ({"seed": -1}, "seed is -1"),
        ({"stop": ("",)}, "stop is"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
    ],
)
def test_what_cannot_be_asked_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        Asked(**{"prompt": (1, 2), "max_new_tokens": 4} | given)
