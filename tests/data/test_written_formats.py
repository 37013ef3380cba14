"""What a table is written as: bytes that other readers know, the same each time."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pytest

from shoal import runtime
from shoal.data.sources.tfrecord_format import decode_example, read_records
from shoal.data.writing.formats import Csv, Json, Npz, Numpy, Parquet, TFRecord, WebDataset

PIXELS = np.arange(2 * 2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 2, 3)
TABLE = pa.table(
    {
        "__key__": ["a/1", "a/2"],
        "png": pa.FixedShapeTensorArray.from_numpy_ndarray(PIXELS),
        "cls": [3, None],
        "json": [{"words": ["ä", "b"]}, {"words": []}],
        "x": [[1.5, 2.0], [-1.0, 0.0]],
    }
)


def written(form, table=TABLE):
    first, again = io.BytesIO(), io.BytesIO()
    form.write(table, first)
    form.write(table, again)
    assert first.getvalue() == again.getvalue()
    first.seek(0)
    return first


def test_webdataset():
    with tarfile.open(fileobj=written(WebDataset())) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}
    assert list(files) == ["a/1.png", "a/1.cls", "a/1.json", "a/1.x", "a/2.png", "a/2.json", "a/2.x"]
    assert files["a/1.png"].startswith(b"\x89PNG")
    assert files["a/1.cls"] == b"3"
    assert json.loads(files["a/1.json"]) == {"words": ["ä", "b"]}
    assert files["a/2.x"] == b"[-1.0, 0.0]"
    with pytest.raises(runtime.InputError, match="__key__"):
        written(WebDataset(), TABLE.select(["cls"]))


def test_tfrecord():
    records = [decode_example(data) for _, _, data in read_records(written(TFRecord(), TABLE.drop(["json"])))]
    assert records[0]["png"] == ("int64", list(range(12)))
    assert records[0]["cls"] == ("int64", [3])
    assert records[1]["x"] == ("float", [-1.0, 0.0])
    assert records[1]["__key__"] == ("bytes", [b"a/2"])
    assert "cls" not in records[1]
    with pytest.raises(runtime.InputError, match="'json'"):
        written(TFRecord())


def test_json_csv_parquet_and_numpy():
    lines = written(Json()).read().decode().splitlines()
    assert json.loads(lines[0])["png"] == PIXELS[0].tolist()
    assert '"ä"' in lines[0]
    with pytest.raises(runtime.InputError, match="'x' cannot be written as JSON"):
        written(Json(), pa.table({"ok": [1.0], "x": [float("nan")]}))
    assert written(Csv(), TABLE.select(["__key__", "cls"])).read() == b'"__key__","cls"\n"a/1",3\n"a/2",\n'
    with pytest.raises(runtime.InputError, match="'x' is list"):
        written(Csv(), TABLE.select(["x"]))
    assert pa.parquet.read_table(written(Parquet())).equals(TABLE)
    np.testing.assert_array_equal(np.load(written(Numpy("png"))), PIXELS)
    assert np.load(written(Npz(), TABLE.select(["__key__"])))["__key__"].tolist() == ["a/1", "a/2"]
    with pytest.raises(runtime.InputError, match="'json' is struct"):
        written(Npz())
