"""The algorithm of docs/your_own_algorithm.md, as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

[PROGRAM] = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parent.parent / "docs" / "your_own_algorithm.md").read_text(), re.DOTALL
)


def test_it_is_short():
    assert len(PROGRAM.splitlines()) < 60


@pytest.mark.slow
def test_it_learns(tmp_path):
    (tmp_path / "reinforce.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "reinforce.py"], cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False
    )
    assert "solved=True" in done.stdout, done.stderr
