"""Where data comes from, one file per format.

A new source is a frozen dataclass with the two methods of `Source` (`source.py`):

* `pieces()` runs in the driver, once per run, and says what can be read: a tuple of `Piece`, each small enough to be
  held in memory as a whole (a row group, a range of lines, a file), in an order that depends on nothing but the files.
  `rows` and `bytes` are filled in where a footer or a file's size tells them: memory is granted by them before the
  piece has been read.
* `read(piece, bad)` runs in a worker and yields `pyarrow.Table`s of one schema. Columns of arrays of one shape are
  fixed-shape tensors (`blocks.column_of`). It reports what it cannot read by `bad.add(where, reason, column, raw)`, and
  never catches what that raises.

Then it gets a function, `read_…` for files (`reading_files.py`) or `from_…` for values (`reading.py`), which is
exported in `data/__init__.py`, and a case in `tests/data/test_file_sources.py`. A source knows nothing of shuffling,
tasks, memory or resuming.
"""

from .source import Piece, Source

__all__ = ["Piece", "Source"]
