"""Datasets from files of one format: the functions that a plan begins with, beside those of `reading.py`.

All take `paths` (a file, a folder, for all below it with the format's endings, a pattern, or a list of them), and
`on_error` and `bad_rows` as `from_source` does. What a file does not say of its columns is told from its first rows
when the function is called; `schema` says it instead.
"""

from __future__ import annotations

import os
from typing import Any

import pyarrow as pa

from ..runtime import InputError
from .arguments import positive
from .dataset import Dataset
from .reading import from_source
from .sources import csv_rows, images, json_lines, tfrecord, webdataset
from .sources.arrow import SUFFIXES as ARROW
from .sources.arrow import ArrowSource
from .sources.files import Paths, find_files
from .sources.image_format import ImageForm
from .sources.minari import MinariSource
from .sources.minari_format import find_minari
from .sources.text import SUFFIXES as TEXT
from .sources.text import TextSource

Size = tuple[int, int] | None
"""Height and width."""


def read_json(paths: Paths, *, schema: pa.Schema | None = None, **errors: Any) -> Dataset:
    """JSON Lines, also compressed (.gz, .bz2, .xz, .zst): an object a row, keys as columns.

    Args:
        paths: as above; endings .jsonl, .json and .ndjson.
        schema: the columns; None: those of the first megabyte. Further keys are errors, lacking ones null.
        errors: `on_error` and `bad_rows`.
    """
    files = find_files(paths, json_lines.SUFFIXES)
    return from_source(json_lines.JsonSource(files, schema or json_lines.infer_schema(files)), **errors)


def read_csv(
    paths: Paths,
    *,
    schema: pa.Schema | None = None,
    infer_schema: bool = True,
    delimiter: str = ",",
    newlines_in_values: bool = False,
    **errors: Any,
) -> Dataset:
    """CSV files whose first line names the columns, also compressed.

    Args:
        paths: as above; endings .csv and .tsv.
        schema: the columns to read, and their types; None: all, with the types of the first megabyte.
        infer_schema: False: all, and each is text, whatever it looks like.
        delimiter: between cells.
        newlines_in_values: cells in quotes may hold line ends; each file is read as a whole then.
        errors: `on_error` and `bad_rows`.
    """
    files = find_files(paths, csv_rows.SUFFIXES)
    if schema is None and not infer_schema:
        schema = csv_rows.text_schema(files, delimiter)
    elif schema is None:
        schema = csv_rows.infer_schema(files, delimiter, newlines_in_values=newlines_in_values)
    return from_source(csv_rows.CsvSource(files, schema, delimiter, newlines_in_values), **errors)


def read_text(paths: Paths, *, drop_empty_lines: bool = True, whole_files: bool = False, **errors: Any) -> Dataset:
    """Text files in UTF-8, also compressed: a line a row, in the column `text`.

    Args:
        paths: as above; the ending .txt.
        drop_empty_lines: leave out lines of nothing.
        whole_files: a file a row instead.
        errors: `on_error` and `bad_rows`.
    """
    return from_source(TextSource(find_files(paths, TEXT), drop_empty_lines, whole_files), **errors)


def read_images(
    paths: Paths,
    *,
    size: Size = None,
    mode: str = "RGB",
    labels: bool = False,
    include_paths: bool = False,
    **errors: Any,
) -> Dataset:
    """Pictures: `image` [H, W, 3] uint8 (with mode "L" [H, W]), in the order of their paths.

    Args:
        paths: as above; the endings of what Pillow reads.
        size: height and width that all are scaled to; None: all must have the size of the first.
        mode: Pillow's name of the form of pixels, such as "RGB", "L" or "RGBA".
        labels: add the column `label` int64: the number of the folder that a picture lies in, among all their names,
            sorted; as torchvision's ImageFolder does.
        include_paths: add the column `path`.
        errors: `on_error` and `bad_rows`.
    """
    files = find_files(paths, images.FILE_SUFFIXES)
    form = ImageForm(_checked(size), mode)
    classes = tuple(sorted({os.path.basename(os.path.dirname(file)) for file in files})) if labels else None
    return from_source(
        images.ImageSource(files, form, images.first_shape(files, form), classes, include_paths), **errors
    )


def read_webdataset(
    paths: Paths,
    *,
    size: Size = None,
    mode: str = "RGB",
    decode: bool = True,
    schema: pa.Schema | None = None,
    **errors: Any,
) -> Dataset:
    """Tar files in WebDataset's layout, also compressed: a sample a row, `__key__` and a column for each ending.

    Text, numbers (cls), JSON, .npy and pictures are decoded by the ending; all else stays bytes, and nothing is
    unpickled.

    Args:
        paths: as above; the ending .tar.
        size: of pictures, as for `read_images`, like `mode`.
        mode: as there.
        decode: False leaves all as bytes.
        schema: the columns; None: those of the first 100 samples. Further endings are errors, lacking ones null.
        errors: `on_error` and `bad_rows`.
    """
    files = find_files(paths, webdataset.SUFFIXES)
    decoding = webdataset.Decoding(decode, ImageForm(_checked(size), mode))
    schema = schema or webdataset.infer_schema(files, decoding)
    return from_source(webdataset.WebDatasetSource(files, schema, decoding), **errors)


def read_tfrecords(paths: Paths, *, schema: pa.Schema | None = None, raw: bool = False, **errors: Any) -> Dataset:
    """TFRecord files of tf.train.Example, also compressed; checksums are compared, and TensorFlow is not needed.

    Args:
        paths: as above; endings .tfrecord and .tfrecords.
        schema: a column per feature: a number, string or binary for one value, a list or a fixed-shape tensor for
            several; None: told from the first 100 records.
        raw: give each record as it is, in the column `bytes`.
        errors: `on_error` and `bad_rows`.
    """
    if raw and schema is not None:
        raise InputError("read_tfrecords: raw=True gives the one column 'bytes'; leave schema out")
    files = find_files(paths, tfrecord.SUFFIXES)
    return from_source(
        tfrecord.TFRecordSource(files, None if raw else schema or tfrecord.infer_schema(files)), **errors
    )


def read_arrow(paths: Paths, **errors: Any) -> Dataset:
    """Arrow IPC files, which are mapped into memory, and streams; a record batch is what is read at once.

    Args:
        paths: as above; endings .arrow, .arrows, .feather and .ipc.
        errors: `on_error` and `bad_rows`.
    """
    return from_source(ArrowSource(find_files(paths, ARROW)), **errors)


def read_minari(names: Paths, *, episodes: bool = False, steps_per_piece: int | None = None, **errors: Any) -> Dataset:
    """Minari datasets: a step a row, with `observations`, `next_observations`, `actions`, `rewards`, `terminations`,
    `truncations`, `episode` and `step`; parts of nested spaces are columns of their own ("observations/position").

    Args:
        names: the id of a dataset, looked for below MINARI_DATASETS_PATH, or its folder; or a list of them, of the same
            spaces.
        episodes: a row is an episode instead, its columns lists of T, observations of T + 1.
        steps_per_piece: of whole episodes, that a task reads; None: 4,096, or as many as take 8 MB.
        errors: `on_error` and `bad_rows`.
    """
    several = [names] if isinstance(names, str | os.PathLike) else names
    paths = tuple(str(find_minari(os.fspath(name))) for name in several)
    steps = None if steps_per_piece is None else positive("steps_per_piece", steps_per_piece)
    return from_source(MinariSource(paths, episodes, steps), **errors)


def _checked(size: Size) -> Size:
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise InputError(f"size={size!r}: wanted (height, width) of pictures")
    return size
