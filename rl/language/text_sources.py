"""Where texts to learn from come from: files by `shoal.data`, a function of the user's, or the right answers of a task.

    documents        a text file each, or the column `text`
    conversations    columns `prompt` and `answer` (or `completion`), or `messages`, as chats have them
    pairs            columns `prompt`, `chosen` and `rejected`

This module imports neither torch nor, where no file of rows is read, pyarrow.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ... import data
from ...envs import EnvSpec, TextEnvironments, episode_seed
from ...runtime import InputError, nearest
from ..models.own_modules import load_named
from ..supervised.stream import is_import_path

Turns = list[tuple[str, str]]
Rows = Iterator[Mapping[str, Any]]

_COMPRESSED = ("", ".gz", ".bz2", ".xz", ".zst")
_KINDS: dict[str, tuple[str, ...]] = {
    "text": (".txt", ".md", ".rst", ".py", ".html"),
    "json": (".jsonl", ".json", ".ndjson"),
    "parquet": (".parquet",),
    "csv": (".csv",),
    "tsv": (".tsv",),
}
_ENDINGS = {kind: tuple(name + end for name in names for end in _COMPRESSED) for kind, names in _KINDS.items()}


def rows_of_dataset(dataset: str) -> Rows:
    """The rows of what `dataset` names: files, folders or patterns, separated by commas, whose endings tell what they
    hold (one kind only; any other ending is text); or "package.module:function", of a function that returns a
    `shoal.data.Dataset` or a list of rows. A text is a row with the column `text`.

    Raises InputError if there is nothing there, or of several kinds; `data.DataError` for what cannot be read.
    """
    if is_import_path(dataset):
        made = load_named("dataset", dataset)
        found = made() if callable(made) else made
        if not hasattr(found, "iter_batches"):
            yield from _own_rows(found, dataset)
            return
    else:
        found = _of_files(dataset)
    with found.iter_batches(batch_format="rows") as batches:
        for rows in batches:
            yield from rows


def _own_rows(found: Any, dataset: str) -> Rows:
    """What a function of the user's has returned, row by row; InputError for what is none."""
    if not isinstance(found, Iterable) or isinstance(found, str | Mapping):
        raise InputError(f"dataset {dataset!r} is {found!r:.80}, but must be a shoal.data.Dataset or a list of rows")
    for number, row in enumerate(found):
        if not isinstance(row, str | Mapping):
            raise InputError(f"row {number} of dataset {dataset!r} is {row!r:.80}, but must be a dictionary, or a text")
        yield {"text": row} if isinstance(row, str) else row


def _of_files(dataset: str) -> Any:
    paths = [path.strip() for path in dataset.split(",") if path.strip()]
    if not paths:
        raise InputError(
            "no dataset is given: name files or a folder with dataset=… (--dataset), or 'package.module:function'"
        )
    kinds = {kind for path in paths for kind in _kinds_at(path)}
    if len(kinds) > 1:
        raise InputError(
            f"dataset is {dataset!r}, which holds files of {' and of '.join(sorted(kinds))}: name one kind"
        )
    kind = next(iter(kinds), "text")
    if kind == "json":
        return data.read_json(paths)
    if kind == "parquet":
        return data.read_parquet(paths)
    if kind in ("csv", "tsv"):  # an answer may be a number, and have several lines
        delimiter = "," if kind == "csv" else "\t"
        return data.read_csv(paths, infer_schema=False, delimiter=delimiter, newlines_in_values=True)
    return data.read_text([file for path in paths for file in _text_files(path)], whole_files=True)


def _kinds_at(path: str) -> set[str]:
    if os.path.isdir(path):
        files = _files_below(path)
        found = {kind for kind, endings in _ENDINGS.items() if any(file.endswith(endings) for file in files)}
        if not found:
            wanted = ", ".join(ending for endings in _KINDS.values() for ending in endings)
            raise InputError(f"dataset is the folder {path!r}, which holds no file that ends in {wanted}")
        return found
    return {next((kind for kind, endings in _ENDINGS.items() if path.lower().endswith(endings)), "text")}


