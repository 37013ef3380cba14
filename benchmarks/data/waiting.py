"""How long a learner waits for batches where its step costs more than reading them.

    python benchmarks/data/waiting.py [--rows 400000] [--ratio 1.5] [--rounds 5] [--out FILE]

Shuffled Parquet, with a stage of numpy's on each row group, read as torch tensors in batches of 1,000. First the
batches are only taken, which says what one costs; then a step that takes `ratio` times as long follows each. The step
waits, as the one of a GPU does, so that it takes no CPU from the readers. The share of its time that the learner waited
is told without the start, which is what a long training sees, and with the time to the first batch, for which a window
has to be read. The exit code is 1 if the former was 5 % or more in the median round. 400,000 rows are over in
half a second: of that the first two windows are much.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shoal import data, runtime

COLUMNS = 16
MOST = 0.05


def scaled(batch: dict) -> dict:
    return {name: np.tanh(values) for name, values in batch.items()}


def read(dataset: data.Dataset, step: float) -> dict:
    """Take all batches with a step after each; return where the time went."""
    begin = time.perf_counter()
    waited, count = 0.0, 0
    with dataset.to_torch(1_000) as batches:
        batch: dict | None = next(batches)
        first = time.perf_counter() - begin
        while batch is not None:
            time.sleep(step)
            del batch  # to free its tensors is no waiting
            asked = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - asked
            count += 1
    total = time.perf_counter() - begin - first
    return {
        "first_batch": first,
        "seconds": total,
        "waited": waited,
        "share": waited / total,
        "share_with_start": (waited + first) / (total + first),
        "batch": total / count,
    }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--ratio", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        generator = np.random.default_rng(0)
        table = pa.table({f"x{index}": generator.random(args.rows) for index in range(COLUMNS)})
        pq.write_table(table, f"{name}/numbers.parquet", row_group_size=10_000)
        with runtime.init(engine="native", num_cpus=2):
            dataset = data.read_parquet(name).map_batches(scaled).shuffle(seed=0, window=20_000)
            read(dataset, 0.0)  # warms workers
            rounds = []
            for _ in range(args.rounds):
                alone = read(dataset, 0.0)
                rounds.append({"alone": alone, "with_step": read(dataset, args.ratio * alone["batch"])})
                print(json.dumps(rounds[-1]), flush=True)
    shares = {
        name: statistics.median(one["with_step"][name] for one in rounds) for name in ("share", "share_with_start")
    }
    print(f"waited {shares['share']:.1%} of its time, with the start {shares['share_with_start']:.1%}")
    if args.out:
        found = {"rows": args.rows, "ratio": args.ratio, **shares, "rounds": rounds}
        args.out.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if shares["share"] < MOST else 1


if __name__ == "__main__":
    sys.exit(main())
