"""Settings of what computes gradients."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, field
from typing import Any

from ..runtime import InputError, as_int

_MOST_SHARDS = 1024


@dataclass(frozen=True, kw_only=True)
class LearnerSettings:
    """How minibatches' gradients are computed, and by how many. Raises InputError on values that cannot work."""

    gradient_shards: int = 1
    """Parts into which each minibatch is cut; each one's gradient is computed by itself, and they are summed in a fixed
    tree. It is part of what decides the result's bits, and at most so many learners can share the work. With one
    learner it is what others call gradient accumulation: only one part's activations are in memory."""
    precision: str = field(default="float32", metadata={"choices": ("float32", "bfloat16")})
    """What the forward pass and the loss are computed in; weights, gradients, their sums and moments are float32. With
    bfloat16, where log-probabilities have three digits, ratios of ppo and grpo are off by per cents before a step is
    taken."""
    compile: bool = False
    """Whether torch.compile makes one kernel of many, for each shape of a shard; wants a C++ compiler. It is part of
    what decides the result's bits."""
    gradient_checkpointing: bool = False
    """Whether a language model computes each block's activations a second time, instead of keeping them for the
    gradient: less memory, and a third more work; the same bits."""
    learners: str | int = field(default=1, metadata={"metavar": "N"})
    """Learners (processes, with a GPU each where there are GPUs) that share each minibatch; has no influence on the
    result. MIN:MAX begins with MIN of them, and takes in more, up to MAX, as they come."""

    shard_optimizer: bool = False
    """Whether each of several learners keeps the moments of its part of the parameters alone, and gives the others the
    weights that it comes to (ZeRO's first stage); has no influence on the result. When one dies, the others go back to
    the last snapshot."""
    device: str = "auto"
    """Where learners compute: auto (CUDA if the runtime has GPUs), cpu, cuda, or, one learner, cuda:N."""
    reproducible: str = field(default="always", metadata={"choices": ("always", "world")})
    """What the result's bits depend on beside settings and seed: always, nothing; world, also the number of learners,
    whose gradients torch.distributed sums (gloo or NCCL) instead. All must be there then."""

    @staticmethod
    def kept_without(*, shards: bool, language_model: bool) -> dict[str, Any]:
        """Settings, and the values that they must keep where losses are not cut into shards, or the model is no
        language model. With one shard there is one learner."""
        of_shards = {} if shards else {"gradient_shards": 1, "precision": "float32", "compile": False}
        return of_shards | ({} if language_model else {"gradient_checkpointing": False})

    def read_learners(self) -> None:
        """Check the values, and put them in their common form."""
        shards = as_int(self.gradient_shards)
        if shards is None or not 1 <= shards <= _MOST_SHARDS:
            raise InputError(
                f"gradient_shards is {self.gradient_shards!r}, but must be a whole number of at least 1 and at most "
                f"{_MOST_SHARDS}"
            )
        object.__setattr__(self, "gradient_shards", shards)
        check_compiler(self.compile)
        least, most = _range(self.learners)
        object.__setattr__(self, "learners", least if least == most else f"{least}:{most}")
        if self.reproducible == "world" and self.shard_optimizer:
            raise InputError("shard_optimizer is True, but reproducible is 'world': choose reproducible 'always'")
        if self.reproducible == "world" and least != most:
            raise InputError(
                f"learners is {self.learners!r}, but reproducible is 'world': the number of learners decides the "
                "result then, so it must be one number"
            )
        if most > shards:
            raise InputError(
                f"learners is {self.learners!r}, but gradient_shards is {shards}: each learner needs a shard of its "
                f"own. Choose gradient_shards of at least {most} (it decides the result's bits, so once and for all)"
            )

    def check_engine(self, engine: str | None) -> None:
        """Raise InputError if there cannot be such learners on a runtime's engine."""
        if engine == "serial" and self.reproducible == "world" and self.most_learners > 1:
            raise InputError(
                f"reproducible is 'world' with learners {self.learners!r}, but the serial engine has one learner: "
                "choose engine 'native', or reproducible 'always'"
            )

    @property
    def least_learners(self) -> int:
        """Those to begin with."""
        return _range(self.learners)[0]

    @property
    def most_learners(self) -> int:
        """Those that are wanted."""
        return _range(self.learners)[1]


def check_compiler(wanted: bool) -> None:
    """Raise InputError if torch.compile is wanted, and finds no C++ compiler."""
    names = (os.environ.get("CXX"), "g++", "clang++", "c++")
    if wanted and not any(shutil.which(name) for name in names if name):
        raise InputError(
            "compile is True, but there is no C++ compiler (g++, clang++, or what CXX names), which torch.compile "
            "needs. Install one (apt-get install g++), or leave compile out"
        )


def _range(learners: object) -> tuple[int, int]:
    """Least and largest number of learners, for n or MIN:MAX."""
    found = re.fullmatch(r"(\d+)(?::(\d+))?", str(as_int(learners) or learners).strip())
    least, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= least <= most:
        raise InputError(
            f"learners is {learners!r}, but must be a whole number of at least 1, or two such as '1:4': the least to "
            "go on with and the largest number"
        )
    return least, most
