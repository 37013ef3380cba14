"""Command-line flags made from dataclasses: one flag per field, its help being the string under the field.

tyro parses and prints the help. Which flags were given is known apart from their values, since a preset fills only
what the user left open. Whatever is wrong becomes an `InputError` of one sentence.
"""

import ast
import contextlib
import copy
import dataclasses
import functools
import inspect
import io
import json
import math
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from ..runtime import InputError, nearest


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a finite number")
    return value


def _whole(text: str) -> int:
    try:
        return int(text.replace("_", ""))
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


def _rate(text: str) -> float | str:
    try:
        return _number(text)
    except ValueError:
        return text  # a schedule such as lin_0.001: the setting itself checks it


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no JSON ({error}); want for example '{{\"gravity\": 9.8}}'") from None
    if not isinstance(value, dict):
        raise ValueError(f"{text!r} is no JSON object; want for example '{{\"gravity\": 9.8}}'")
    return value


_PARSERS: dict[str, tuple[Any, str]] = {
    "int": (_whole, "INT"),
    "float": (_number, "FLOAT"),
    "rate": (_rate, "RATE"),
    "object": (_object, "JSON"),
    "str": (str, "TEXT"),
}


def _kind(annotation: Any) -> str:
    """Return which parser a field's type asks for: rates and unions with None included."""
    members = [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
    if float in members and str in members:
        return "rate"
    origin = typing.get_origin(members[0]) or members[0]
    if origin is typing.Literal:
        return "choice"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "object"
    return origin.__name__ if origin in (int, float, bool, str) else "str"


def field_help(cls: type) -> dict[str, str]:
    """Return the string under each field of a dataclass, by field name, base classes included."""
    helps: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, following in zip(body.body, body.body[1:], strict=False):
            text = following.value if isinstance(following, ast.Expr) else None
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Constant) and isinstance(text.value, str):
                helps[ast.unparse(field.target)] = " ".join(text.value.split())
    return helps


def _default(item: dataclasses.Field[Any]) -> Any:
    return item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return f"(default: {json.dumps(value)})"
    return f"(default: {value})"


def _flag(item: dataclasses.Field[Any], annotation: Any, text: str) -> tuple[Any, Any]:
    """Return the type with which tyro parses a field, and its default: None where a flag can be left open."""
    kind, default = _kind(annotation), _default(item)
    choices = item.metadata.get("choices")
    positional = bool(item.metadata.get("positional"))
    hint = "" if positional else _shown(default)
    marker = tyro.conf.arg(help=text, help_behavior_hint=hint)
    if kind == "bool":
        one_way = (tyro.conf.FlagCreatePairsOff,) if item.metadata.get("switch") else ()
        return Annotated[bool, marker, *one_way], bool(default)
    if choices:
        one_of: Any = typing.Literal.__getitem__(tuple(choices))
        return Annotated[one_of, marker], default
    if kind == "choice":
        return Annotated[annotation, marker], default
    parse, metavar = _PARSERS[kind]
    optional = type(None) in typing.get_args(annotation) and kind in ("int", "float", "rate")
    spec = PrimitiveConstructorSpec(
        nargs=1,
        metavar=item.metadata.get("metavar", metavar),
        instance_from_str=lambda texts: None if optional and texts[0].lower() == "none" else parse(texts[0]),
        is_instance=lambda _: True,
        str_from_instance=lambda value: [str(value)],
    )
    made: Any = Annotated[object, spec, marker]
    return (tyro.conf.Positional[made] if positional else made), default


@dataclasses.dataclass(frozen=True)
class Parsed:
    """What the user gave: values of flags by field name; flags left open are absent from `given`."""

    values: dict[str, Any]
    given: frozenset[str]

    def only_given(self, cls: type) -> dict[str, Any]:
        """Return those values that belong to fields of a dataclass and were given."""
        return {item.name: self.values[item.name] for item in dataclasses.fields(cls) if item.name in self.given}

    def build(self, cls: type) -> Any:
        """Return an instance of a dataclass from the values of its fields."""
        return cls(**{item.name: self.values[item.name] for item in dataclasses.fields(cls)})


def _names(token: str) -> str:
    return token.removeprefix("--").split("=", 1)[0].replace("-", "_")


def parse(prog: str, description: str, groups: Mapping[str, type], arguments: Sequence[str]) -> Parsed:
    """Parse arguments into the fields of several dataclasses. ``--help`` prints the help and exits.

    Args:
        prog: how the command is called, for messages.
        description: text above the help.
        groups: title → dataclass; field names differ between them. A field's metadata may hold `positional`,
            `metavar`, `choices` and `switch` (a flag that is only switched on).
        arguments: what follows the command.

    Raises:
        InputError: an unknown flag (the nearest are named), a missing or bad value.
    """
    parts, fields = [], {}
    for title, cls in groups.items():
        hints, helps = typing.get_type_hints(cls), field_help(cls)
        made = []
        for item in dataclasses.fields(cls):
            kind, default = _flag(item, hints[item.name], helps.get(item.name, ""))
            fields[item.name] = item
            made.append((item.name, kind, dataclasses.field(default_factory=functools.partial(copy.copy, default))))
        part: Any = dataclasses.make_dataclass(title, made)
        parts.append((title, tyro.conf.OmitArgPrefixes[part], dataclasses.field(default_factory=part)))
    everything: Any = dataclasses.make_dataclass("flags", parts)
    with _failures_as_input_errors(prog):
        parsed, unknown = tyro.cli(
            everything, prog=prog, description=description, args=list(arguments), return_unknown_args=True
        )
    if unknown:
        raise InputError(_unknown(unknown[0], fields, prog))
    values = {key: value for title in groups for key, value in vars(getattr(parsed, title)).items()}
    tokens = {_names(token) for token in arguments if token.startswith("--")}
    given = {name for name, item in fields.items() if name in tokens or f"no_{name}" in tokens}
    given |= {name for name, item in fields.items() if item.metadata.get("positional") and values[name] is not None}
    return Parsed(values, frozenset(given))


def _unknown(token: str, fields: Mapping[str, Any], prog: str) -> str:
    if not token.startswith("-"):
        return f"unexpected argument {token!r}. See `{prog} --help`"
    flag = "--" + _names(token).replace("_", "-")
    known = [f"--{name.replace('_', '-')}" for name, item in fields.items() if not item.metadata.get("positional")]
    hint = nearest(flag, known)
    return f"unknown flag {token!r}. {hint if hint.startswith('Did') else ''} See `{prog} --help`".replace("  ", " ")


@contextlib.contextmanager
def _failures_as_input_errors(prog: str) -> Iterator[None]:
    """Turn tyro's boxed error message into the sentence that it holds."""
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            yield
    except SystemExit as end:
        if not end.code:
            raise
        boxed = [re.sub(r"^│ ?| *│$", "", line) for line in message.getvalue().splitlines() if line.startswith("│")]
        sentence = []
        for line in boxed:
            if set(line) <= {"─", " "}:
                break
            sentence.append(line.strip())
        text = " ".join(sentence).removeprefix("Error parsing ") or message.getvalue().strip()
        text = re.sub(r"^Missing value for argument '(.*)'\..*", r"\1 wants a value", text)
        text = re.sub(
            r"^invalid choice (.*) for argument '(.*)'\. Expected one of \((.*)\)", r"\2: \1 is not one of \3", text
        )
        raise InputError(f"{text.rstrip('.')}. See `{prog} --help`") from None
