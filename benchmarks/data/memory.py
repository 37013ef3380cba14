"""What reading Parquet takes in memory, when the one who reads is slow, and when what is read is slow.

    python benchmarks/data/memory.py [--gigabytes 2] [--budget 256] [--out benchmarks/data/rows/memory.json]

Writes files of random numbers in row groups of 64 MB, then reads them twice with two readers, each time against the
idle runtime with warm workers: with a consumer that takes 10 times as long for a row group as reading it takes, and
with a stage that takes 10 times as long. The proportional set size (PSS) of all processes is sampled ten times a
second. The object store has 1.3 times the budget, and its objects are looked at each time for one that lies on disk.
The exit code is 1 if the peak is more than 1.3 times the budget, if anything was spilled, or if the driver took more
than 5 % of a CPU.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from shoal import data, runtime

GROUP_BYTES = 64 * 2**20
ROW_BYTES = 64
MOST = 1.3
BUSY = 0.05


def write(folder: Path, gigabytes: float) -> int:
    """Write the row groups, eight in a file; return how many."""
    groups = int(gigabytes * 2**30 // GROUP_BYTES)
    rows = GROUP_BYTES // ROW_BYTES
    generator = np.random.default_rng(0)
    for first in range(0, groups, 8):
        with pq.ParquetWriter(
            folder / f"part-{first:03}.parquet", pa.schema(columns(1, generator, 0).schema)
        ) as writer:
            for group in range(first, min(first + 8, groups)):
                writer.write_table(columns(rows, generator, group * rows), row_group_size=rows)
    return groups


def columns(rows: int, generator: np.random.Generator, start: int) -> pa.Table:
    numbers = {f"x{index}": generator.random(rows) for index in range(7)}
    return pa.table({"id": np.arange(start, start + rows), **numbers})


class Sampler:
    """Sums up the PSS of this process and its children, in a thread, while it is entered."""

    def __init__(self) -> None:
        self.peak = 0
        self._end = threading.Event()

    def __enter__(self) -> "Sampler":
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._end.wait(0.1):
            self.peak = max(self.peak, pss())


def pss() -> int:
    total = 0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def slowly(table: pa.Table, seconds: float) -> pa.Table:
    time.sleep(seconds)
    return table


def slowly_row(row: dict) -> dict:
    time.sleep(0.3)
    return row


def read(dataset: data.Dataset, seconds: float) -> dict:
    """Read it, sleeping after each block; return what it took."""
    begin, cpu = time.perf_counter(), time.thread_time()
    with Sampler() as sampler, dataset.iter_batches(batch_format="pyarrow") as batches:
        rows = spilled = 0
        for table in batches:
            rows += table.num_rows
            spilled += sum(row.where == "spilled" for row in runtime.state.list_objects())
            time.sleep(seconds)
        stats = batches.stats()
    wall = time.perf_counter() - begin
    return {
        "seconds": wall,
        "rows": rows,
        "spilled": spilled,
        "peak_pss": sampler.peak,
        "peak_granted": stats.peak_bytes,
        "seconds_waited": stats.seconds_waited,
        "driver_cpu_share": (time.thread_time() - cpu) / wall,
    }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--budget", type=int, default=256, help="MiB")
    parser.add_argument("--factor", type=float, default=10)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    budget = args.budget * 2**20
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        groups = write(folder, args.gigabytes)
        with runtime.init(engine="native", num_cpus=2):
            once = data.read_parquet(folder / "part-000.parquet").options(memory=budget, readers=1)
            once.take(1).count()
            begin = time.perf_counter()
            once.take(2 * GROUP_BYTES // ROW_BYTES).count()
            each = (time.perf_counter() - begin) / 2
        with runtime.init(engine="native", num_cpus=2, object_store_memory=int(MOST * budget)):
            dataset = data.read_parquet(folder).options(memory=budget, readers=2)
            # Workers that have imported what they need, and have read next to nothing.
            data.from_items(range(8), rows_per_piece=1).map(slowly_row).options(readers=2).count()
            idle = pss()
            found = {"groups": groups, "budget": budget, "seconds_per_group": each, "idle_pss": idle, "rows": {}}
            stage = dataset.map_batches(slowly, fn_args=(args.factor * each,), batch_format="pyarrow")
            ways = {"slow consumer": (dataset, args.factor * each), "slow stage": (stage, 0.0)}
            for way, (plan, seconds) in ways.items():
                row = read(plan, seconds)
                row["above_idle_over_budget"] = (row["peak_pss"] - idle) / budget
                found["rows"][way] = row
                print(f"{way:14} {json.dumps(row)}", flush=True)
    good = all(
        row["above_idle_over_budget"] <= MOST and row["driver_cpu_share"] <= BUSY and not row["spilled"]
        for row in found["rows"].values()
    )
    if args.out:
        args.out.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
