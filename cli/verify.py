"""`shoal verify`: iterations of a training once more, compared with what it has recorded."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..algorithms import ALGORITHMS
from ..rl import Verification, find_run, load_algorithm_name, run_of, verify
from ..runtime import InputError
from .environments import look_in_current_folder
from .flags import parse
from .output import note, result_output
from .session import running_runtime


@dataclass(frozen=True, kw_only=True)
class VerifyFlags:
    """What to verify, and on what."""

    run: str | None = field(default=None, metadata={"positional": True, "metavar": "RUN"})
    """Run folder, or one of its checkpoints to begin at."""
    iterations: int | None = None
    """How many iterations. Default: up to the next checkpoint, 100 at most; of an asynchronous run all."""
    from_beginning: bool = field(default=False, metadata={"switch": True})
    """Begin at the run's beginning. Default: at its newest checkpoint that something was recorded after, if there is
    one; an asynchronous run always begins there."""
    workers: int | None = None
    """Rollout workers. Default: as many as the training had; the result is the same for any number."""
    learners: str | None = field(default=None, metadata={"metavar": "N"})
    """Learners, as of `shoal train`. Default: as many as the training had; the result is the same for any number."""
    engine: str | None = field(default=None, metadata={"choices": ("native", "serial", "ray")})
    """Where they run. Default: what SHOAL_ENGINE says, else native on Linux."""
    address: str | None = field(default=None, metadata={"metavar": "ADDRESS"})
    """Of the Ray cluster. Default: a Ray of its own on this machine."""
    json: bool = field(default=False, metadata={"switch": True})
    """Print the result as one line of JSON on standard output; everything else goes to standard error."""


def run(arguments: Sequence[str]) -> int:
    """Run `shoal verify` and return the exit code: 0 if all is the same, 1 if not."""
    about = (
        "Execute iterations of a run once more, from a checkpoint or from its beginning, and compare their hashes with "
        "those that it has recorded; of an asynchronous run, follow the schedule that it has recorded."
    )
    flags: VerifyFlags = parse("shoal verify", about, {"verification": VerifyFlags}, arguments).build(VerifyFlags)
    if flags.run is None:
        raise InputError("no run is given. Write for example: shoal verify runs/ppo-CartPole-v1-1")
    for name in ("workers", "iterations"):
        value = getattr(flags, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} is {value}, but must be at least 1")
    name = load_algorithm_name(find_run(flags.run)[1])
    if name not in ALGORITHMS:
        raise InputError(f"{flags.run!r} is a fit by {name}, which records no hashes: fit again, and compare the sums")
    algorithm = ALGORITHMS[name]
    look_in_current_folder(run_of(Path(flags.run)))  # before the runtime: workers look where this process did by then
    with result_output(flags.json) as print_result, running_runtime(flags.engine, flags.address):
        found = verify(
            algorithm,
            flags.run,
            from_beginning=flags.from_beginning,
            iterations=flags.iterations,
            workers=flags.workers,
            learners=flags.learners,
            engine=flags.engine,
            tell=_tell,
        )
        print_result(found.to_json(), _in_words(found))
    return 0 if found.same else 1


def _in_words(found: Verification) -> str:
    rollouts = "" if found.rollouts is None else f", {found.rollouts:,} rollouts"
    begun = "the beginning" if not found.start else f"iteration {found.start}"
    iterations = f"{found.updates:,} iteration{'s' * (found.updates != 1)}"
    what = f"{iterations} from {begun} ({found.timesteps:,} steps{rollouts})"
    if found.same:
        return f"the same in {what}\nweights_sha256 {found.followed_sha256}"
    excuse = (
        "That is to be expected on another type of CPU and with other versions of libraries (see config.json), and "
        "where a run went on without its replay buffer (--save-replay)"
    )
    if found.parting is None:
        return f"other weights after {what}: {found.followed_sha256}, the run has {found.saved_sha256}. {excuse}"
    more = ", ".join(found.parting.quantities)
    return f"not the same in {what}: iteration {found.parting.iteration}, {found.parting.first} ({more}). {excuse}"


def _tell(done: int, all_of_them: int) -> None:
    tenth = max(1, all_of_them // 10)
    if done % tenth == 0:
        note(f"{done:,} of {all_of_them:,} iterations")
