"""Sources beyond tables: what they read, and what they say of damaged files."""

import gzip
import io
import json
import pickle
import tarfile

import numpy as np
import pyarrow as pa
import pytest
from datasets import episode, write_dataset
from gymnasium.spaces import Box, Dict, Discrete

from shoal import runtime
from shoal.data import BadRows, DataError
from shoal.data.sources import csv_rows, cutting, images, json_lines, lines, text, tfrecord, webdataset
from shoal.data.sources.arrow import ArrowSource
from shoal.data.sources.image_format import ImageForm, encode_image
from shoal.data.sources.minari import MinariSource
from shoal.data.sources.minari_format import find_minari
from shoal.data.sources.tfrecord_format import encode_example, framed


def read(source, skip=False):
    """Return all rows of a source, and its bad ones, as from a worker that the source has been sent to."""
    tables, bad = [], []
    pieces, source = source.pieces(), pickle.loads(pickle.dumps(source))
    for piece in pieces:
        rows = BadRows(piece.path, skip=skip)
        found = list(source.read(piece, rows))
        count = sum(table.num_rows for table in found) + rows.count
        assert piece.rows is None or count == piece.rows
        tables += found
        bad += rows.rows
    return pa.concat_tables(tables), bad


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(cutting, "WHOLE", 0)
    monkeypatch.setattr(cutting, "PIECE", 4096)
    monkeypatch.setattr(cutting, "TABLE", 1024)


def example(index, **others):
    features = {"id": ("int64", [index]), "name": ("bytes", [b"%d" % index]), "x": ("float", [index, 0.5])}
    return encode_example(features | others)


def test_tfrecord(tmp_path, small_pieces):
    path = tmp_path / "a.tfrecord"
    records = [framed(example(index)) for index in range(400)]
    path.write_bytes(b"".join(records))
    source = tfrecord.TFRecordSource((str(path),), tfrecord.infer_schema([str(path)]))
    assert source.schema == pa.schema({"id": pa.int64(), "name": pa.binary(), "x": pa.list_(pa.float32())})
    assert len(source.pieces()) > 5
    whole, _ = read(source)
    assert whole["id"].to_pylist() == list(range(400))
    assert whole["x"][7].as_py() == [7.0, 0.5]
    typed = pa.schema({"id": pa.int32(), "name": pa.string(), "x": pa.fixed_shape_tensor(pa.float32(), [2, 1])})
    table, _ = read(tfrecord.TFRecordSource((str(path),), typed))
    assert table["name"][3].as_py() == "3"
    assert table["x"].combine_chunks().to_numpy_ndarray().shape == (400, 2, 1)
    raw, _ = read(tfrecord.TFRecordSource((str(path),), None))
    assert raw["bytes"][0].as_py() == example(0)

    offset = sum(map(len, records[:30]))
    records[30] = records[30][:-5] + b"!" + records[30][-4:]
    records[200] = framed(example(200, id=("int64", [1, 2])))
    records[201] = framed(b"\xff")
    path.write_bytes(b"".join(records)[:-10])
    with pytest.raises(DataError, match=rf"a\.tfrecord, record 30 at byte {offset}: the data's CRC32C differs"):
        read(source)
    table, bad = read(source, skip=True)
    assert table["id"].to_pylist() == [index for index in range(399) if index not in (30, 200, 201)]
    assert [row.where.split()[1] for row in bad] == ["30", "200", "201", "399"]
    assert bad[1].column == "id"
    assert "it has 2 values of int64; wanted 1" in bad[1].reason


def write_tar(path, samples):
    mode = "w:gz" if path.suffix == ".gz" else "w"
    with tarfile.open(path, mode) as tar:
        for name, content in samples:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))


