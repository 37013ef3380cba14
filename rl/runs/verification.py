"""Whether iterations of a run, executed once more, are what it has recorded of them.

A synchronous training is repeated from one of its checkpoints, or from its beginning. Of an asynchronous one
`schedule.jsonl` is followed, from the beginning, since what is under way is in no checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...runtime import InputError, get
from ..algorithm import Algorithm
from ..asynchronous.run import AsynchronousRun
from ..asynchronous.schedule import from_lines
from ..clock import Clock
from ..hashes import FILE, Parting, parting
from ..training_state import with_hashes
from .checkpoint import find_run, list_checkpoints
from .metrics import read_metrics
from .saved_training import SavedTraining, read_saved_training

USUAL_ITERATIONS = 100
Tell = Callable[[int, int], None]
"""Is given the number of iterations done and of all."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What executing iterations once more gave."""

    start: int
    """The iteration after which they began; 0: the very beginning."""
    updates: int
    """Iterations that were executed."""
    rollouts: int | None
    """Of an asynchronous training, rollouts of a simulation group that they learned from or dropped."""
    timesteps: int
    """Environment steps in them."""
    compared: int
    """Those of them whose hashes are recorded."""
    parting: Parting | None
    """Where they are not what is recorded; None: nowhere."""
    saved_sha256: str | None
    """Of the weights in the checkpoint that was written after them, if there is one."""
    followed_sha256: str
    """Of those that they led to."""

    @property
    def same(self) -> bool:
        """Whether all is as recorded, bit for bit."""
        return self.parting is None and self.saved_sha256 in (None, self.followed_sha256)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON-able values."""
        return asdict(self) | {"same": self.same}


@dataclass(frozen=True)
class _Window:
    """What is executed."""

    checkpoint: SavedTraining
    """What is loaded."""
    begins: bool
    """Whether at the very beginning, instead of where the checkpoint stands."""
    lines: Sequence[dict[str, Any]]
    """Of the iterations, with their clocks."""
    records: Sequence[Any] = ()
    """Their schedule, if there is one."""


def verify(
    algorithm: type[Algorithm],
    folder: str | Path,
    *,
    from_beginning: bool = False,
    iterations: int | None = None,
    workers: int | None = None,
    learners: int | str | None = None,
    engine: str | None = None,
    tell: Tell = lambda done, all_of_them: None,
) -> Verification:
    """Execute iterations of a run of `algorithm` once more, on any number of workers and learners, and compare hashes.

    Of a synchronous training they begin at the checkpoint that `folder` is; if it is a run, at its newest checkpoint
    that something follows on, else at the beginning; and end after so many `iterations` (default: where the next
    checkpoint stands, 100 at most). An asynchronous one begins at the beginning, and ends where the checkpoint stands.
    Raises InputError if nothing is recorded there, or if it is damaged.
    """
    run, checkpoint = find_run(folder)
    if (run / "schedule.jsonl").exists():
        window = _scheduled(run, read_saved_training(checkpoint, algorithm.name), iterations)
    else:
        named = checkpoint if Path(folder).resolve() == checkpoint.resolve() else None
        window = _recorded(run, algorithm.name, named, from_beginning, iterations)
    source = window.checkpoint.folder
    with algorithm.load(
        source, workers=workers, learners=learners, engine=engine, chaos="none", record="hashes"
    ) as loaded:
        return _execute(loaded, run, window, tell)


def _scheduled(run: Path, saved: SavedTraining, iterations: int | None) -> _Window:
    count = saved.iteration if iterations is None else min(iterations, saved.iteration)
    records = from_lines(read_metrics(run / "schedule.jsonl"))[:count]
    if len(records) < count:
        raise InputError(
            f"schedule.jsonl of run {str(run)!r} has {len(records)} updates, but the checkpoint has seen "
            f"{saved.iteration}: it was not written by this run, or is not whole"
        )
    lines = [{"iteration": record.iteration, "total_timesteps": record.clock.total_timesteps} for record in records]
    return _Window(saved, True, lines, records)


def _recorded(run: Path, name: str, named: Path | None, from_beginning: bool, iterations: int | None) -> _Window:
    lines = list(read_metrics(run / FILE))
    if not lines:
        raise InputError(
            f"run {str(run)!r} has recorded no hashes to compare with: it was trained with record 'none', or by "
            "simulators outside, which cannot be repeated"
        )
    for number, line in enumerate(lines, 1):
        if not isinstance(line.get("total_timesteps"), int):
            raise InputError(f"line {number} of '{run / FILE}' is damaged: it lacks total_timesteps. Restore the file")
    every = [read_saved_training(folder, name) for folder in ([named] if named else list_checkpoints(run))]
    if not every:
        raise InputError(f"run {str(run)!r} has no checkpoint, so there is nothing to begin with")
    starts = [] if from_beginning else [saved for saved in every if _goes_on(saved) and _follows(lines, saved)]
    if not starts and named is not None and not from_beginning:
        why = "nothing was recorded after it" if _goes_on(every[0]) else "it does not hold the replay buffer"
        raise InputError(f"checkpoint {str(named)!r} cannot be begun at: {why}. Verify the run, from its beginning")
    if not starts and every[-1].document["run"].get("initial_policies"):
        raise InputError("the run began with policies of other runs, which it does not hold: name a checkpoint")
    start = starts[-1].iteration if starts else 0
    later = [saved.iteration for saved in every if saved.iteration > start]
    usual = min([start + USUAL_ITERATIONS, *later])
    end = usual if iterations is None else start + iterations
    window = [line for line in lines if start < line["iteration"] <= end]
    return _Window(starts[-1] if starts else every[-1], not starts, window)


def _goes_on(saved: SavedTraining) -> bool:
    """Whether a training goes on from a checkpoint as if it had not stopped."""
    return "save_replay" not in saved.document["hyperparameters"] or saved.replay is not None


def _follows(lines: Sequence[dict[str, Any]], saved: SavedTraining) -> bool:
    return any(line["iteration"] == saved.iteration + 1 for line in lines)


def _execute(loaded: Algorithm, run: Path, window: _Window, tell: Tell) -> Verification:
    actors, made = loaded.actors, []
    if isinstance(actors, AsynchronousRun):
        actors.follow(window.records)
    first = state = actors.initial_state() if window.begins else loaded.state
    layout = actors.description[1]
    for line in window.lines:
        clock = Clock(state.timesteps, line["total_timesteps"])
        outcome = with_hashes(loaded.training_step(actors, state, clock), layout)
        state = outcome.state
        made.append({"iteration": state.iteration, **outcome.hashes})
        tell(len(made), len(window.lines))
    recorded = {line["iteration"]: line for line in read_metrics(run / FILE)}
    beside = [recorded[line["iteration"]] for line in made if line["iteration"] in recorded]
    saved = {int(folder.name): folder for folder in list_checkpoints(run)}.get(state.timesteps)
    rollouts = {each for record in window.records for each in (*record.choice.dropped, *record.choice.learned)}
    return Verification(
        start=first.iteration,
        updates=len(made),
        rollouts=len(rollouts) if window.records else None,
        timesteps=state.timesteps - first.timesteps,
        compared=len(beside),
        parting=parting(made, beside),
        saved_sha256=None if saved is None else _saved_weights(saved, loaded.name),
        followed_sha256=layout.sha256(get(state.weights.ref)),
    )


def _saved_weights(checkpoint: Path, name: str) -> str:
    return str(read_saved_training(checkpoint, name).policy.metadata["weights_sha256"])
