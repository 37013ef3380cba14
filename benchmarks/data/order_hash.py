"""One SHA-256 of the ids of all rows, whoever reads them, whoever dies, and wherever reading is stopped and resumed.

    python benchmarks/data/order_hash.py [--rows 300000] [--out benchmarks/data/rows/order_hash.json]

Two shuffled epochs of Parquet through a stage, in batches of 256: by the serial engine; by 1, 2 and 3 readers on
processes; with readers that kill themselves while they work; and by 20 readings that each go on from the state of the
one before, stopped at random batches. The exit code is 1 if there is more than one hash.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shoal import data, runtime

STOPS = 20
KILLED = (3, 17, 30)
"""Row groups whose first reader kills itself."""


def batch(table: pa.Table, group_rows: int, folder: str | None) -> pa.Table:
    """Return the batch as it is; at the first sight of certain row groups, kill the process instead."""
    group = table["id"][0].as_py() // group_rows
    if folder is not None and group in KILLED:
        marker = Path(folder) / str(group)
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return table


class Ids:
    """Hashes ids as they come."""

    def __init__(self) -> None:
        self.hash, self.rows = hashlib.sha256(), 0

    def add(self, found: np.ndarray) -> None:
        self.hash.update(np.ascontiguousarray(found).tobytes())
        self.rows += len(found)


def read_on(dataset: data.Dataset, ids: Ids, state: dict | None = None, most: int | None = None) -> dict | None:
    """Read at most so many batches; return the state behind them, None at the end."""
    with dataset.iter_batches(256, state=state) as batches:
        for count, found in enumerate(batches, 1):
            ids.add(found["id"])
            if count == most:
                return json.loads(json.dumps(batches.state()))
    return None


def stopped(dataset: data.Dataset, ids: Ids, batches: int) -> int:
    """Read with 20 stops; return the size of the largest state."""
    draw, state, largest = random.Random(0), None, 0
    places = sorted(draw.sample(range(1, batches), STOPS))
    for before, place in zip([0, *places], places, strict=False):
        state = read_on(dataset, ids, state, place - before)
        largest = max(largest, len(json.dumps(state)))
    read_on(dataset, ids, state)
    return largest


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as name:
        group_rows = args.rows // 40
        table = pa.table({"id": np.arange(args.rows), "x": np.random.default_rng(0).random(args.rows)})
        for part in range(4):
            rows = table.slice(part * args.rows // 4, args.rows // 4)
            pq.write_table(rows, Path(name) / f"part-{part}.parquet", row_group_size=group_rows)

        def dataset(readers: int, kills: str | None = None) -> data.Dataset:
            numbers = data.read_parquet(f"{name}/*.parquet").options(readers=readers)
            same = numbers.map_batches(batch, batch_format="pyarrow", fn_args=(group_rows, kills))
            return same.shuffle(seed=7, window=args.rows // 10).repeat(2)

        def row(what: str, read: object) -> None:
            ids, begin = Ids(), time.perf_counter()
            extra = read(ids)  # type: ignore[operator]
            found[what] = {"sha256": ids.hash.hexdigest(), "rows": ids.rows, "seconds": time.perf_counter() - begin}
            if isinstance(extra, int):
                found[what]["largest_state_bytes"] = extra
            print(f"{what:24} {json.dumps(found[what])}", flush=True)

        with runtime.init(engine="serial"):
            row("serial", lambda ids: read_on(dataset(1), ids))
        with runtime.init(engine="native", num_cpus=3):
            for readers in (1, 2, 3):
                row(f"{readers} readers", lambda ids, n=readers: read_on(dataset(n), ids))
            with tempfile.TemporaryDirectory() as kills:
                row("readers killed", lambda ids: read_on(dataset(2, kills), ids))
                assert len(os.listdir(kills)) == len(KILLED)
            row(f"{STOPS} stops", lambda ids: stopped(dataset(2), ids, 2 * args.rows // 256))
    if args.out:
        args.out.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if len({(one["sha256"], one["rows"]) for one in found.values()}) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