def samples(count, size=(8, 8)):
    rng = np.random.default_rng(0)
    for index in range(count):
        yield f"{index:03d}.png", encode_image(rng.integers(255, size=(*size, 3), dtype=np.uint8), "png")
        yield f"{index:03d}.cls", b"%d" % index
        yield f"{index:03d}.json", json.dumps({"words": ["a"] * index}).encode()


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_webdataset(tmp_path, small_pieces, name):
    path = tmp_path / name
    write_tar(path, samples(20))
    decoding = webdataset.Decoding()
    source = webdataset.WebDatasetSource((str(path),), webdataset.infer_schema([str(path)], decoding), decoding)
    assert len(source.pieces()) == (1 if name.endswith("gz") else 10)
    table, _ = read(source)
    assert table["__key__"].to_pylist() == [f"{index:03d}" for index in range(20)]
    assert table["cls"].to_pylist() == list(range(20))
    assert table["json"][2].as_py() == {"words": ["a", "a"]}
    assert table["png"].combine_chunks().to_numpy_ndarray().shape == (20, 8, 8, 3)

    damaged = list(samples(20))
    damaged[7] = ("002.cls", b"two")
    damaged[9] = ("003.png", damaged[9][1][:50])
    damaged[12] = ("004.png", next(samples(1, (8, 9)))[1])
    write_tar(path, damaged)
    with pytest.raises(DataError, match="sample '002' at byte 6144, column 'cls': invalid literal for int"):
        read(source)
    table, bad = read(source, skip=True)
    assert sorted(set(range(20)) - set(table["cls"].to_pylist())) == [2, 3, 4]
    assert [(row.where.split()[1], row.column) for row in bad] == [("'002'", "cls"), ("'003'", "png"), ("'004'", "png")]
    assert bad[0].raw == "two"
    assert "uint8[8, 9, 3], wanted uint8[8, 8, 3]" in bad[2].reason


def test_a_tar_that_was_cut_off(tmp_path):
    path = tmp_path / "a.tar"
    write_tar(path, samples(20))
    path.write_bytes(path.read_bytes()[:20_000])
    decoding = webdataset.Decoding(by_name=False)
    source = webdataset.WebDatasetSource((str(path),), webdataset.infer_schema([str(path)], decoding), decoding)
    with pytest.raises(DataError, match=r"a\.tar: .*cut off"):
        read(source)
    table, bad = read(source, skip=True)
    assert table["cls"].to_pylist() == [b"%d" % index for index in range(table.num_rows)]
    assert len(bad) == 1


def test_pictures_in_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_PIECE", 8 * 8 * 3 * 4)
    for name, content in samples(30):
        if name.endswith("png"):
            folder = tmp_path / ("cat" if int(name[:3]) % 3 else "dog")
            folder.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
    files = tuple(sorted(map(str, tmp_path.glob("*/*"))))
    form = ImageForm()
    source = images.ImageSource(files, form, images.first_shape(files, form), ("cat", "dog"), include_paths=True)
    assert [piece.rows for piece in source.pieces()] == [4] * 7 + [2]
    table, _ = read(source)
    assert table["label"].to_pylist() == [0] * 20 + [1] * 10
    assert table["path"].to_pylist() == list(files)
    (tmp_path / "cat" / "004.png").write_bytes(b"no picture")
    (tmp_path / "cat" / "005.png").write_bytes(next(samples(1, (9, 8)))[1])
    with pytest.raises(DataError, match=r"004\.png: the picture cannot be decoded"):
        read(source)
    table, bad = read(source, skip=True)
    assert table.num_rows == 28
    assert [row.where[-7:] for row in bad] == ["004.png", "005.png"]
    with pytest.raises(runtime.InputError, match="none of 1 files is a picture"):
        images.first_shape((str(tmp_path / "cat" / "004.png"),), form)


@pytest.mark.parametrize("stream", [False, True])
def test_arrow(tmp_path, stream):
    path = tmp_path / "a.arrow"
    table = pa.table({"id": range(100), "text": [str(index) for index in range(100)]})
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=30)
    source = ArrowSource((str(path),))
    assert [piece.rows for piece in source.pieces()] == ([None] if stream else [30, 30, 30, 10])
    assert read(source)[0].equals(table)
    content = bytearray(path.read_bytes())
    at = content.index(np.arange(0, 2, dtype=np.int32).tobytes() + b"\x02\0\0\0\x03\0\0\0")  # offsets of batch 0
    content[at + 4] = 200
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.arrow, record batch 0: it cannot be read: .*[Oo]ffset"):
        read(source)
    kept, bad = read(source, skip=True)
    assert kept["id"].to_pylist() == list(range(30, 100))
    assert len(bad) == 1


