"""The table in docs/language.md is of the rows that the repository holds, and these of the settings it holds."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "language"
pytestmark = pytest.mark.slow


def test_the_document_is_of_the_rows():
    subprocess.run([sys.executable, FOLDER / "table.py", "--check"], check=True)


def test_rows_were_trained_with_the_settings_that_the_repository_holds():
    spec = importlib.util.spec_from_file_location("language_run", FOLDER / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, settings in module.ROWS.items():
        row = json.loads((FOLDER / "rows" / f"{name}.json").read_text())
        assert {key: row.get(key) for key in settings} == settings, name
        assert len(row["seeds"][0]["rewards"]) == settings["iterations"], name