def _text_files(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    return [file for file in _files_below(path) if file.endswith(_ENDINGS["text"])]


def _files_below(folder: str) -> list[str]:
    """All files of a folder, but for hidden ones and those of hidden folders."""
    below = sorted(os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names)
    hidden = (".", "_")
    return [
        file
        for file in below
        if not any(part.startswith(hidden) for part in os.path.relpath(file, folder).split(os.sep))
    ]


# ---- what rows say


def documents_of(rows: Rows, where: str) -> Iterator[str]:
    """The texts of rows."""
    for number, row in enumerate(rows):
        yield _text_at(row, "text", number, where)


def conversations_of(rows: Rows, where: str) -> Iterator[Turns]:
    """The prompts and answers of rows."""
    for number, row in enumerate(rows):
        if row.get("messages") is not None:
            yield _turns_of(row["messages"], f"row {number} of {where}")
            continue
        answer = "completion" if "completion" in row else "answer"
        yield [(_text_at(row, "prompt", number, where), _text_at(row, answer, number, where))]


def pairs_of(rows: Rows, where: str) -> Iterator[tuple[str, str, str]]:
    """Prompt, chosen and rejected answer of rows."""
    for number, row in enumerate(rows):
        prompt, chosen, rejected = (_text_at(row, name, number, where) for name in ("prompt", "chosen", "rejected"))
        if chosen == rejected:
            raise InputError(f"row {number} of {where}: chosen and rejected are the same, {chosen!r:.80}")
        yield prompt, chosen, rejected


def _text_at(row: Mapping[str, Any], column: str, number: int, where: str) -> str:
    if column not in row:
        raise InputError(f"{where} has no column {column!r}. {nearest(column, list(row))}")
    if not isinstance(row[column], str):
        raise InputError(f"row {number} of {where}: {column} is {row[column]!r:.80}, but must be a text")
    return str(row[column])


def _turns_of(messages: Sequence[Any], where: str) -> Turns:
    """Messages in turns: what system and user say, joined by line ends, is a prompt, what the assistant says an
    answer."""
    turns: Turns = []
    asked: list[str] = []
    for message in messages:
        said = message if isinstance(message, Mapping) else {}
        role, content = said.get("role"), said.get("content")
        if role not in ("system", "user", "assistant") or not isinstance(content, str):
            raise InputError(
                f"{where}: the message {message!r:.80} must have a role (system, user or assistant) and a content"
            )
        if role != "assistant":
            asked.append(content)
            continue
        turns.append(("\n".join(asked), content))
        asked = []
    if not turns:
        raise InputError(f"{where}: no message of it is the assistant's, so there is no answer to learn")
    return turns


# ---- a task's own answers


def right_answers(spec: EnvSpec, count: int, seed: int, step_timeout: float | None = None) -> Iterator[Turns]:
    """Episodes of a task between texts, answered as it says itself in `info["right"]`: what it shows may depend on the
    answers before, so each further turn begins the episode again. InputError if it does not say it."""
    environments = TextEnvironments(spec, 1, run_seed=seed, step_timeout=step_timeout)
    try:
        for episode in range(count):
            yield _right_episode(environments, spec.id, episode_seed(seed, episode, 0))
    finally:
        environments.close()


def _right_episode(environments: TextEnvironments, name: str, seed: int) -> Turns:
    turns: Turns = []
    while True:
        prompt, over = environments.reset(0, seed), False
        for _, answer in turns:
            prompt, _, terminated, truncated, _ = environments.step(0, answer)
            over = terminated or truncated
        if over:
            return turns
        right = environments.step(0, "")[4].get("right")
        if not isinstance(right, str):
            raise InputError(
                f"environment {name!r} does not say what is right: info['right'] is {right!r:.80} after a step. Give a "
                "dataset of prompts and answers"
            )
        turns.append((prompt, right))
