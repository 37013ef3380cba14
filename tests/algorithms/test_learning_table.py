"""The table in docs/learning.md: its statistics; and, as long tests, one short seed of each row and that rows, settings
and document belong together."""

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import gymnasium
import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "learning"
ROWS = tomllib.loads((FOLDER / "settings.toml").read_text())
slow = pytest.mark.slow


def script(name):
    """benchmarks/learning/`name`.py as a module."""
    spec = importlib.util.spec_from_file_location(f"learning_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_interval_holds_the_interquartile_mean_and_is_wide_where_seeds_differ():
    table = script("table")
    alike, apart = np.tile(np.arange(20.0), (3, 1)), np.arange(3)[:, None] * 100 + np.tile(np.arange(20.0), (3, 1))
    low, high = table.bootstrap_interval(alike)
    assert low < 9.5 < high
    assert high - low < 10
    low, high = table.bootstrap_interval(apart)
    assert high - low > 100


@slow
def test_the_document_is_of_the_rows():
    subprocess.run([sys.executable, FOLDER / "table.py", "--check"], check=True)


@slow
@pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.stem) for path in sorted(FOLDER.glob("rows/*-[0-9].json"))]
)
def test_a_row_was_trained_with_the_settings_that_the_repository_holds(path):
    row, _, seed = path.stem.rpartition("-")
    assert script("run").is_done(path, ROWS[row], int(seed))


@slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("row", [row for row, settings in ROWS.items() if "short" in settings])
def test_a_short_training_learns(row):
    run, short = script("run"), ROWS[row]["short"]
    if isinstance(run.environment(ROWS[row]["env"]), str):
        try:
            gymnasium.make(ROWS[row]["env"]).close()
        except gymnasium.error.DependencyNotInstalled as error:
            pytest.skip(str(error))
    found = run.train(row, ROWS[row] | {"steps": short["steps"]}, seed=0)
    assert found["mean_return"] >= short["goal"]