def test_minari(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    space = Dict({"position": Box(-1, 1, (2,)), "lap": Discrete(5)})
    lengths = [3, 3000, 2000, 1]
    episodes = [episode(space, Discrete(2), length, seed=seed) for seed, length in enumerate(lengths)]
    write_dataset("mine/first-v0", episodes, space, Discrete(2))
    path = str(find_minari("mine/first-v0"))
    steps = MinariSource((path,))
    assert [(piece.place, piece.rows) for piece in steps.pieces()] == [((0, 2), 3003), ((2, 4), 2001)]
    table, _ = read(steps)
    assert table["step"].to_pylist() == [step for length in lengths for step in range(length)]
    seen, following = (table[f"{name}/position"].combine_chunks() for name in ("observations", "next_observations"))
    assert seen[1].as_py() == following[0].as_py()
    assert table["actions"].type == pa.int64()
    rows, _ = read(MinariSource((path,), episodes=True))
    assert rows["steps"].to_pylist() == lengths
    assert [len(column) for column in rows["observations/position"].to_pylist()] == [4, 3001, 2001, 2]
    with pytest.raises(runtime.InputError, match=r"no dataset 'mine/fist-v0'.* Did you mean 'mine/first-v0'"):
        find_minari("mine/fist-v0")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_are_read_once_wherever_files_are_cut(tmp_path, monkeypatch, size):
    monkeypatch.setattr(lines, "RANGE", size)
    monkeypatch.setattr(lines, "_CHUNK", 4)
    texts = ["", "a", "bcd", "", "ä" * 20, "f\r", "", "last"]
    path = tmp_path / "a.txt"
    path.write_bytes("\n".join(texts).encode())
    table, _ = read(text.TextSource((str(path),), drop_empty_lines=False))
    assert table["text"].to_pylist() == [line.removesuffix("\r") for line in texts]
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress("\n".join([*texts, ""]).encode()))
    table, _ = read(text.TextSource((str(path), str(tmp_path / "b.txt.gz"))))
    assert table["text"].to_pylist() == ["a", "bcd", "ä" * 20, "f", "last"] * 2


def test_damaged_text(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "RANGE", 8)
    path, packed = tmp_path / "a.txt", tmp_path / "b.txt.gz"
    path.write_bytes(b"one\ntwo\nthree\nfo\xffur\nfive\n")
    with pytest.raises(
        DataError, match=r"a\.txt, line 4, column 'text': it is no UTF-8: invalid start byte at its byte 2"
    ):
        read(text.TextSource((str(path),)))
    table, bad = read(text.TextSource((str(path),)), skip=True)
    assert table["text"].to_pylist() == ["one", "two", "three", "five"]
    assert bad[0].raw == "fo\\xffur"
    packed.write_bytes(gzip.compress(b"line\n" * 10_000)[:-20])
    with pytest.raises(DataError, match=r"b\.txt\.gz: it cannot be read on"):
        read(text.TextSource((str(packed),)))


