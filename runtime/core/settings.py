"""What `init` is given: the settings of a run, checked, in the form in which engines take them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from ..exceptions import InputError
from .arguments import check_flag, check_name, check_text, in_plain_numbers
from .options import check_resources
from .resources.amounts import HEAD, check_amount
from .resources.machine_memory import machine_memory
from .runtime_env import RuntimeEnv

# Of the machine's memory, for the object store unless its size is given; and the least that it may have, bytes.
_STORE_SHARE = 0.3
_SMALLEST_STORE = 16 << 20
#: Environment variable: bytes of the object store, where `init` is told none.
STORE_MEMORY = "SHOAL_OBJECT_STORE_MEMORY"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One attribute for each argument of `shoal.runtime.init`, which tells their meaning; an engine uses what it can.

    Raises:
        InputError: a value that cannot work.
    """

    address: str | None = None
    num_cpus: float | None = None
    num_gpus: float | None = None
    memory: float | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    preload: Sequence[str] | None = None
    log_to_driver: bool = True
    log_directory: str | None = None
    object_store_memory: int | None = None
    object_spilling_directory: str | None = None
    memory_usage_threshold: float = 0.95
    runtime_env: RuntimeEnv | None = None
    max_lineage_bytes: int = 1 << 30
    infeasible: str = "raise"
    record_call_sites: bool = False
    metrics_port: int | None = None
    listen: str | None = None
    namespace: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.preload, str):
            object.__setattr__(self, "preload", (self.preload,))
        object.__setattr__(self, "resources", dict(self.resources or {}))
        for given in fields(self):
            object.__setattr__(self, given.name, in_plain_numbers(getattr(self, given.name)))
        if self.runtime_env is not None:
            object.__setattr__(self, "runtime_env", RuntimeEnv.of(self.runtime_env))
        check_resources(self.resources)
        if HEAD in self.resources:
            raise InputError(f"resources={{{HEAD!r}: …}}: that is the head's, which has 1 of it by itself")
        for name in ("namespace", "listen", "address"):
            check_name(name, getattr(self, name))
        for module in self.preload or ():
            check_text("preload: a module", module)
        check_flag("log_to_driver", self.log_to_driver)
        check_flag("record_call_sites", self.record_call_sites)
        for name, value in {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus, "memory": self.memory}.items():
            if value is not None:
                check_amount(name, value)
        check_amount("max_lineage_bytes", self.max_lineage_bytes)
        if self.infeasible not in ("raise", "wait"):
            raise InputError(f"infeasible={self.infeasible!r}: want 'raise' or 'wait'")
        port = self.metrics_port
        if port is not None and (isinstance(port, bool) or not isinstance(port, int) or not 0 <= port < 1 << 16):
            raise InputError(f"metrics_port={port!r}: want a port between 0 (any free one) and 65535")
        check_amount("memory_usage_threshold", self.memory_usage_threshold)
        if not 0 < self.memory_usage_threshold <= 1:
            raise InputError(f"memory_usage_threshold={self.memory_usage_threshold!r}: want more than 0 and at most 1")


def store_settings(memory: int | None, directory: str | None) -> tuple[int, str]:
    """Return the size of the object store in bytes, and the folder for objects that it has no room for.

    Args:
        memory: the size; None: what SHOAL_OBJECT_STORE_MEMORY says, else three tenths of the machine's memory.
        directory: the folder, made if it is missing; None: the system's for temporary files.

    Raises:
        InputError: too small or too large a size, or a folder that cannot be written.
    """
    import tempfile  # slow to import, and whoever only looks at the package needs none

    most = machine_memory()
    if memory is None and (told := os.environ.get(STORE_MEMORY)):
        if not told.isdecimal():
            raise InputError(f"the environment variable {STORE_MEMORY} is {told!r}: want a number of bytes")
        memory = int(told)
    size = max(int(most * _STORE_SHARE), _SMALLEST_STORE) if memory is None else memory
    if isinstance(size, bool) or not isinstance(size, int | float) or size != int(size) or size < _SMALLEST_STORE:
        raise InputError(f"object_store_memory={memory!r}: want a number of bytes, at least {_SMALLEST_STORE:,}")
    if size > most:
        raise InputError(f"object_store_memory={memory!r}: this machine has only {most:,} bytes of memory")
    folder = os.path.abspath(tempfile.gettempdir() if directory is None else directory)
    try:
        os.makedirs(folder, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        raise InputError(f"object_spilling_directory={directory!r}: {folder} is no folder that can be written")
    return int(size), folder
