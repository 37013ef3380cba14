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
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from ..runtime import InputError
from .mistakes import bad_value, check_values_follow, field_name, unknown
from .values import any_text, json_object, number, one_of, rate, some_text, whole_number

#: Types made while the program runs, which a type checker need not understand.
_annotated: Any = Annotated
_conf: Any = tyro.conf


class _BadValueError(Exception):
    """A flag's value cannot be. No ValueError: tyro would frame those with a box and the flag's whole help."""


_PARSERS: dict[str, tuple[Any, str]] = {
    "int": (whole_number, "INT"),
    "float": (number, "FLOAT"),
    "rate": (rate, "RATE"),
    "object": (json_object, "JSON"),
    "str": (some_text, "TEXT"),
}


def _kind(annotation: Any) -> str:
    """Return which parser a field's type asks for: rates and unions with None included."""
    members = [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
    if float in members and str in members:
        return "rate"
    origin = typing.get_origin(members[0]) or members[0]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "object"
    return origin.__name__ if origin in (int, float, bool, str) else "str"


@functools.cache
def field_help(cls: type) -> Mapping[str, str]:
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


def _shown(item: dataclasses.Field[Any]) -> str:
    value = _default(item)
    if "derived" in item.metadata:
        return f"(default: {item.metadata['derived'].words})"
    if value is None or item.metadata.get("switch"):
        return ""
    if isinstance(value, Mapping):
        return f"(default: {json.dumps(value)})"
    return f"(default: {value})"


def _flag(item: dataclasses.Field[Any], annotation: Any, text: str) -> tuple[Any, Any]:
    """Return the type with which tyro parses a field, and its default: None where a flag can be left open."""
    kind, default = _kind(annotation), _default(item)
    positional = bool(item.metadata.get("positional"))
    hint = "" if positional else _shown(item)
    marker = tyro.conf.arg(help=text, help_behavior_hint=hint)
    if kind == "bool":
        one_way = (tyro.conf.FlagCreatePairsOff,) if item.metadata.get("switch") else ()
        return _annotated[bool, marker, *one_way], bool(default)
    parse, metavar = _PARSERS[kind]
    if "choices" in item.metadata:
        parse, metavar = (
            functools.partial(one_of, item.metadata["choices"]),
            f"{{{','.join(item.metadata['choices'])}}}",
        )
    if item.metadata.get("verbatim"):
        parse = any_text
    if kind == "object":
        parse = functools.partial(json_object, item.metadata["example"])
    optional = type(None) in typing.get_args(annotation) and kind in ("int", "float", "rate")
    words = item.metadata["bounds"].words if "bounds" in item.metadata else ()

    def read(texts: list[str]) -> Any:
        if not isinstance(texts[0], str):  # beside an unknown flag, tyro reads a positional that was left open, too
            return default
        if texts[0] in words:
            return texts[0]
        try:
            return None if optional and texts[0].lower() == "none" else parse(texts[0])
        except ValueError as error:
            raise _BadValueError(bad_value(item, texts[0], error)) from None

    spec = PrimitiveConstructorSpec(
        nargs=1,
        metavar=item.metadata.get("metavar", metavar),
        instance_from_str=read,
        is_instance=lambda _: True,
        str_from_instance=lambda value: [str(value)],
    )
    made: Any = Annotated[object, spec, marker]
    return (_conf.Positional[made] if positional else made), default


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


def parse(
    prog: str,
    description: str,
    groups: Mapping[str, type],
    arguments: Sequence[str],
    *,
    of_others: Callable[[], Mapping[str, Sequence[str]]] = dict,
    elsewhere: Callable[[], Mapping[str, str]] = dict,
) -> Parsed:
    """Parse arguments into the fields of several dataclasses. ``--help`` prints the help and exits.

    Args:
        prog: how the command is called, for messages.
        description: text above the help.
        groups: title → dataclass; field names differ between them. A field's metadata may hold `positional`,
            `metavar`, `choices`, `example` (of a JSON object), `switch` (a flag that is only switched on) and
            `verbatim` (a text that may be empty, or blank).
        arguments: what follows the command.
        of_others: tells settings of algorithms → which have them; asked for a flag that this one has not.
        elsewhere: tells what there is for names that settings have in other libraries; asked likewise.

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
        parts.append((title, _conf.OmitArgPrefixes[part], dataclasses.field(default_factory=part)))
    everything: Any = dataclasses.make_dataclass("flags", parts)
    check_values_follow(arguments, fields, prog)
    with _failures_as_input_errors(prog):
        parsed, left_over = tyro.cli(
            everything,
            prog=prog,
            description=description,
            args=list(arguments),
            return_unknown_args=True,
            config=(_conf.HelptextFromCommentsOff,),  # it would look for the source of classes that have none
        )
    if left_over:
        raise InputError(unknown(left_over[0], arguments, fields, prog, others=of_others(), elsewhere=elsewhere()))
    values = {key: value for title in groups for key, value in vars(getattr(parsed, title)).items()}
    tokens = {field_name(token) for token in arguments if token.startswith("--")}
    given = {name for name, item in fields.items() if name in tokens or f"no_{name}" in tokens}
    given |= {name for name, item in fields.items() if item.metadata.get("positional") and values[name] is not None}
    return Parsed(values, frozenset(given))


@contextlib.contextmanager
def _failures_as_input_errors(prog: str) -> Iterator[None]:
    """Turn a bad value, and whatever else tyro refuses, into an InputError."""
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            yield
    except _BadValueError as error:
        raise InputError(f"{error}. See `{prog} --help`") from None
    except SystemExit as end:
        if not end.code:
            raise
        lines = [line.strip(" │|+-─╭╮╰╯") for line in message.getvalue().splitlines()]
        raise InputError(f"{'; '.join(line for line in lines if line)}. See `{prog} --help`") from None