def test_json_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "RANGE", 500)
    path, packed = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"
    rows = [{"id": index, "text": "ä" * (index % 7), "tags": [index], "none": None} for index in range(100)]
    texts = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(texts))
    packed.write_bytes(gzip.compress("\n".join([*texts, ""]).encode()))
    source = json_lines.JsonSource((str(path), str(packed)), json_lines.infer_schema([str(path)]))
    assert len(source.pieces()) > 5
    assert read(source)[0].to_pylist() == rows * 2
    texts[30] = '{"id": 1.5}'
    texts[31] = '{"id": 1, "txt": ""}'
    texts[60] = '{"id": 1'
    texts[61] = "[]"
    path.write_text("\n".join(texts))
    with pytest.raises(DataError, match=r"a\.jsonl, line 31, column 'id': it is 1\.5, wanted int64"):
        read(source)
    table, bad = read(source, skip=True)
    assert table["id"].to_pylist()[:96] == [index for index in range(100) if index not in (30, 31, 60, 61)]
    assert [(row.where, row.column) for row in bad] == [
        ("line 31", "id"), ("line 32", "txt"), ("line 61", None), ("line 62", None)
    ]  # fmt: skip
    assert "Did you mean 'text'?" in bad[1].reason
    assert bad[2].raw == '{"id": 1\n'
    path.write_text('{"id": 1\n{"id": 1}\n{"id": "x"}\n{"id": 2.5, "more": null}\n')
    told = json_lines.infer_schema([str(path)])
    assert told == pa.schema({"id": pa.float64(), "more": pa.string()})
    _, bad = read(json_lines.JsonSource((str(path),), told), skip=True)
    assert [row.where for row in bad] == ["line 1", "line 3"]
    path.write_bytes(b'{"id": 1, "text": "\xff"}\n')
    with pytest.raises(DataError, match=r"line 1"):
        read(json_lines.JsonSource((str(path),), source.schema))


def test_csv(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "RANGE", 100)
    one, two = tmp_path / "a.csv", tmp_path / "b.csv.gz"
    rows = [{"id": index, "x": index / 4, "text": f"t{index}"} for index in range(50)]
    made = ["id,x,text", *(f'{row["id"]},{row["x"]},"{row["text"]}"' for row in rows)]
    one.write_text("\n".join(made))
    two.write_bytes(gzip.compress(b"text,x,id\r\nend,0.5,50\r\n"))
    schema = csv_rows.infer_schema([str(one)], ",")
    source = csv_rows.CsvSource((str(one), str(two)), schema)
    assert len(source.pieces()) > 5
    assert read(source)[0].to_pylist() == [*rows, {"id": 50, "x": 0.5, "text": "end"}]
    made[20], made[21], made[22], made[40] = "1,2", 'a,1,"b"', '1,2,"open', '1,2,"open'
    one.write_text("\n".join(made))
    with pytest.raises(DataError, match=r"a\.csv, line 21: it has 2 cells, wanted 3"):
        read(source)
    table, bad = read(source, skip=True)
    assert table["id"].to_pylist() == [index for index in range(51) if index not in (19, 20, 21, 39)]
    assert [(row.where, row.column) for row in bad] == [
        ("line 21", None), ("line 22", "id"), ("line 23", None), ("line 41", None)
    ]  # fmt: skip
    assert "newlines_in_values=True" in bad[2].reason
    assert "invalid value 'a'" in bad[1].reason
    one.write_text('id,x,text\n1,2,"two\nlines"\n')
    schema = csv_rows.infer_schema([str(one)], ",", newlines_in_values=True)
    table, _ = read(csv_rows.CsvSource((str(one),), schema, newlines_in_values=True))
    assert table.to_pylist() == [{"id": 1, "x": 2, "text": "two\nlines"}]
    with pytest.raises(DataError, match=r"a\.csv, line 1, column 'ids': there is no such column. Did you mean 'id'"):
        read(csv_rows.CsvSource((str(one),), pa.schema({"ids": pa.int64()})))


def test_zstandard_is_read_as_other_compressions(tmp_path):
    plain, packed = tmp_path / "a.tar", tmp_path / "a.tar.zst"
    write_tar(plain, samples(20))
    with pa.CompressedOutputStream(str(packed), "zstd") as file:
        file.write(plain.read_bytes())
    with pa.CompressedOutputStream(str(tmp_path / "a.txt.zst"), "zstd") as file:
        file.write(b"line\n" * 300_000 + b"end")
    decoding = webdataset.Decoding()
    found = [
        read(webdataset.WebDatasetSource((str(path),), webdataset.infer_schema([str(path)], decoding), decoding))[0]
        for path in (plain, packed)
    ]
    assert found[0].equals(found[1])
    assert read(text.TextSource((str(tmp_path / "a.txt.zst"),)))[0]["text"][-1].as_py() == "end"
