"""`shoal generate`: answers of a language model, on the screen as they come."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from json import dumps
from pathlib import Path
from typing import Any

from ..rl import Said, answers_of, check_language_model, in_order, run_of
from ..runtime import InputError
from .environments import look_in_current_folder
from .flags import parse
from .output import note


@dataclass(frozen=True, kw_only=True)
class GenerateFlags:
    """What to answer, and how."""

    run: str | None = field(default=None, metadata={"positional": True, "metavar": "RUN"})
    """Run folder (its last weights), checkpoint folder or saved policy of a language model."""
    prompt: str | None = field(default=None, metadata={"verbatim": True})
    """What to answer. Default: --file, else each line of standard input is a prompt."""
    file: str | None = field(default=None, metadata={"metavar": "FILE"})
    """File of prompts, one a line; - is standard input."""
    max_new_tokens: int | None = None
    """Tokens of an answer at most. Default: up to the end of the model's context."""
    samples: int = 1
    """Answers to each prompt."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the most likely token."""
    top_k: int = 0
    """Sample from this many of the most likely tokens only; 0: from all."""
    top_p: float = 1.0
    """Sample from the most likely tokens that together are as likely as this; 1: from all."""
    stop: str | None = field(default=None, metadata={"verbatim": True})
    """An answer ends before this text, too. Default: only where the model says that it ends."""
    seed: int = 0
    """With an answer's number it decides what is drawn: the same answers again, also from `shoal serve`."""
    threads: int = 1
    """Threads of torch."""
    json: bool = field(default=False, metadata={"switch": True})
    """Print each answer as one line of JSON: prompt, sample, text, tokens, log_prob and finish_reason."""


def run(arguments: Sequence[str]) -> int:
    """Run `shoal generate` and return the exit code."""
    about = "Answer prompts by a language model: one on the screen as it comes, several one after another."
    flags: GenerateFlags = parse("shoal generate", about, {"generation": GenerateFlags}, arguments).build(GenerateFlags)
    if flags.run is None:
        raise InputError("no run is given. Write for example: shoal generate runs/copy --prompt abcd")
    for name in ("samples", "threads"):
        if getattr(flags, name) < 1:
            raise InputError(f"--{name} is {getattr(flags, name)}, but must be at least 1")
    check_language_model(flags.run)
    look_in_current_folder(run_of(Path(flags.run)))
    prompts = _prompts(flags)
    said = answers_of(
        flags.run,
        prompts,
        threads=flags.threads,
        max_new_tokens=flags.max_new_tokens,
        samples=flags.samples,
        seed=flags.seed,
        temperature=flags.temperature,
        top_k=flags.top_k,
        top_p=flags.top_p,
        stop=() if flags.stop is None else (flags.stop,),
    )
    if flags.json:
        _print_lines(in_order(said), prompts, flags.samples)
    else:
        _print_texts(in_order(said))
    return 0


def _prompts(flags: GenerateFlags) -> list[str]:
    if flags.prompt is not None:
        if flags.file is not None:
            raise InputError("--prompt and --file are both given: leave one of them out")
        return [flags.prompt]
    if flags.file in (None, "-"):
        if sys.stdin.isatty():
            note("each line is a prompt; Ctrl-D ends them")
        lines = sys.stdin.read().splitlines()
    else:
        try:
            lines = Path(str(flags.file)).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--file {flags.file}: {getattr(error, 'strerror', None) or error}") from None
    if not lines:
        raise InputError("there is no prompt: give --prompt TEXT, or a line for each in --file or standard input")
    return lines


def _print_texts(said: Iterable[tuple[int, Said]]) -> None:
    """Print texts as they come, each followed by the end of a line."""
    for _, each in said:
        print(each.text, end="" if each.finish is None else "\n", flush=True)


def _print_lines(said: Iterable[tuple[int, Said]], prompts: Sequence[str], samples: int) -> None:
    """Print a line of JSON for each answer, once it has ended."""
    own: list[Said] = []
    for index, each in said:
        own.append(each)
        if each.finish is None:
            continue
        line: dict[str, Any] = {
            "prompt": prompts[index // samples],
            "sample": index % samples,
            "text": "".join(piece.text for piece in own),
            "tokens": len(own),
            "log_prob": sum(piece.log_prob for piece in own),
            "finish_reason": each.finish,
        }
        print(dumps(line, allow_nan=False), flush=True)
        own = []
