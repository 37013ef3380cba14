"""Resources: what this machine offers to tasks and actors, in which units they count, whether a demand can be met.

Amounts are counted in whole ten-thousandths (`UNIT` of them are 1), as in Ray: a thousand tasks of 0.001 CPU fill
one CPU exactly, and what was given back is exactly what was taken.
"""

import glob
import math
import os
from collections.abc import Mapping

from ...exceptions import InfeasibleError, InputError, InputTypeError, nearest
from ..arguments import as_number, in_plain_numbers
from .machine_memory import machine_memory

#: So many units make 1 CPU, 1 GPU, 1 byte of memory.
UNIT = 10_000
#: The largest amount of a resource: its units fit into 64 bits.
MOST = 1e14
#: A resource that only the head has, 1 of it: to pin to the head, ask for a little.
HEAD = "node:__internal_head__"

#: Resources by name, in units. "memory" is a promise between tasks, in bytes: nobody measures it.
Demand = dict[str, int]

# Of the machine's memory; the rest is left to the object store.
_MEMORY_SHARE = 0.7


def in_units(amounts: Mapping[str, float]) -> Demand:
    """Return amounts counted in units, without those of zero.

    An amount between two units is rounded down, so that six tasks of 1/6 fit into 1.
    """
    units = {name: math.floor(in_plain_numbers(amount) * UNIT + 1e-6) for name, amount in amounts.items()}
    return {name: count for name, count in units.items() if count}


def in_amounts(units: Mapping[str, int]) -> dict[str, float]:
    """Return what is counted in units as amounts."""
    return {name: count / UNIT for name, count in units.items()}


def as_text(units: int) -> str:
    """Return an amount as messages show it."""
    return f"{units / UNIT:g}" if units % UNIT else str(units // UNIT)


def check_amount(name: str, value: float) -> None:
    """Raise InputError unless `value` is 0 or a finite number of at least one unit."""
    number = as_number(value)
    if number is None or not math.isfinite(number) or number < 0:
        kind = InputTypeError if number is None else InputError
        raise kind(f"{name}={value!r}: want a number that is not negative")
    if number > MOST:
        raise InputError(f"{name}={value!r}: want at most {MOST:g}")
    if 0 < value < 1 / UNIT:
        raise InputError(f"{name}={value!r}: resources count in steps of {1 / UNIT:g}; want 0 or at least that")


def check_gpus(value: float) -> None:
    """Raise InputError unless `value` GPUs can be had: a share of one, or whole ones."""
    check_amount("num_gpus", value)
    if value > 1 and value != int(value):
        raise InputError(f"num_gpus={value!r}: want a share of one GPU (less than 1), or a whole number of them")


def machine_resources(
    num_cpus: float | None, gpu_ids: list[str], memory: float | None, resources: Mapping[str, float]
) -> Demand:
    """Return this machine's resources; None means: look.

    CPUs are the cores that this process may run on, not those of the machine: containers and taskset count. Memory is
    seven tenths of the machine's, or of what the container may use.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    amounts = {
        "CPU": cpus if num_cpus is None else num_cpus,
        "GPU": len(gpu_ids),
        "memory": int(machine_memory() * _MEMORY_SHARE) if memory is None else memory,
    }
    return {"CPU": 0} | in_units(amounts | dict(resources))


def visible_gpus(num_gpus: float | None) -> list[str]:
    """Return the ids of the GPUs to use, as CUDA_VISIBLE_DEVICES takes them: `num_gpus` of them, None: all there are.

    Raises:
        InputError: a part of a GPU, or more than CUDA_VISIBLE_DEVICES lets this process use.
    """
    if num_gpus is not None and num_gpus != int(num_gpus):
        raise InputError(f"init(num_gpus={num_gpus!r}): a machine has a whole number of GPUs; tasks may share one")
    variable = os.environ.get("CUDA_VISIBLE_DEVICES")
    if variable is not None:
        visible = [device.strip() for device in variable.split(",") if device.strip() not in ("", "-1")]
        if num_gpus is not None and num_gpus > len(visible):
            raise InputError(
                f"init(num_gpus={num_gpus!r}): CUDA_VISIBLE_DEVICES={variable!r} lets this process use {len(visible)}. "
                "Ask for fewer, or set the variable"
            )
        return visible if num_gpus is None else visible[: int(num_gpus)]
    if num_gpus is None:
        driver = "/proc/driver/nvidia/gpus"  # which not every container shows
        shown = len(os.listdir(driver)) if os.path.exists(driver) else 0
        num_gpus = max(shown, len(glob.glob("/dev/nvidia[0-9]*")))
    return [str(index) for index in range(int(num_gpus))]


def missing(demand: Mapping[str, int], total: Mapping[str, int]) -> str:
    """Return what of `demand` is more than `total`, in words with the nearest name; "" if nothing is."""
    parts = []
    for name, units in demand.items():
        if units > total.get(name, 0):
            hint = "" if name in total or name == "GPU" else nearest(name, total)  # which looks like CPU
            hint = f". {hint}" if hint.startswith("Did") else ""
            parts.append(f"{name} {as_text(units)} (there are {as_text(total.get(name, 0))}{hint})")
    return ", ".join(parts)


def infeasible(who: str, wants: str) -> InfeasibleError:
    """Return the error of a request that can never be met."""
    return InfeasibleError(
        f"{who} can never run: it asks for {wants}. Ask for less, or start the runtime with more, "
        "such as init(num_cpus=…, resources={…}), or with infeasible='wait' if the cluster will grow"
    )


def check_feasible(who: str, demand: Mapping[str, int], total: Mapping[str, int]) -> None:
    """Raise InfeasibleError if `demand` is more than `total`, the most that any node has."""
    wants = missing(demand, total)
    if wants:
        raise infeasible(who, wants)
