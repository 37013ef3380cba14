"""What a run needs to be repeated: the machine, its CPU features and the versions of the libraries."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

#: Libraries whose version can change a number. Asked from their installed metadata: none of them is imported.
LIBRARIES = ("shoal", "torch", "numpy", "gymnasium", "cloudpickle", "msgspec", "safetensors", "xgboost-cpu", "lightgbm")

#: Instruction sets that decide which kernels numpy, MKL and oneDNN choose; results differ in bits between them.
_DECISIVE_FLAGS = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16"),
    *("amx_tile", "amx_int8", "amx_bf16", "asimd", "asimdhp", "sve", "sve2", "bf16"),
)


def library_versions() -> dict[str, str | None]:
    """Return the installed version of each library in `LIBRARIES`; None for one that is not installed."""
    versions: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def cpu_description() -> tuple[str, list[str]]:
    """Return the CPU's model name and those of its features that decide which numerical kernels run."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine(), []
    first = text.split("\n\n", 1)[0]
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return fields.get("model name", platform.machine()), [flag for flag in _DECISIVE_FLAGS if flag in flags]


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def describe_machine() -> dict[str, Any]:
    """Return what `config.json` records of the machine, ready for JSON."""
    model, features = cpu_description()
    thread_variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    return {
        "cpu": model,
        "cpu_features": features,
        "cores": usable_cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "libraries": library_versions(),
        "environment_variables": {name: os.environ[name] for name in thread_variables if name in os.environ},
    }
