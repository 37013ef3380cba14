"""A network that is fitted to a dataset larger than the memory it takes: gradient steps per second, and peak memory.

    python benchmarks/classic/streamed_fit.py --files 20
    python benchmarks/classic/streamed_fit.py --files 80

Each file holds 40,000 rows with a tensor of 8 × 16 numbers (23 MB); the fit takes one epoch, and prints a line of JSON.
Peak memory is the proportional set size (PSS) of this process and all below it, sampled every 0.3 s.
"""

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
from pyarrow import parquet

from shoal import Supervised, data, runtime

ROWS, BATCH = 40_000, 1024


def write(folder: Path, files: int) -> int:
    """Write the files; return their bytes."""
    generator = np.random.default_rng(0)
    for index in range(files):
        labels = generator.integers(0, 2, ROWS)
        boards = generator.normal(size=(ROWS, 8, 16)).astype(np.float32)
        boards[:, 0, 0] += 3 * labels
        table = pa.table({"board": pa.FixedShapeTensorArray.from_numpy_ndarray(boards), "label": labels})
        parquet.write_table(table, folder / f"{index:03}.parquet", row_group_size=10_000)
    return sum(file.stat().st_size for file in folder.iterdir())


def pss() -> int:
    """Of this process and all below it."""
    total, me = 0, psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--megabytes", type=int, default=128)
    flags = parser.parse_args()
    peaks, ended = [0], threading.Event()

    def sample() -> None:
        while not ended.wait(0.3):
            peaks.append(pss())

    with tempfile.TemporaryDirectory() as folder, runtime.init(engine="native"):
        size = write(Path(folder), flags.files)
        rows = data.read_parquet(folder).shuffle(seed=0, window=20_000).options(memory=flags.megabytes << 20)
        with Supervised(rows, batch_size=BATCH, module_kwargs={"net_arch": [16]}) as fit:
            fit.train(1)
            sampler = threading.Thread(target=sample)
            sampler.start()
            steps, began = flags.files * ROWS // BATCH, time.perf_counter()
            fit.train(steps)
            seconds = time.perf_counter() - began
            ended.set()
            sampler.join()
    print(json.dumps({"megabytes": size / 1e6, "steps_per_second": steps / seconds, "peak_pss_mb": max(peaks) / 1e6}))


if __name__ == "__main__":
    main()
