"""`shoal generate`: answers on the screen."""

import io
import json

import pytest
from gymnasium.spaces import Box, Discrete, Text

from shoal.cli.main import main
from shoal.rl import LanguagePolicy, Policy, Said, in_order
from shoal.rl.models.spec import ModelSpec


@pytest.fixture
def run(tmp_path):
    space = Text(8, charset="abcdefgh")
    spec = ModelSpec("language_model", space, space, {"tokenizer": "characters", "context": 32, "width": 16})
    LanguagePolicy(spec, seed=1).save(tmp_path / "run")
    return str(tmp_path / "run")


def generated(run, capsys, *flags):
    assert main(["generate", run, "--max-new-tokens", "6", *flags]) == 0
    return capsys.readouterr().out


def test_one_prompt_some_samples_and_a_file_of_prompts(run, capsys, tmp_path, monkeypatch):
    text = generated(run, capsys, "--prompt", "abc")
    assert generated(run, capsys, "--prompt", "abc") == text
    assert generated(run, capsys, "--prompt", "abc", "--samples", "3").splitlines()[0] == text.strip("\n")
    assert generated(run, capsys, "--prompt", "abc", "--seed", "4") != text
    (tmp_path / "prompts").write_text("abc\nde\n")
    lines = [
        json.loads(line) for line in generated(run, capsys, "--file", str(tmp_path / "prompts"), "--json").splitlines()
    ]
    assert [line["prompt"] for line in lines] == ["abc", "de"]
    assert lines[0]["text"] == text.strip("\n")
    assert all(line["log_prob"] < 0 and line["finish_reason"] in ("stop", "length") for line in lines)
    monkeypatch.setattr("sys.stdin", io.StringIO("abc\nde\n"))
    assert [json.loads(line) for line in generated(run, capsys, "--json").splitlines()] == lines


def test_prompts_may_be_empty_and_answers_end_before_a_line_break(run, capsys):
    text = generated(run, capsys, "--prompt", "")
    assert text
    assert generated(run, capsys, "--prompt", "", "--stop", "\n") == text


def test_the_first_answer_is_told_as_it_comes_and_others_follow():
    piece, end = Said(4, 0.0, "a"), Said(5, 0.0, "b", "stop")
    coming = iter([(1, piece), (0, piece), (1, end), (0, piece), (0, end), (2, end)])
    told = in_order(coming)
    assert next(told) == (0, piece)
    assert next(coming)[0] == 1  # so the rest had not come yet
    coming = [(1, piece), (0, piece), (1, end), (0, end), (2, end)]
    assert list(in_order(coming)) == [(0, piece), (0, end), (1, piece), (1, end), (2, end)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "there is no prompt"),
        (["--prompt", "az"], "'z'"),
        (["--prompt", "a", "--stop", ""], "some texts that are not empty"),
        (["--prompt", "a" * 40], "no room for an answer in the context of 32"),
        (["--prompt", "a", "--temperature", "-1"], "temperature is -1"),
        (["--prompt", "a", "--top-p", "2"], "top_p is 2"),
        (["--prompt", "a", "--samples", "0"], "--samples is 0"),
        (["--prompt", "a", "--file", "x"], "leave one of them out"),
        (["--file", "nowhere"], "No such file"),
    ],
)
def test_mistakes(run, capsys, monkeypatch, flags, message):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["generate", run, *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_policy_that_chooses_actions_answers_nobody(tmp_path, capsys):
    Policy(Box(-1, 1, (2,)), Discrete(2)).save(tmp_path / "other")
    assert main(["generate", str(tmp_path / "other"), "--prompt", "a"]) == 2
    assert "holds no language model" in capsys.readouterr().err
