"""Rows a second of shoal.data, torch's DataLoader with 2 workers and Ray Data, on the same files.

    python benchmarks/data/throughput.py [--workload jsonl|png|parquet] [--megabytes 10] [--turns 5]
        [--peer-python .venv-peers/bin/python] [--record benchmarks/data/rows/throughput.jsonl]

Each rival is a process that lives through the run, its runtime started and its modules imported by a first pass that
does not count. Then they read the whole set in turn, again and again; a time is that of one pass, from the making of
the plan to the last batch, with what a rival starts for it (DataLoader's workers). Printed are the medians of rows/s,
of the seconds to the first batch, of what all processors together spend on a row (which a busy machine changes least),
and of the ratio of each turn's pair. The files lie in the page cache.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import rivals
import workloads

RIVALS = ("shoal", "torch", "ray")


class Rival:
    """A process that reads on request."""

    def __init__(self, name: str, python: str, workload: str, folder: Path) -> None:
        self.name = name
        command = [python, __file__, "--answer", name, "--workload", workload, "--folder", str(folder)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def read(self) -> dict:
        """Read all once; return rows, checksum, seconds of the pass and to the first batch."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = next((line for line in self._process.stdout if line.startswith("{")), None)
        if line is None:
            raise SystemExit(f"{self.name} ended: run its command with --answer to see why")
        return json.loads(line)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def processor_seconds() -> float:
    """Return what this process and all below it have used, those that have ended included."""
    parents, used = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        parents[int(path.parent.name)] = int(fields[1])
        used[int(path.parent.name)] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def is_ours(process: int) -> bool:
        while process and process != os.getpid():
            process = parents.get(process, 0)
        return process == os.getpid()

    return sum(seconds for process, seconds in used.items() if is_ours(process))


def answer(name: str, workload: str, folder: Path) -> None:
    """Read all for each line of the input."""
    if name == "shoal":
        from shoal import runtime

        runtime.init(num_cpus=2)
    elif name == "ray":
        import ray

        ray.init(num_cpus=2, include_dashboard=False)
        ray.data.DataContext.get_current().enable_progress_bars = False
    for _ in sys.stdin:
        before = processor_seconds()
        began, first, rows, checksum = time.perf_counter(), None, 0, 0
        batches: Iterator = getattr(rivals, f"{name}_{workload}")(folder)
        for batch in batches:
            first = first or time.perf_counter() - began
            rows += len(batch)
            checksum += workloads.checksum(batch)
        seconds = time.perf_counter() - began
        found = {"rows": rows, "checksum": checksum, "seconds": seconds, "first": first}
        print(json.dumps(found | {"processor": processor_seconds() - before}), flush=True)


def make(workload: str, folder: Path, megabytes: float) -> int:
    if workload == "jsonl":
        return workloads.make_jsonl(folder, megabytes)
    if workload == "png":
        return workloads.make_png(folder, int(megabytes * 1e6 / 9000))
    return workloads.make_parquet(folder, megabytes)


def compare(workload: str, flags: argparse.Namespace) -> Iterator[dict]:
    """Let the rivals read in turn; yield what each has come to."""
    with tempfile.TemporaryDirectory() as name:
        rows = make(workload, Path(name), flags.megabytes)
        pythons = {rival: sys.executable if rival == "shoal" else flags.peer_python for rival in RIVALS}
        running = [Rival(rival, python, workload, Path(name)) for rival, python in pythons.items() if python]
        found: dict[str, list[dict]] = {rival.name: [] for rival in running}
        for turn in range(flags.turns + 1):
            for rival in running:
                one = rival.read()
                if turn:
                    found[rival.name].append(one)
        for rival in running:
            rival.close()
    assert len({(one["rows"], one["checksum"]) for passes in found.values() for one in passes}) == 1, found
    ours = [one["seconds"] for one in found["shoal"]]
    for rival, passes in found.items():
        seconds = [one["seconds"] for one in passes]
        yield {
            "workload": workload,
            "megabytes": flags.megabytes,
            "rival": rival,
            "rows": rows,
            "turns": flags.turns,
            "rows_per_second": round(rows / statistics.median(seconds)),
            "seconds_to_first_batch": round(statistics.median(one["first"] for one in passes), 4),
            "processor_microseconds_a_row": round(
                statistics.median(one["processor"] for one in passes) / rows * 1e6, 2
            ),
            "shoal_is_faster_by": round(statistics.median(b / a for a, b in zip(ours, seconds, strict=True)), 2),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=("jsonl", "png", "parquet"), help="all in turn by default")
    parser.add_argument("--megabytes", type=float, default=10)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--peer-python", help="a Python with torch and ray[data] installed: benchmarks/peers.txt")
    parser.add_argument("--record", type=Path, help="append the results to this file, as JSONL")
    parser.add_argument("--answer", choices=RIVALS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.answer:
        answer(flags.answer, flags.workload, flags.folder)
        return
    for workload in [flags.workload] if flags.workload else ["jsonl", "png", "parquet"]:
        for row in compare(workload, flags):
            print(
                f"{workload:8} {flags.megabytes:g} MB  {row['rival']:6} {row['rows_per_second']:>10,} rows/s   "
                f"first batch {row['seconds_to_first_batch']:.3f} s   "
                f"processors {row['processor_microseconds_a_row']:.2f} µs/row   "
                f"shoal faster by {row['shoal_is_faster_by']:.2f}"
            )
            if flags.record:
                with flags.record.open("a") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
