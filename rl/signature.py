"""What `help(PPO)`, an editor and a notebook show of a training's arguments: all settings, by name."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from typing import Any

from .settings import RunSettings


class Signature:
    """As a class attribute `__signature__`: the signature of the class that it is asked of, made when it is asked."""

    def __get__(self, instance: object, owner: type) -> inspect.Signature | None:
        return signature_of(owner) if hasattr(owner, "config_class") else None


class _Rule:
    """A default that follows from other settings."""

    def __init__(self, words: str) -> None:
        self._words = words

    def __repr__(self) -> str:
        return self._words


def signature_of(algorithm: type[Any]) -> inspect.Signature:
    """The algorithm's hyperparameters, arguments that its constructors name, and the run's other settings."""
    found: dict[str, inspect.Parameter] = {}
    for parameter in _parameters(algorithm):
        found.setdefault(parameter.name, parameter)
    return inspect.Signature(sorted(found.values(), key=lambda parameter: parameter.kind))


def _parameters(algorithm: type[Any]) -> Iterator[inspect.Parameter]:
    run = {item.name: _of_setting(algorithm, item) for item in fields(RunSettings)}
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    yield from (_of_setting(algorithm, item) for item in fields(algorithm.config_class))
    for cls in algorithm.__mro__:
        constructor = vars(cls).get("__init__")
        if constructor is not None and constructor is not object.__init__:
            for parameter in list(inspect.signature(constructor).parameters.values())[1:]:
                if parameter.kind not in variable:
                    yield run.get(parameter.name, parameter)  # whose None stands for the setting's own default
    yield from run.values()


def _of_setting(algorithm: type[Any], item: Field[Any]) -> inspect.Parameter:
    if item.name in algorithm.run_defaults:
        default = algorithm.run_defaults[item.name]
    elif "derived" in item.metadata:
        default = _Rule(item.metadata["derived"].words)
    else:
        default = item.default_factory() if item.default_factory is not MISSING else item.default
    return inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=item.type)
