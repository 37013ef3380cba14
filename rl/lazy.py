"""The one place that loads the modules which import torch, or what else takes long and is rarely needed.

The driver schedules work and must start fast, so it never imports torch: that costs 2–3 s and 200 MB. But it must name
the actor classes `RolloutWorker` and `Learner`, whose work needs the policy, which needs torch. So the modules of these
classes are free of torch, and get what needs torch from here, inside the actor's process. The package's own lazy
exports (`shoal.rl.Policy`) come from here too.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

TORCH_EXPORTS = {
    "Policy": "policy",
    "FlatAdam": "optimizer",
    "Bernoulli": "distributions",
    "Categorical": "distributions",
    "DiagonalGaussian": "distributions",
    "MultiCategorical": "distributions",
}
"""Public name → module of this package which defines it and imports torch."""

_MODULES = {**TORCH_EXPORTS, "LimitedServer": "serving.http_protocol"}  # the last imports uvicorn


def load(name: str) -> Any:
    """The class `name` of one of these modules, which are imported at the first call in a process."""
    return getattr(import_module(f".{_MODULES[name]}", __package__), name)
