"""The one place that loads the modules which import torch, or what else takes long and is rarely needed.

The driver schedules work and must start fast, so it never imports torch: that costs 2–3 s and 200 MB. But it must
name the actor classes `RolloutWorker` and `Learner` and the algorithms, whose work needs torch. So their modules are
free of torch: they write `torch.where(…)` with the `torch` of this module, which loads it at its first use, inside an
actor, and get classes of modules that import it from `load`.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..runtime import import_whole

_MODULES = {
    "FlatAdam": "learn.optimizers",
    "FlatAdamW": "learn.optimizers",
    "FlatRMSprop": "learn.optimizers",
    "FlatSGD": "learn.optimizers",
    "Policy": "models.policy",
    "build_model": "models.build",
    "load_policy": "models.policies",
    "policy_from_files": "models.policies",
    "policy_of": "models.policies",
    "JointModel": "models.joint_model",
    "FlatNetwork": "supervised.flat_network",
    "joined_statistics": "supervised.flat_network",
    "ContinuousDecoding": "language.continuous",
    "Decoding": "language.decoding",
    "make_players": "evolution.players",
    "Sampling": "language.sampling",
    "Sequences": "models.rows",
    "play_texts": "language.evaluation",
    "TableNetwork": "supervised.modules",
    "remember": "models.joint_model",
    "LimitedServer": "serving.http_protocol",
}  # the last imports uvicorn


@cache
def load(name: str) -> Any:
    """The object `name` of one of these modules, which are imported at the first call in a process."""
    return getattr(import_whole(f".{_MODULES[name]}", __package__), name)


if TYPE_CHECKING:
    import torch

    from .language import losses
else:

    class _LazyModule(ModuleType):
        """A module that is imported when something of it is first used."""

        def __getattr__(self, name: str) -> Any:
            value = getattr(import_whole(self.__name__), name)
            setattr(self, name, value)  # at the next use it is an ordinary attribute: no call, no look-up
            return value

    torch = _LazyModule("torch")
    losses = _LazyModule(f"{__package__}.language.losses")
