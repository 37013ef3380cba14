"""What `shoal train` and `shoal fit` share about runs that are stopped and go on."""

import itertools
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..algorithms import ALGORITHMS, FITS
from ..rl import Algorithm, RunFolder, Training, find_run, load_algorithm_name
from ..runtime import InputError, ShoalError
from .flags import Parsed
from .output import note
from .signals import Stop

_COMMANDS: Mapping[str, Mapping[str, Any]] = {"train": ALGORITHMS, "fit": FITS}


def algorithm_of_run(command: str, arguments: Sequence[str]) -> str | None:
    """Return the algorithm of the run that is to go on by `command`; None if --resume names none.

    Raises:
        InputError: there is no such run, or it is another command's.
    """
    for word, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        flag, equals, value = word.partition("=")
        folder = value if equals else following
        if flag == "--resume" and folder and not folder.startswith("--"):
            name = load_algorithm_name(find_run(folder)[1])
            if name in _COMMANDS[command]:
                return name
            other = next((other for other, known in _COMMANDS.items() if name in known), None)
            how = f"with shoal {other} --resume" if other else "in a program, with the algorithm's load(…)"
            raise InputError(f"that run is of {name}: continue it {how}")
    return None


def refuse_changes(parsed: Parsed, settings: Sequence[type], free: Collection[str], also: Collection[str]) -> None:
    """Raise InputError if a field of `settings` that is not `free`, or one of `also`, was given with --resume."""
    fixed = {item.name for cls in settings for item in fields(cls)}.difference(free).union(also)
    for name in sorted(parsed.given & fixed):
        flag = "--" + name.replace("_", "-")
        anew = f"a new run can begin with its weights: --initial {parsed.values['resume']} {flag} …"
        raise InputError(
            f"{flag} cannot be given with --resume: a run goes on with the settings that it began with"
            + (f"; {anew}" if "initial" in fixed - {name} else "")
        )


def check_total(algorithm: Algorithm, total: int, before: int) -> None:
    """Raise InputError if a run that goes on to another `total` of steps than `before` would not be the run that had it
    from its beginning: what it has done already would have been different."""
    scheduled = algorithm.scheduled(algorithm.config)
    if total != before and scheduled:
        values = ", ".join(f"{name} = {getattr(algorithm.config, name)}" for name in scheduled)
        raise InputError(
            f"--total-timesteps is {total}, but the run began with {before}, and its schedules ({values}) run over all "
            f"steps: with {total} those that are done would have been others. Go on to {before}, begin a new run with "
            f"--total-timesteps {total}, or go on in a program, with {type(algorithm).__name__}.load(…).train(…)"
        )


@dataclass(frozen=True)
class Keeper:
    """Keeps what a command has done by the time that it is stopped.

    Attributes:
        command: that goes on with the run, such as train.
        unit: what its time steps are.
        training, folder: of the run.
        began_at: the time step that this command began at.
    """

    command: str
    unit: str
    training: Training
    folder: RunFolder
    began_at: int

    def unsaved(self) -> str:
        """Return what a second Ctrl-C would lose; "" if that is nothing."""
        steps = self.training.timesteps - self.folder.saved_timesteps
        return f"the {steps:,} {self.unit} since the last checkpoint" if steps > 0 else ""

    def rescue(self, stop: Stop) -> None:
        """Save what was done before something failed, which is told afterwards."""
        stop.finish()
        if self.training.timesteps == self.began_at:
            return
        try:
            self.save("failed")
        except ShoalError as problem:  # the runtime may be what failed
            note(f"{self.unsaved()} could not be saved: {problem}")

    def save(self, what: str) -> None:
        """Save a checkpoint of the last finished iteration, if one was finished, and tell how to go on."""
        done = self.training.timesteps
        if done == self.began_at:
            note(f"{what} before an iteration was finished: there is nothing new to save")
            return
        checkpoint = self.folder.save(self.training)
        resume = shlex.join(["shoal", self.command, "--resume", str(self.folder.path)])
        note(f"{what} after {done:,} {self.unit}; checkpoint: {checkpoint}\ncontinue with: {resume}")
