"""What is wrong with a command line, told in one sentence."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ..runtime import InputError, nearest
from .elsewhere import PROMPTS, SEVERAL, instead

_Fields = Mapping[str, "dataclasses.Field[Any]"]
_SWITCH_VALUES = {"true", "false", "yes", "no", "on", "off", "0", "1"}


def field_name(token: str) -> str:
    """Return the field that a flag such as --n-envs=4 is about."""
    return token.lstrip("-").split("=", 1)[0].replace("-", "_")


def flag_name(field: str) -> str:
    """Return the flag of a field."""
    return f"--{field.replace('_', '-')}"


def check_values_follow(arguments: Sequence[str], fields: _Fields, prog: str) -> None:
    """Raise InputError if a flag that wants a value has none, or if a switch has one."""
    for token, following in itertools.zip_longest(arguments, arguments[1:]):
        if not token.startswith("--"):
            continue
        name = field_name(token)
        item = fields.get(name) or fields.get(name.removeprefix("no_"))
        if item is None or item.metadata.get("positional"):
            continue
        if _is_switch(item):
            if "=" in token or (following or "").lower() in _SWITCH_VALUES:
                raise InputError(_switch_with_value(token.partition("=")[0], item, prog))
        elif name in fields and "=" not in token and (following is None or _is_flag(following, fields)):
            raise InputError(f"{token} wants a value. See `{prog} --help`")


def _is_flag(token: str, fields: _Fields) -> bool:
    return token.startswith("--") and field_name(token) in fields


def _is_switch(item: "dataclasses.Field[Any]") -> bool:
    return isinstance(item.default, bool)


def _switch_with_value(flag: str, item: "dataclasses.Field[Any]", prog: str) -> str:
    off = "leave it out" if item.metadata.get("switch") else f"write {flag_name('no_' + item.name)}"
    return f"{flag} takes no value: it switches on by being there; to switch it off, {off}. See `{prog} --help`"


def unknown(
    token: str,
    arguments: Sequence[str],
    fields: _Fields,
    prog: str,
    *,
    others: Mapping[str, Sequence[str]],
    elsewhere: Mapping[str, str],
) -> str:
    """Return what to say of an argument that no flag takes; `others` and `elsewhere` are what `flags.parse` asks."""
    command = prog.split()[1]
    if token.startswith("-") and token.strip("-"):
        known = [flag_name(field) for field, item in fields.items() if not item.metadata.get("positional")]
        name = field_name(token)
        answer = instead(command, name, elsewhere)
        if answer and not prog.endswith("ALGORITHM"):  # or nobody knows which flags there are
            answer = _if_of_others(answer, known, prog, others)
        answer = answer or _of_others(name, prog, others) or _if_near(flag_name(name), known)
        return " ".join(f"unknown flag {token.partition('=')[0]!r}. {sentence(answer)} See `{prog} --help`".split())
    before = list(itertools.takewhile(lambda word: word != token, arguments))
    words = list(itertools.takewhile(lambda word: not word.startswith("--"), reversed(before)))
    name = field_name(before[-len(words) - 1]) if len(words) < len(before) else ""
    if not words or name not in fields or _is_switch(fields[name]):
        takes = [item.metadata.get("metavar", "") for item in fields.values() if item.metadata.get("positional")]
        want = f"{prog} takes one {takes[0]}, and flags" if takes else f"{prog} takes flags only"
        return f"unexpected argument {token!r}: {want}. See `{prog} --help`"
    why = SEVERAL.get(name, f"{flag_name(name)} takes one value. See `{prog} --help`")
    return f"unexpected argument {token!r} after {flag_name(name)} {words[-1]}: {why}"


def bad_value(item: "dataclasses.Field[Any]", text: str, error: ValueError) -> str:
    """Return what to say of a value that a flag cannot have."""
    several = SEVERAL.get(item.name) if any(mark in text for mark in ",[ :") else None
    name = item.metadata.get("metavar", item.name) if item.metadata.get("positional") else flag_name(item.name)
    return f"{name}: {error}" + (f": {several}" if several else "")


def _of_others(name: str, prog: str, of_others: Mapping[str, Sequence[str]]) -> str:
    owners = of_others.get(name)
    if owners is None:
        return ""
    said = f"it is a setting of {', '.join(owners)}, not of {prog.rsplit(maxsplit=1)[-1]}"
    return said + (f", which acts in ENV: {PROMPTS}" if name == "dataset" else "")


def _if_of_others(answer: str, known: Sequence[str], prog: str, of_others: Mapping[str, Sequence[str]]) -> str:
    """An answer of `instead`, with who has the flag that it names, if this command has it not; "" if nobody has."""
    flag = answer.removeprefix("Here it is ").partition(" ")[0].rstrip(",")
    if not flag.startswith("--") or flag in known:
        return answer
    owners = _of_others(field_name(flag), prog, of_others)
    return owners and f"Here it is {flag}: {owners}"


def _if_near(flag: str, known: Sequence[str]) -> str:
    hint = nearest(flag, known)
    return hint if hint.startswith("Did") else ""


def sentence(text: str) -> str:
    """Return a text as a sentence; a file's name at its beginning stays as it is."""
    first = text.partition(" ")[0]
    begun = text.capitalize()[:1] + text[1:] if first.isalpha() else text
    return begun if not text or text.endswith("?") else f"{begun}."
