"""Answers of the language model that a folder holds, without a server.

This module doesn't import torch (see `lazy`): the command line, which names it, starts without.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...runtime import InputError
from ..lazy import load
from ..models.joint_spec import spec_from_json
from ..runs.checkpoint import holds_model, policy_metadata
from ..threads import limit_threads
from .asked import Said


def check_language_model(folder: str | Path) -> None:
    """Raise InputError if what a run, checkpoint or policy folder holds is not a language model, or nothing."""
    if holds_model(folder) or not getattr(spec_from_json(policy_metadata(folder)), "is_language", False):
        raise InputError(
            f"{str(folder)!r} holds no language model: its policy chooses actions for observations, not texts. "
            "`shoal evaluate` plays episodes with it, and `shoal serve` serves it"
        )


def answers_of(
    folder: str | Path, prompts: Sequence[str], *, threads: int = 1, **options: Any
) -> Iterator[tuple[int, Said]]:
    """Load the model at `folder`, and answer `prompts` by it; `options` and errors are those of
    `LanguagePolicy.stream`, beside InputError for a folder without a language model. This imports torch."""
    check_language_model(folder)
    limit_threads(threads)
    yield from load("load_policy")(folder).stream(prompts, **options)


def in_order(said: Iterable[tuple[int, Said]]) -> Iterator[tuple[int, Said]]:
    """What is said, the first answer first: the others wait until those before them have ended."""
    waiting: dict[int, list[Said]] = {}
    now = 0
    for index, each in said:
        waiting.setdefault(index, []).append(each)
        while now in waiting:
            ended = False
            for own in waiting[now]:
                ended = own.finish is not None
                yield now, own
            waiting[now] = []
            if not ended:
                break
            del waiting[now]
            now += 1
