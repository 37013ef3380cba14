"""How the settings of one training come together, of what the user gives, a preset and defaults; may it have them?

What the user gives wins over the preset, which wins over what is usual with the algorithm.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..runtime import InputError, nearest
from .chaos import Chaos
from .declaration import Declaration, Learning
from .elsewhere import setting_instead
from .settings import RunSettings, derived_defaults


@dataclass(frozen=True)
class ChosenSettings:
    """All settings of one training."""

    run: RunSettings
    config: Any
    """Hyperparameters."""
    preset: dict[str, Any]
    """What the preset chose of both, by name."""
    derived: dict[str, Any]
    """Hyperparameters whose defaults followed from run settings, by name."""


def choose_settings(
    algorithm: type[Declaration], given: Mapping[str, Any], preset: str | None, env_id: str
) -> ChosenSettings:
    """What is `given` by name, and the rest by a preset (see `find_preset`) and defaults. InputError for names and
    values that cannot be."""
    found = find_preset(algorithm.presets_path, preset, env_id)
    chosen = {name: value for name, value in found.items() if name not in given}
    every = {**algorithm.run_defaults, **chosen, **given}
    of_run, own = split_settings(every, (RunSettings, algorithm.config_class), f"the preset of {algorithm.name}")
    run = RunSettings(**of_run)
    derived = derived_defaults(algorithm.config_class, own, run)
    return ChosenSettings(run, algorithm.config_class(**derived | own), chosen, derived)


def check_kind(algorithm: type[Declaration], run: RunSettings, require: Callable[[bool, str, Any, str], None]) -> None:
    """Check that this kind of training does what the settings want; `require` raises, as `Trainable.require` does."""
    there = {"worker": algorithm.has_workers and run.listen is None, "learner": issubclass(algorithm, Learning)}
    for kind, has in there.items():
        rate = Chaos.read(run.chaos).rate(kind)
        require(has or not rate, f"kill_{kind} in chaos", rate, f"0: no {kind} of {algorithm.name} can be killed")
    require(algorithm.takes_simulators or not run.listen, "listen", run.listen, f"none with {algorithm.name}")
    language_model = "language_model" in algorithm.models
    for name, value in run.kept_without(shards=algorithm.shards_gradients, language_model=language_model).items():
        why = "" if algorithm.shards_gradients else f": {algorithm.unsharded_since}"
        require(getattr(run, name) == value, name, getattr(run, name), f"{value!r} with {algorithm.name}{why}")


def split_settings(given: Mapping[str, Any], config_classes: Iterable[type], what: str) -> list[dict[str, Any]]:
    """Distribute settings over dataclasses by field name; an unknown name raises InputError with the nearest ones.

    `what` names their taker in the message.
    """
    known = [[item.name for item in fields(config_class)] for config_class in config_classes]
    parts: list[dict[str, Any]] = [{} for _ in known]
    for name, value in given.items():
        for part, names in zip(parts, known, strict=True):
            if name in names:
                part[name] = value
                break
        else:
            names = [name for names in known for name in names]
            raise InputError(f"{what} has no setting {name!r}. {setting_instead(name, names)}")
    return parts


def find_preset(table_path: Path | None, preset: str | None, env_id: str) -> dict[str, Any]:
    """The settings that the table of presets holds for an environment.

    `preset` "none" or None finds nothing; "auto" looks `env_id` up and finds nothing if it isn't there; another one is
    the name of an entry, InputError with the nearest ones if there is none; several, separated by commas, are applied
    one after the other.
    `table_path` is a TOML file: [environment id, or name], then settings.
    """
    if preset is None or preset == "none":
        return {}
    table = {} if table_path is None else tomllib.loads(table_path.read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    for name in preset.split(",") if isinstance(preset, str) else [preset]:
        if name not in ("auto", *table):
            raise InputError(
                f"preset is {preset!r}, but must be 'auto', 'none' or an entry of the table. "
                f"{nearest(str(name), table)}"
            )
        found |= table.get(env_id if name == "auto" else name, {})
    return found
