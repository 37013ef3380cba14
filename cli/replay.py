"""`shoal replay`: one episode of a training once more."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..rl import replay_episode, run_of
from ..runtime import InputError
from .environments import look_in_current_folder
from .flags import parse
from .output import note, result_output


@dataclass(frozen=True, kw_only=True)
class ReplayFlags:
    """What to replay."""

    run: str | None = field(default=None, metadata={"positional": True, "metavar": "RUN"})
    """Run folder."""
    episode: int | None = None
    """Number of the episode, from 1, in the order in which the training's episodes ended."""
    video: str | None = field(default=None, metadata={"metavar": "FILE"})
    """Film it, into a .mp4 or .gif file."""
    json: bool = field(default=False, metadata={"switch": True})
    """Print the result as one line of JSON on standard output; everything else goes to standard error."""


def run(arguments: Sequence[str]) -> int:
    """Run `shoal replay` and return the exit code: 0 if steps and return are those of the training, 1 if not."""
    about = "Play one episode of a training once more, from its recorded seed and actions, and compare its return."
    flags: ReplayFlags = parse("shoal replay", about, {"episode": ReplayFlags}, arguments).build(ReplayFlags)
    if flags.run is None or flags.episode is None:
        raise InputError("no run or episode is given. Write for example: shoal replay runs/cartpole --episode 1")
    with result_output(flags.json) as print_result:
        look_in_current_folder(run_of(Path(flags.run)))
        found = replay_episode(flags.run, flags.episode, video=flags.video)
        if flags.video is not None:
            note(f"video: {flags.video}")
        place = f"episode {found.episode} (iteration {found.iteration}, environment {found.environment})"
        what = f"return {found.episode_return:g} in {found.steps} steps"
        recorded = f"return {found.recorded_return} in {found.recorded_steps} steps"
        told = "as in the training" if found.same else f"but in the training {recorded}"
        print_result(found.to_json(), f"{place}: {what}, {told}")
    return 0 if found.same else 1
