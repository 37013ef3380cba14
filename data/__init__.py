"""Datasets that are read by tasks, in an order that is a pure function of seed, epoch and position.

    from shoal import data

    numbers = data.read_parquet("numbers/").shuffle(seed=0, window=10_000)
    for batch in numbers.iter_batches(batch_size=256):
        batch["x"]                                       # a numpy array

Importing this package loads nothing; the first use of a name loads pyarrow (``pip install "shoal[data]"``).
"""

from typing import TYPE_CHECKING, Any

from ..runtime import InputError, lazy_exports
from .elsewhere import MODULE

if TYPE_CHECKING:
    from .dataset import Dataset
    from .errors import BadRow, BadRows, BudgetError, DataError
    from .reader import Batches, Stats
    from .reading import from_items, from_source, from_torch, read_numpy, read_parquet
    from .reading_files import (
        read_arrow,
        read_csv,
        read_images,
        read_json,
        read_minari,
        read_text,
        read_tfrecords,
        read_webdataset,
    )
    from .sources import Piece, Source
    from .sources.minari_format import find_minari, minari_root
    from .writing.methods import Part
    from .writing.whole import whole_file

__all__ = [
    "BadRow",
    "BadRows",
    "Batches",
    "BudgetError",
    "DataError",
    "Dataset",
    "Part",
    "Piece",
    "Source",
    "Stats",
    "find_minari",
    "from_items",
    "from_source",
    "from_torch",
    "minari_root",
    "read_arrow",
    "read_csv",
    "read_images",
    "read_json",
    "read_minari",
    "read_numpy",
    "read_parquet",
    "read_text",
    "read_tfrecords",
    "read_webdataset",
    "whole_file",
]


_load, __dir__ = lazy_exports(__name__, MODULE)


def __getattr__(name: str) -> Any:
    try:
        return _load(name)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("PIL", "google_crc32c", "pyarrow"):
            raise
        raise InputError(f'datasets need the package {package!r}: pip install "shoal[data]"') from error
