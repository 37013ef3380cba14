"""`shoal fit`: a table or stream → boosted trees or a network → run folder."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..algorithms import FITS
from ..rl import (
    RUNS,
    Callback,
    IterationReport,
    RunFolder,
    RunFolderError,
    TableAlgorithm,
    Training,
    TrainingDivergedError,
    check_vacant,
    check_writable,
    claimed_run_dir,
    find_run,
    make_loggers,
    read_config,
    settings_elsewhere,
)
from ..runtime import InputError, nearest
from .elsewhere import as_flag
from .environments import look_in_current_folder
from .flags import Parsed, parse
from .output import in_words, note, result_output
from .resuming import Keeper, algorithm_of_run, refuse_changes
from .session import running_runtime
from .signals import STOPPED, stop_as_interrupt


@dataclass(frozen=True, kw_only=True)
class FitFlags:
    """What the command knows beside the settings of the fit."""

    dataset: str | None = field(default=None, metadata={"positional": True, "metavar": "TABLE"})
    """A Parquet, CSV or JSONL file; empty cells are missing values, texts are categories. Or package.module:function,
    which returns a shoal.data.Dataset; networks stream it."""
    eval_dataset: str | None = field(default=None, metadata={"metavar": "TABLE"})
    """Likewise, of rows that are held out. Default: part of the table's (--held-out), none of a stream's."""
    rounds: int | None = None
    """Rounds of boosting, or gradient steps of a network, those of a resumed run included. Default: 100; 2,000 of a
    network."""
    run_dir: str | None = field(default=None, metadata={"metavar": "FOLDER"})
    """Run folder to write. Default: runs/ALGORITHM-TABLE-N."""
    overwrite: bool = field(default=False, metadata={"switch": True})
    """Replace the run that is in the run folder."""
    resume: str | None = field(default=None, metadata={"metavar": "RUN"})
    """Continue the run in this folder from its last checkpoint, bit for bit as if it had not been stopped."""
    checkpoint_seconds: float = 60.0
    """Seconds between two checkpoints; one is always saved at the end, and when the fit is stopped."""
    log: str = field(default="", metadata={"metavar": "NAMES"})
    """Further loggers, as of `shoal train`."""
    engine: str | None = field(default=None, metadata={"choices": ("native", "serial", "ray")})
    """Where actors run, as of `shoal train`."""
    address: str | None = field(default=None, metadata={"metavar": "ADDRESS"})
    """Of the Ray cluster, as of `shoal train`."""
    json: bool = field(default=False, metadata={"switch": True})
    """Print the result as one line of JSON on standard output; everything else goes to standard error."""


class _Lines(Callback):
    """Tells each iteration in a line."""

    def on_iteration_end(self, training: Training, report: IterationReport) -> None:
        shown = {name: value for name, value in report.metrics.items() if not name.startswith("time/")}
        note(
            f"{training.name} {training.env_id}: {report.timesteps}/{report.total_timesteps} rounds, {in_words(shown)}"
        )


def _elsewhere() -> dict[str, str]:
    return settings_elsewhere(as_flag, of_learners_alone=True)


def run(arguments: Sequence[str]) -> int:
    """Run `shoal fit` and return the exit code."""
    name, rest = _algorithm_name(list(arguments))
    groups: dict[str, type] = {"fit": FitFlags}
    if name:
        groups |= {"run": FITS[name].run_class, name: FITS[name].config_class}
    about = "Fit boosted trees or a network to a table, into a run folder that `shoal evaluate` and `shoal serve` take."
    parsed = parse(f"shoal fit {name or 'ALGORITHM'}", about, groups, rest, elsewhere=_elsewhere)
    if not name:
        raise InputError(
            f"no algorithm is given; there are: {', '.join(FITS)}. Write for example: shoal fit {_EXAMPLE}"
        )
    flags: FitFlags = parsed.build(FitFlags)
    with (
        result_output(flags.json) as print_result,
        stop_as_interrupt() as stop,
        contextlib.ExitStack() as stack,
    ):
        fit, folder = (_resumed if flags.resume else _new)(FITS[name], parsed, flags, stack)
        usual = int(read_config(folder.path)["total_timesteps"]) if flags.resume else fit.usual_rounds
        total = usual if flags.rounds is None else flags.rounds
        if fit.timesteps >= total:
            raise InputError(f"the run has done {fit.timesteps} of {total} rounds: give a larger --rounds to go on")
        keeper = Keeper("fit", "rounds", fit, folder, fit.timesteps)
        stop.at_risk = keeper.unsaved
        callbacks = [folder, *make_loggers(flags.log, folder.path), _Lines()]
        try:
            result = fit.train(total - fit.timesteps, callbacks=callbacks)
        except KeyboardInterrupt:
            keeper.save("stopped")
            return STOPPED
        except (RunFolderError, TrainingDivergedError) as error:  # a traceback would say no more
            if not isinstance(error, RunFolderError):
                keeper.rescue(stop)
            note(f"error: {error}")
            return 1
        except Exception:
            keeper.rescue(stop)
            raise
        scores = {} if fit.held_out_rows is None else fit.evaluate()
        told = f"held-out rows: {in_words(scores)}\n" if scores else ""
        print_result(result.to_json() | {"scores": scores}, f"{told}run folder: {folder.path}")
    return 0


_EXAMPLE = "xgboost table.parquet --label price"
_FREE = {"workers", "learners", "device"}


def _algorithm_name(rest: list[str]) -> tuple[str | None, list[str]]:
    if rest and not rest[0].startswith("-"):
        if rest[0].lower() not in FITS:
            hint = nearest(rest[0], FITS)
            raise InputError(f"unknown algorithm {rest[0]!r}. {hint} Write for example: shoal fit {_EXAMPLE}")
        return rest[0].lower(), rest[1:]
    return algorithm_of_run("fit", rest), rest


def _new(
    kind: type[TableAlgorithm], parsed: Parsed, flags: FitFlags, stack: contextlib.ExitStack
) -> tuple[TableAlgorithm, RunFolder]:
    if flags.dataset is None:
        raise InputError(f"no table is given. Write for example: shoal fit {_EXAMPLE}")
    if flags.run_dir:
        check_vacant(flags.run_dir, overwrite=flags.overwrite)
    else:
        check_writable(RUNS)
    look_in_current_folder()  # for a network of the user's own
    stack.enter_context(running_runtime(flags.engine, flags.address))
    settings = parsed.only_given(kind.run_class) | parsed.only_given(kind.config_class)
    fit = stack.enter_context(kind(flags.dataset, flags.eval_dataset, engine=flags.engine, **settings))
    name = Path(flags.dataset).stem
    path = Path(flags.run_dir) if flags.run_dir else stack.enter_context(claimed_run_dir(kind.name, name))
    folder = RunFolder(path, overwrite=flags.overwrite, checkpoint_seconds=flags.checkpoint_seconds)
    return fit, stack.enter_context(folder)


def _resumed(
    kind: type[TableAlgorithm], parsed: Parsed, flags: FitFlags, stack: contextlib.ExitStack
) -> tuple[TableAlgorithm, RunFolder]:
    assert flags.resume is not None
    refuse_changes(parsed, (kind.run_class, kind.config_class), _FREE, {"run_dir"})
    path, checkpoint = find_run(flags.resume)
    check_writable(path)
    look_in_current_folder(path)
    stack.enter_context(running_runtime(flags.engine, flags.address))
    changed = {name: parsed.values[name] for name in _FREE if name in parsed.given}
    fit = stack.enter_context(kind.load(checkpoint, flags.dataset, flags.eval_dataset, engine=flags.engine, **changed))
    folder = RunFolder(path, overwrite=flags.overwrite, resume=True, checkpoint_seconds=flags.checkpoint_seconds)
    return fit, stack.enter_context(folder)
