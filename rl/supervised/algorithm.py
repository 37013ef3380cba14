"""The base class of what is fitted to rows: settings, the loop over rounds, checkpoints.

A fit is a pure function of the state: the library's own file after so many rounds. So whoever is killed, the rounds
since the last state are done again, and a fit that is resumed goes on with the same bits.
"""

from __future__ import annotations

import hashlib
import threading
import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import psutil

from ... import runtime
from ...runtime import InputError
from ..callbacks import Callback, IterationReport, TrainingResult, callback_list, under_way
from ..chosen_settings import split_settings
from ..engine import preload, start_runtime
from ..runs.checkpoint import FORMAT, find_checkpoint, read_files, read_json, run_of, write_checkpoint
from ..runs.files import json_bytes
from ..settings import Bounds
from ..trainable import Trainable
from .fit_settings import BoostingConfig, FitSettings
from .fitted import FittedModel
from .metrics import check_metrics, paths_of, scores_on
from .rounds import History
from .saved import check_outside, model_from_files
from .stream import Description, Stream, opened, read_rows, where_of
from .table import TableSchema, read_table, split_rows

Config = TypeVar("Config", bound=BoostingConfig)


@dataclass(frozen=True)
class FitState:
    """Where a fit stands.

    Attributes:
        rounds: done.
        content: the library's own file, or what else `boost` goes on from; None before the first round.
        best: the lowest value of the first metric of what is held out, and the number of rounds up to it.
        best_model: what predicted best, at the end of an iteration; None where it was not kept.
    """

    rounds: int = 0
    content: Any = None
    best: tuple[float, int] | None = None
    best_model: Any = None

    def after(self, content: Any, rounds: int, history: History, model: Any) -> FitState:
        """The state `rounds` rounds later, of which `model` predicts (None: it need not be kept)."""
        best, values = self.best, next(iter(history.get("eval", {}).values()), [])
        for index, value in enumerate(values, 1):  # of each round, or one at the end
            if best is None or value < best[0]:
                best = value, self.rounds + rounds * index // len(values)
        done = self.rounds + rounds
        return FitState(done, content, best, model if best is not None and best[1] == done else self.best_model)


