"""The datasets of the table's offline rows: recorded from the policies in experts/ when they are first needed.

They are the same, byte for byte, wherever they are recorded with the same versions of the environments.
"""

import os
import tomllib
from pathlib import Path

from shoal import runtime
from shoal.rl import record

HERE = Path(__file__).parent
TABLE = tomllib.loads((HERE / "datasets.toml").read_text(encoding="utf-8"))


def dataset(names: str) -> str:
    """Ids of datasets, separated by commas, for an algorithm; recorded now where they are not there."""
    os.environ["MINARI_DATASETS_PATH"] = str(HERE / ".datasets")
    for name in names.split(","):
        if not (HERE / ".datasets" / name).exists():
            if not runtime.is_initialized():
                runtime.init(engine="serial")
            settings = dict(TABLE[name])
            record(HERE / "experts" / settings.pop("policy"), dataset=name, **settings)
    return names
