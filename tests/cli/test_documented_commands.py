"""The commands and flags that the pages show are ones that there are."""

import re
import shlex
import subprocess
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path

import pytest

from shoal.algorithms import ALGORITHMS, FITS
from shoal.cli.elsewhere import _ANSWERS
from shoal.cli.main import _COMMANDS
from shoal.rl import RunSettings

ROOT = Path(__file__).parent.parent.parent
NAMES = subprocess.run(
    ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False
).stdout.split()
if not NAMES:
    pytest.skip("what belongs to the repository is asked of git", allow_module_level=True)


def blocks_and_prose(name):
    """Return a page's blocks of commands, and the page without any blocks."""
    text = (ROOT / name).read_text()
    blocks = re.findall(r"^```(?:sh|bash|yaml)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return blocks, re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def shown():
    """Return (page, words) of every command, in blocks and in the text."""
    found = []
    for name in NAMES:
        blocks, prose = blocks_and_prose(name)
        lines = [line for block in blocks for line in re.findall(r"^.*?\b(shoal [a-z].*)$", block, re.MULTILINE)]
        lines += re.findall(r"^    (shoal [a-z].*)$", prose, re.MULTILINE)
        lines += re.findall(r"`(shoal [a-z][^`]*)`", prose)
        found += [(name, shlex.split(line, comments=True)[1:]) for line in lines]
    return found


def flags_of(command, words):
    """Return the names of the flags that a command has; of training, those of its algorithm, if it is named."""
    module = import_module(f"shoal.cli.{command}")
    classes = [kind for name, kind in vars(module).items() if name.endswith("Flags") and is_dataclass(kind)]
    if command == "train":
        named = [ALGORITHMS[words[0]]] if words and words[0] in ALGORITHMS else ALGORITHMS.values()
        classes += [RunSettings, *(algorithm.config_class for algorithm in named)]
    if command == "fit":
        named = [FITS[words[0]]] if words and words[0] in FITS else FITS.values()
        classes += [kind for fit in named for kind in (fit.run_class, fit.config_class)]
    return {item.name.replace("_", "-") for kind in classes for item in fields(kind)} | {"help"}


def test_commands_that_are_shown_exist_with_their_flags():
    commands, wrong = shown(), []
    assert len(commands) > 100
    for page, (command, *words) in commands:
        if command not in _COMMANDS:
            wrong.append(f"{page}: shoal {command}")
            continue
        known = flags_of(command, words)
        for word in words:
            name = word.removeprefix("--").partition("=")[0]
            if word.startswith("--") and name not in known and name.removeprefix("no-") not in known:
                wrong.append(f"{page}: shoal {command} {word}")
    assert not wrong


def test_flags_that_are_named_alone_exist():
    known = {"version", *(flag for command in _COMMANDS for flag in flags_of(command, []))}
    known |= {name.replace("_", "-") for answers in _ANSWERS.values() for name in answers}  # told what they are here
    for script in (ROOT / "benchmarks").rglob("*.py"):
        known |= set(re.findall(r'"--([a-z][\w-]*)"', script.read_text()))
    wrong = [
        f"{name}: --{flag}"
        for name in NAMES
        for code in re.findall(r"`([^`\n]+)`", blocks_and_prose(name)[1])
        for flag in re.findall(r"(?:^|[ \[])--([a-z][\w-]*)", code)
        if flag not in known and not code.startswith("ray ")
    ]
    assert not wrong
