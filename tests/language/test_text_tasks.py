"""Tasks between texts that come from packages: puzzles that judge themselves, and sentiments of a lexicon."""

import numpy as np
import pytest

from shoal import envs
from shoal.runtime import InputError


def test_puzzles_repeat_are_held_out_and_score_their_own_answers():
    pytest.importorskip("reasoning_gym")
    settings = {"max_terms": 2, "max_digits": 1}
    env, other = (envs.make("reasoning_gym/chain_sum", evaluation=held, size=50, **settings) for held in (False, True))
    asked = [env.reset(seed=seed)[0] for seed in range(30)]
    assert asked == [env.reset(seed=seed)[0] for seed in range(30)]
    assert len(set(asked)) > 10
    assert asked != [other.reset(seed=seed)[0] for seed in range(30)]
    question, _ = env.reset(seed=3)
    first, sign, second = question.removeprefix("State the final answer to the following arithmetic problem: ").split()[
        :3
    ]
    right = str(int(first) + int(second) * (1 if sign == "+" else -1))
    assert env.step(right)[1:3] == (1.0, True)
    assert env.step("no number")[1] < 0.1
    assert env.observation_space.contains(question)
    with pytest.raises(InputError, match=r"no generator 'chain_sums'.*chain_sum"):
        envs.make("reasoning_gym/chain_sums")
    with pytest.raises(InputError, match="does not take the settings"):
        envs.make("reasoning_gym/chain_sum", min_terms=9, max_terms=1)


def test_sentiments_are_those_of_the_lexicon():
    pytest.importorskip("vaderSentiment")
    env = envs.make("sentiment-32")
    for seed in range(4):
        prompt, _ = env.reset(seed=seed)
        sign = 1 if prompt.startswith("good: ") else -1
        assert env.observation_space.contains(prompt)
        assert env.step("great")[1] == pytest.approx(
            sign * 3.1 / np.sqrt(3.1**2 + 15), abs=1e-4
        )  # the lexicon's valence
        assert env.step("x" * 32 + " great")[1] == 0
    with pytest.raises(InputError, match="length is 0"):
        envs.make("sentiment-0")


@pytest.mark.parametrize(
    ("task", "arguments", "message"),
    [
        ("sums-99", {}, "length is 99, but must be a whole number of at least 1 and at most 18"),
        ("sums-1", {"held_out": 1}, "held_out is 1"),
        ("copy-4", {"sparse": "false"}, "sparse is 'false', but must be true or false"),
        ("copy-4", {"alphabet": "8"}, "alphabet is '8'"),
        ("recall-65", {}, "turns is 65"),
    ],
)
def test_sizes_that_cannot_be_are_refused(task, arguments, message):
    with pytest.raises(InputError, match=message):
        envs.make(task, **arguments)
