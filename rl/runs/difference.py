"""Where two runs part: their settings, then the first iteration that is not the same, and what of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...runtime import InputError
from ..hashes import FILE, Parting, parting
from ..settings import FREE
from .metrics import read_metrics
from .run_folder import read_config

_PARTS = ("algorithm", "env", "environment", "run", "hyperparameters", "dataset", "total_timesteps", "device")
_MACHINE = ("cpu", "cpu_features", "python", "libraries")
_FREE = {*(f"run.{name}" for name in FREE), "hyperparameters.save_replay"}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What is different between two runs."""

    settings: Mapping[str, tuple[Any, Any]]
    """Those that decide the result, by their names in `config.json`, with both values."""
    machine: Mapping[str, tuple[Any, Any]]
    """What else may decide bits: the type of CPU, versions of libraries."""
    parting: Parting | None
    """Where their hashes part; None: nowhere."""
    iterations: tuple[int, int]
    """How many each has recorded; those that both have are compared."""

    @property
    def same(self) -> bool:
        """Whether all iterations that both have are the same."""
        return self.parting is None

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON-able values."""
        return asdict(self) | {"same": self.same}


def difference(one: str | Path, other: str | Path) -> Difference:
    """Compare what two run folders have recorded; InputError if one of them has recorded no hashes."""
    configs = [read_config(folder) for folder in (one, other)]
    lines = [list(read_metrics(Path(folder) / FILE)) for folder in (one, other)]
    for folder, found in zip((one, other), lines, strict=True):
        if not found:
            raise InputError(
                f"run {str(folder)!r} has recorded no hashes to compare: it was trained with record 'none', or no "
                "iteration of it was finished"
            )
    settings, machine = (
        _differing(*(dict(_flat({name: part.get(name) for name in names})) for part in parts))
        for names, parts in ((_PARTS, configs), (_MACHINE, [config.get("machine", {}) for config in configs]))
    )
    return Difference(
        settings={name: values for name, values in settings.items() if name not in _FREE},
        machine=machine,
        parting=parting(*lines),
        iterations=(len(lines[0]), len(lines[1])),
    )


def _flat(part: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(part, Mapping):
        for key, value in part.items():
            yield from _flat(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, part


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = dict.fromkeys([*one, *other])
    return {name: (one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)}
