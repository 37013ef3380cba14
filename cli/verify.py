"""`shoal verify`: an asynchronous training once more, as it was recorded."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..algorithms import ALGORITHMS
from ..rl import find_run, load_algorithm_name, run_of, verify
from ..runtime import InputError
from .environments import look_in_current_folder
from .flags import parse
from .output import note, result_output
from .session import running_runtime


@dataclass(frozen=True, kw_only=True)
class VerifyFlags:
    """What to verify, and on what."""

    run: str | None = field(default=None, metadata={"positional": True, "metavar": "RUN"})
    """Run folder of an asynchronous training, or one of its checkpoints."""
    workers: int | None = None
    """Rollout workers. Default: as many as the training had; the result is the same for any number."""
    engine: str | None = field(default=None, metadata={"choices": ("native", "serial", "ray")})
    """Where they run. Default: what SHOAL_ENGINE says, else native on Linux."""
    address: str | None = field(default=None, metadata={"metavar": "ADDRESS"})
    """Of the Ray cluster. Default: a Ray of its own on this machine."""
    json: bool = field(default=False, metadata={"switch": True})
    """Print the result as one line of JSON on standard output; everything else goes to standard error."""


def run(arguments: Sequence[str]) -> int:
    """Run `shoal verify` and return the exit code: 0 if the weights are the same, 1 if not."""
    about = "Follow the recorded schedule of an asynchronous training, and compare the weights with those it saved."
    flags: VerifyFlags = parse("shoal verify", about, {"verification": VerifyFlags}, arguments).build(VerifyFlags)
    if flags.run is None:
        raise InputError("no run is given. Write for example: shoal verify runs/impala-CartPole-v1-1")
    if flags.workers is not None and flags.workers < 1:
        raise InputError(f"--workers is {flags.workers}, but must be at least 1")
    algorithm = ALGORITHMS[load_algorithm_name(find_run(flags.run)[1])]
    with result_output(flags.json) as print_result, running_runtime(flags.engine, flags.address):
        look_in_current_folder(run_of(Path(flags.run)))
        found = verify(algorithm, flags.run, workers=flags.workers, engine=flags.engine, tell=_tell)
        what = f"{found.updates:,} updates on {found.rollouts:,} rollouts ({found.timesteps:,} environment steps)"
        if found.same:
            text = f"the same weights after {what}\nweights_sha256 {found.saved_sha256}"
        else:
            text = (
                f"other weights after {what}: {found.followed_sha256}, the run has {found.saved_sha256}. That is to be "
                "expected on another type of CPU and with other versions of libraries (see config.json), and where "
                "a run went on without its replay buffer (--save-replay)"
            )
        print_result(found.to_json(), text)
    return 0 if found.same else 1


def _tell(done: int, all_of_them: int) -> None:
    tenth = max(1, all_of_them // 10)
    if done % tenth == 0:
        note(f"{done:,} of {all_of_them:,} updates")
