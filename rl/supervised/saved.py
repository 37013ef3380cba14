"""Models of tables as they lie in a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ...runtime import InputError
from ..models.own_modules import check_import_path
from ..runs.checkpoint import MODEL, find_checkpoint, read_files, read_json, run_of
from .boosters import LightGBMModel, XGBoostModel
from .fit_settings import FitSettings
from .fitted import FittedModel
from .metrics import paths_of, scores_on
from .network import NetworkModel
from .stream import IMPORT_PATH, Stream, read_rows
from .table import Table, TableSchema, split_rows

_KINDS: dict[str, type[FittedModel]] = {kind.kind: kind for kind in (XGBoostModel, LightGBMModel, NetworkModel)}


def load_model(folder: str | Path) -> FittedModel:
    """The model of a run (its newest checkpoint), or of one checkpoint; InputError if there is none, or a damaged one.

    Nothing in the folder is run, and none of it is a pickle.
    """
    checkpoint = find_checkpoint(folder)
    return model_from_files(read_files(checkpoint), str(folder), run_of(checkpoint))


def check_outside(named: Mapping[str, Any], run: Path) -> None:
    """Raise InputError if one of the import paths that a run names, by what they are, leads into its own folder: what a
    run holds is not run. Other values pass."""
    for what, path in named.items():
        if isinstance(path, str) and IMPORT_PATH.fullmatch(path):
            check_import_path(what, path, run)


def model_from_files(files: Mapping[str, bytes], where: str, run: Path | None = None) -> FittedModel:
    """The model that `FittedModel.files` made; InputError if it needs a module that lies in the folder of `run`."""
    document = read_json(Path(where), MODEL, files)
    kind = _KINDS.get(document["kind"])
    if kind is None or kind.file not in files:
        raise InputError(f"{where!r} holds no model of a kind that there is: {', '.join(_KINDS)}")
    if run is not None:
        check_outside({"module": document["details"].get("module")}, run)
    schema = TableSchema.from_json(document["schema"])
    return kind(schema, files[kind.file], document["rounds"], document["details"])


def evaluate_model(folder: str | Path, dataset: Any = None) -> dict[str, float]:
    """Scores of a run's model on rows of the same columns; default: on those that its training held out."""
    checkpoint = find_checkpoint(folder)
    files = read_files(checkpoint)
    document = read_json(checkpoint, MODEL, files)
    known_settings = {item.name for item in fields(FitSettings)}  # a network's run has others, too
    folder = run_of(checkpoint)
    run = FitSettings(**{name: value for name, value in document["run"].items() if name in known_settings})
    model = model_from_files(files, str(checkpoint), folder)
    known = document["eval_dataset"]
    where = dataset if dataset is not None else document["dataset"] if known is None else known["path"]
    if where is None:
        raise InputError("the run's dataset was no file: say what to evaluate on (--dataset)")
    if dataset is None:
        check_outside({"dataset": where}, folder)
    rows: Table | Stream | None = read_rows(where, run.label, schema=model.schema)
    if dataset is None and known is None:
        rows = split_rows(rows, run.held_out, run.seed)[1] if isinstance(rows, Table) else None
    if rows is None:
        raise InputError("the run held no rows out: say what to evaluate on (--dataset)")
    check_outside(paths_of(run.metrics), folder)
    return scores_on(model, rows, run.metrics)
