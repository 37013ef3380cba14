"""Datasets that are written: the same files each time, whole or not at all, and read back as they were."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shoal import data, runtime


@pytest.fixture
def numbers(tmp_path):
    """Four row groups in two files, of which one is empty after the filter."""
    for name, first in (("a", 0), ("b", 200)):
        rows = pa.table({"id": range(first, first + 200), "x": np.arange(first, first + 200) / 8})
        pq.write_table(rows, tmp_path / f"{name}.parquet", row_group_size=100)
    return data.read_parquet(tmp_path).filter(lambda row: not 100 <= row["id"] < 200)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


KEPT = [*range(100), *range(200, 400)]


def test_each_format_is_read_back(tmp_path, numbers, engine):
    def keyed(row):
        return {"__key__": f"{row['id']:04d}", "cls": row["id"], "npy": np.array([row["x"], 0])}

    for written, read in (
        (numbers.write_parquet, data.read_parquet),
        (numbers.write_arrow, data.read_arrow),
        (numbers.write_json, data.read_json),
        (numbers.write_csv, data.read_csv),
        (numbers.write_tfrecords, data.read_tfrecords),
    ):
        folder = tmp_path / written.__name__
        parts = written(folder)
        assert [part.rows for part in parts] == [100] * 3
        assert [part.file.partition(".")[0] for part in parts] == [f"part-{number:05d}" for number in range(3)]
        back = read(folder).to_table()
        assert back["id"].to_pylist() == KEPT
        assert back["x"].to_pylist() == [number / 8 for number in KEPT]
    numbers.map(keyed).write_webdataset(tmp_path / "tar", rows_per_file=140)
    assert sorted(os.listdir(tmp_path / "tar")) == ["part-00000.tar", "part-00001.tar", "part-00002.tar"]
    assert data.read_webdataset(tmp_path / "tar").to_table()["npy"][299].as_py() == [399 / 8, 0]
    numbers.write_numpy(tmp_path / "npy", column="id", rows_per_file=300)
    assert np.load(tmp_path / "npy" / "part-00000.npy").tolist() == KEPT


def test_files_do_not_depend_on_readers_or_deaths(tmp_path, numbers):
    runtime.shutdown()
    runtime.init(engine="serial")
    numbers.write_parquet(tmp_path / "serial")
    runtime.shutdown()
    runtime.init(num_cpus=2)
    flag = tmp_path / "killed"

    def die_once(batch):
        if 300 in batch["id"] and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return batch

    numbers.map_batches(die_once).write_parquet(tmp_path / "native")
    assert flag.exists()
    assert contents(tmp_path / "native") == contents(tmp_path / "serial")
    runtime.shutdown()
    assert sorted(os.listdir(tmp_path)) == ["a.parquet", "b.parquet", "killed", "native", "serial"]


def test_nothing_half_written_stays(tmp_path, numbers, engine):
    def fail(batch):
        if 300 in batch["id"]:
            raise ValueError("bad day")
        return batch

    folder = tmp_path / "out"
    with pytest.raises(ValueError, match="bad day"):
        numbers.map_batches(fail).write_json(folder)
    assert sorted(os.listdir(tmp_path)) == ["a.parquet", "b.parquet"]
    numbers.take(5).write_json(folder)
    with pytest.raises(runtime.InputError, match="is there already"):
        numbers.write_json(folder)
    with pytest.raises(runtime.InputError, match="repeats without end"):
        numbers.repeat().write_json(folder, overwrite=True)
    with pytest.raises(runtime.InputError, match="has no rows"):
        numbers.take(0).write_csv(folder, overwrite=True)
    assert os.listdir(folder) == ["part-00000.jsonl"]


def test_bad_rows_of_any_format_are_counted_and_set_aside(tmp_path, numbers, engine):
    numbers.write_tfrecords(tmp_path / "tf", rows_per_file=100)
    path = tmp_path / "tf" / "part-00001.tfrecord"
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)
    with pytest.raises(data.DataError, match=r"part-00001\.tfrecord, record 99 at byte \d+: the data's CRC32C differs"):
        data.read_tfrecords(tmp_path / "tf").count()
    kept = data.read_tfrecords(tmp_path / "tf", on_error="skip", bad_rows=tmp_path / "bad.jsonl")
    assert kept.stats().bad_rows == {str(path): 1}
    (line,) = (tmp_path / "bad.jsonl").read_text().splitlines()
    assert json.loads(line)["where"].startswith("record 99 at byte ")


@pytest.mark.slow
def test_a_program_that_was_killed_leaves_nothing_under_the_name(tmp_path, numbers, engine):
    program = """
import os, signal, sys
from shoal import data, runtime
runtime.init(engine="serial")
def die(batch):
    if sys.argv[2] == "die" and 300 in batch["id"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return batch
data.read_parquet(sys.argv[1]).map_batches(die).write_json(sys.argv[1] + "/out")
"""

    def run(what):
        return subprocess.run([sys.executable, "-c", program, str(tmp_path), what], check=False).returncode

    assert run("die") == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert len(os.listdir(tmp_path / ".out.writing")) == 2
    assert run("live") == 0
    assert not (tmp_path / ".out.writing").exists()
    assert data.read_json(tmp_path / "out").count() == 400
