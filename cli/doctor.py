"""`shoal doctor`: where the time of a run went, and what would make it faster."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..algorithms import ALGORITHMS
from ..envs import has_vector_version
from ..rl import Diagnosis, diagnose, read_config
from ..runtime import InputError
from .flags import parse
from .output import result_output

_WIDTH = 40


@dataclass(frozen=True, kw_only=True)
class DoctorFlags:
    """What to look at."""

    run: str | None = field(default=None, metadata={"positional": True, "metavar": "RUN"})
    """Run folder."""
    json: bool = field(default=False, metadata={"switch": True})
    """Print the result as one line of JSON on standard output; everything else goes to standard error."""


def run(arguments: Sequence[str]) -> int:
    """Run `shoal doctor` and return the exit code."""
    about = (
        "Say which share of a run's time went into environment, inference, transfer, learner and waiting, from what it "
        "has recorded; and which settings would make it faster, and by how much."
    )
    flags: DoctorFlags = parse("shoal doctor", about, {"run": DoctorFlags}, arguments).build(DoctorFlags)
    if flags.run is None:
        raise InputError("no run is given. Write for example: shoal doctor runs/ppo-CartPole-v1-1")
    folder = Path(flags.run)
    with result_output(flags.json) as print_result:
        found = diagnose(folder, **_known(read_config(folder)))
        print_result(found.to_json(), _in_words(found))
    return 0


def _known(config: dict[str, Any]) -> dict[str, Any]:
    """What algorithm and environment can do beside what the run did."""
    algorithm, run = ALGORITHMS.get(config["algorithm"]), config.get("run", {})
    one_learner = run.get("learners") == 1 and run.get("gradient_shards") == 1
    return {
        "can_shard": one_learner and algorithm is not None and algorithm.shards_gradients,
        "can_vectorize": run.get("vectorization") == "sync" and has_vector_version(config["env"]),
    }


def _in_words(found: Diagnosis) -> str:
    lines = [
        f"{found.iterations:,} iterations of {found.iteration_seconds:.3g} s, {found.steps_per_second:,.0f} steps/s"
    ]
    for part, share in found.shares.items():
        lines.append(f"  {part:<11} {share:6.1%}  {'█' * round(_WIDTH * share)}".rstrip())
    lines.append(f"bottleneck: {found.bottleneck} (the learner worked {found.learner_busy:.0%} of the time)")
    lines += [f"  → {suggestion}" for suggestion in found.suggestions]
    if not found.suggestions:
        lines.append("  no setting that is known would gain 5 %")
    return "\n".join(lines)
