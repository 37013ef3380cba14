"""What this machine offers to tasks and actors, and whether a demand can ever be met."""

import os
from collections.abc import Mapping

from .exceptions import InfeasibleError


def machine_resources(
    num_cpus: float | None, num_gpus: float | None, resources: Mapping[str, float]
) -> dict[str, float]:
    """Return this machine's resources by name; None means: look.

    CPUs are the cores that this process may run on, not those of the machine: containers and taskset count.
    """
    cpus = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    total = {"CPU": cpus if num_cpus is None else float(num_cpus)}
    gpus = float(_visible_gpus()) if num_gpus is None else float(num_gpus)
    if gpus:
        total["GPU"] = gpus
    return total | {name: float(amount) for name, amount in resources.items()}


def _visible_gpus() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    if not os.path.exists("/proc/driver/nvidia/gpus"):
        return 0
    return len(os.listdir("/proc/driver/nvidia/gpus"))


def check_feasible(who: str, demand: Mapping[str, float], total: Mapping[str, float]) -> None:
    """Raise InfeasibleError if `demand` is more than `total`, the most that any node has."""
    missing = {name: amount for name, amount in demand.items() if amount > total.get(name, 0)}
    if missing:
        wants = ", ".join(f"{name} {amount:g} (there are {total.get(name, 0):g})" for name, amount in missing.items())
        raise InfeasibleError(
            f"{who} can never run: it asks for {wants}. Ask for less, or start the runtime with more, "
            "such as init(num_cpus=…, resources={…})"
        )