class TableAlgorithm(Trainable, Generic[Config]):
    """A fit to a table; where an algorithm can, to a stream.

    Args:
        dataset: see `read_table`; also "package.module:function", of a function that returns a Dataset.
        eval_dataset: likewise, of rows of the same columns that are held out, instead of `held_out` of the table's.
        engine: starts the runtime with this engine, if it isn't running.
        **settings: fields of `run_class` and of `config_class`.

    Raises InputError, before an actor is started, on an unknown setting, a table that cannot be read, a library that is
    not installed, or a runtime that runs on another engine.
    """

    name: ClassVar[str]
    config_class: ClassVar[type]
    run_class: ClassVar[type[FitSettings]] = FitSettings
    """Of the settings that no result depends on, nearly."""
    module: ClassVar[str]
    """The library."""
    state_file: ClassVar[str | None] = None
    """Of a checkpoint, what is gone on from, where that is more than the model. The model of each state predicts with
    all of it then; else with its first rounds."""
    import_paths: ClassVar[tuple[str, ...]] = ()
    """Hyperparameters that may be the import path of something of the user's."""
    usual_rounds: ClassVar[int] = 100
    """That the command line takes where nobody says how many."""

    def __init__(self, dataset: Any, eval_dataset: Any = None, *, engine: str | None = None, **settings: Any) -> None:
        parts = split_settings(settings, (self.run_class, self.config_class), type(self).__name__)
        if find_spec(self.module) is None:
            raise InputError(
                f"{self.name} needs the package {self.module!r}, which is not installed: "
                f'pip install "shoal[{self.name}]"'
            )
        self.run, self.config = self.run_class(**parts[0]), self.config_class(**parts[1])
        self.preset: Mapping[str, Any] = {}
        self._dataset = where_of(dataset)
        self._eval_dataset = None if eval_dataset is None else {"path": where_of(eval_dataset)}
        start_runtime(engine)
        preload(type(self), "numpy", self.module)
        self.table: Any = dataset if isinstance(dataset, Stream) else self.read(dataset)
        self.train_rows, self.held_out_rows = self._split(eval_dataset)
        check_metrics(self.run.metrics, self.table.schema.classes)
        self.check()
        self._state = FitState()
        self._begun = False
        self._train_lock = threading.Lock()

    # ---- what an algorithm defines

    def read(self, dataset: Any, schema: TableSchema | None = None) -> Any:
        """The rows of a dataset, as those of a schema if there is one: a table, or a stream; raise InputError."""
        return read_table(opened(dataset), self.run.label, self.run.task, schema)

    def check(self) -> None:
        """Check settings against each other and the table; raise InputError."""

    @abstractmethod
    def begin(self) -> None:
        """Start the actors."""

    @abstractmethod
    def boost(self, content: Any, rounds: int) -> tuple[Any, History]:
        """Add rounds to what an earlier call gave (None: to nothing); return it beside what each round measured."""

    @abstractmethod
    def end(self) -> None:
        """End the actors."""

    @abstractmethod
    def model_of(self, predicting: Any, rounds: int) -> FittedModel:
        """The model of what predicts."""

    def predicting(self, content: Any) -> Any:
        """What of a state predicts: all of it, but where there is a `state_file`."""
        return content

    def state_bytes(self, content: Any) -> bytes:
        """The `state_file` of a state."""
        raise NotImplementedError(f"{self.name} has no file of its state")

    def from_files(self, model: bytes, state: bytes | None, timesteps: int) -> tuple[Any, Any]:
        """What `boost` goes on from, and what predicts, from the files of a checkpoint after so many rounds."""
        return model, model

    # ---- what it may use

    def started(self) -> None:
        """Start the actors, if that was not done."""
        if not self._begun:
            self.begin()
            self._begun = True

    # ---- what a user calls

    def train(self, rounds: int = 100, *, callbacks: Callback | Iterable[Callback] | None = None) -> TrainingResult:
        """Boost `rounds` more rounds, or fewer where early stopping ends it; a second call continues."""
        rounds = Bounds(whole=True, at_least=1).read("rounds", rounds)
        watching, first, target = callback_list(callbacks), self.timesteps, self.timesteps + rounds
        began, stopped = time.perf_counter(), False
        with under_way(self, watching, self._train_lock):
            for callback in watching:
                callback.on_training_start(self, target)
            while self.timesteps < target and not stopped and not self._is_over():
                step = min(self.config.rounds_per_iteration, target - self.timesteps)
                content, history = self._boost(step)
                model = None if self.config.early_stopping_rounds is None else self.predicting(content)
                self._state = self._state.after(content, step, history, model)
                elapsed = time.perf_counter() - began
                report = self._report(history, target, elapsed, (self.timesteps - first) / elapsed)
                answers = [callback.on_iteration_end(self, report) for callback in watching]
                stopped = any(answer is False for answer in answers)
            result = self._result(time.perf_counter() - began, interrupted=stopped and self.timesteps < target)
            for callback in watching:
                callback.on_training_end(self, result)
            return result

    @property
    def env_id(self) -> str:
        """Name of the table, where a policy has that of its environment."""
        return self.table.name

    @property
    def timesteps(self) -> int:
        """Rounds done so far."""
        return self._state.rounds

    @property
    def iteration(self) -> int:
        """Finished iterations."""
        return -(-self._state.rounds // self.config.rounds_per_iteration)

    @property
    def model(self) -> FittedModel:
        """The model as of the last finished iteration; InputError before the first."""
        state = self._state
        if state.content is None:
            raise InputError(f"{self.name} has not boosted a round yet: call train() first")
        best = state.best if self.config.early_stopping_rounds is not None else None
        if best is None or self.state_file is None:
            return self.model_of(self.predicting(state.content), state.rounds if best is None else best[1])
        assert state.best_model is not None
        return self.model_of(state.best_model, best[1])

    def evaluate(self, dataset: Any = None) -> dict[str, float]:
        """Scores on the rows that were held out, or on another table of the same columns: see `scores`; and the run's
        `metrics`."""
        rows = self.held_out_rows if dataset is None else self.read(dataset, self.table.schema)
        if rows is None:
            raise InputError("no rows are held out to evaluate on. Give a dataset")
        return scores_on(self.model, rows, self.run.metrics)

    def save(self, folder: str | Path) -> Path:
        """Write a checkpoint of the last finished iteration into `folder`/checkpoints; return its folder."""
        standing = {"format": FORMAT, **self.settings(), "timesteps": self.timesteps, "best": self._state.best}
        model = self.model
        own = {} if self.state_file is None else {self.state_file: self.state_bytes(self._state.content)}
        files = {
            **own,
            **model.files(dataset=self._dataset, eval_dataset=self._eval_dataset, run=asdict(self.run)),
            "training.json": json_bytes(standing),
        }
        return write_checkpoint(folder, self.timesteps, files)

    def save_best(self, folder: str | Path) -> None:
        """None: which rounds are best, the model itself says."""

    @classmethod
    def load(
        cls,
        folder: str | Path,
        dataset: Any = None,
        eval_dataset: Any = None,
        *,
        engine: str | None = None,
        **changes: Any,
    ) -> Any:
        """Go on from a run's newest checkpoint, or from one checkpoint, bit for bit as if it had not stopped.

        `dataset` and `eval_dataset` are needed if they were neither a file nor an import path. InputError if there is
        no checkpoint, or it is damaged, or the table, or the plan of the stream, is another one.
        """
        checkpoint = find_checkpoint(folder)
        files = read_files(checkpoint)
        document = read_json(checkpoint, "training.json", files)
        if document["algorithm"] != cls.name:
            raise InputError(f"the checkpoint at {str(checkpoint)!r} is of {document['algorithm']!r}, not {cls.name!r}")
        run, known = run_of(checkpoint), document["dataset"]
        model = model_from_files(files, str(checkpoint), run).content
        check_outside({name: document["hyperparameters"][name] for name in cls.import_paths}, run)
        check_outside(paths_of(document["run"]["metrics"]), run)
        data = _given_again("dataset", known, dataset, run)
        held_out = _given_again("eval_dataset", document["eval_dataset"], eval_dataset, run)
        if known["description"] is not None:
            data = read_rows(data, document["run"]["label"], description=Description.from_json(known["description"]))
        loaded = cls(data, held_out, engine=engine, **document["run"] | document["hyperparameters"] | changes)
        if loaded.table.checksum != known["checksum"]:
            what = "rows of the table" if known["description"] is None else "files, the stages or their settings"
            raise InputError(
                f"the run was made with another dataset than {loaded.table.name!r} is now: the {what} have changed"
            )
        state = None if cls.state_file is None else files[cls.state_file]
        content, model = loaded.from_files(model, state, document["timesteps"])
        # Without early stopping nobody has kept the weights that were best: those of now may be others.
        kept = state is None or document["hyperparameters"]["early_stopping_rounds"] is not None
        best = tuple(document["best"]) if kept and document["best"] is not None else None
        loaded._state = FitState(document["timesteps"], content, best, model)
        return loaded

    def settings(self) -> dict[str, Any]:
        """All settings, JSON-able."""
        return {
            "algorithm": self.name,
            "env": self.table.name,
            "engine": runtime.engine_name(),
            "run": asdict(self.run),
            "hyperparameters": asdict(self.config),
            "dataset": {"path": self._dataset, **self.table.facts()},
            "eval_dataset": self._eval_dataset,
            "preset": {},
        }

    def close(self) -> None:
        """End the actors. The runtime goes on."""
        if self._begun and runtime.is_initialized():
            self.end()
        self._begun = False

    # ---- inside

    def _split(self, eval_dataset: Any) -> tuple[Any, Any]:
        if eval_dataset is not None:
            held_out = self.read(eval_dataset, self.table.schema)
            if isinstance(held_out, Stream):
                held_out.check_ends()
            return self.table, held_out
        if isinstance(self.table, Stream):
            return self.table, None
        return split_rows(self.table, self.run.held_out, self.run.seed)

    def _boost(self, rounds: int) -> tuple[Any, History]:
        self.started()
        return self.boost(self._state.content, rounds)

    def _is_over(self) -> bool:
        patience, best = self.config.early_stopping_rounds, self._state.best
        return patience is not None and best is not None and self.timesteps - best[1] >= patience

    def _report(self, history: History, target: int, elapsed: float, speed: float) -> IterationReport:
        last = {f"{part}/{name}": values[-1] for part, found in history.items() for name, values in found.items()}
        return IterationReport(
            iteration=self.iteration,
            timesteps=self.timesteps,
            total_timesteps=target,
            metrics={"time/rounds_per_second": speed, **last},
            episodes=(),
            episode_return_mean=None,
            elapsed_seconds=elapsed,
        )

    def _result(self, seconds: float, interrupted: bool) -> TrainingResult:
        content, rounds = self._state.content, self._state.rounds
        weights = b"" if content is None else self.model_of(self.predicting(content), rounds).content
        return TrainingResult(
            algorithm=self.name,
            env=self.table.name,
            seed=self.seed,
            workers=self.workers,
            timesteps=self.timesteps,
            iterations=self.iteration,
            episode_return_mean=None,
            solved=None,
            solved_timesteps=None,
            interrupted=interrupted,
            wall_seconds=seconds,
            total_seconds=time.time() - psutil.Process().create_time(),
            weights_sha256=hashlib.sha256(weights).hexdigest(),
        )


def _given_again(name: str, known: Mapping[str, Any] | None, given: Any, run: Path) -> Any:
    """What a run was made of, found by its path if it is not given; the run's folder holds no code of it."""
    if given is not None or known is None:
        return given
    if known["path"] is None:
        raise InputError(f"the run's {name} was neither a file nor an import path: pass it to load(…, {name}=…)")
    check_outside({name: known["path"]}, run)
    return known["path"]
