"""Latency and throughput of the runtime: start, actor creation, calls, tasks, put; against a pipe, and against Ray.

    python benchmarks/runtime_latency.py [--rounds 3] [--peer-python PYTHON] [--rows FILE]

Each round runs every rival in a process of its own, in turn; printed are medians over the rounds, and FILE gets what
each round found, as JSON lines. Ray is measured by the same loop, if `--peer-python` names a Python that has it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROWS = {
    "init_ms": "start the runtime [ms]",
    "actor_ms": "new actor, to its first answer [ms]",
    "call_us": "actor call, synchronous [µs]",
    "task_us": "task, synchronous [µs]",
    "calls_per_s": "actor calls, pipelined [1/s]",
    "tasks_per_s": "tasks, pipelined [1/s]",
    "put_100mb_gb_s": "put of 100 MB into used memory [GB/s]",
}


def measure(module_name: str) -> dict[str, float]:
    """Run the loop on a module with Ray's core API; return the rows."""
    import numpy as np

    started = time.perf_counter()
    if module_name == "ray":
        import ray as runtime

        quiet = {"address": "local", "include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
        started = time.perf_counter()
        runtime.init(num_cpus=2, **quiet)
    else:
        from shoal import runtime

        started = time.perf_counter()
        runtime.init(num_cpus=2)
    rows = {"init_ms": (time.perf_counter() - started) * 1e3}

    @runtime.remote
    class Actor:
        def echo(self, x):
            return x

    @runtime.remote
    def task(x):
        return x

    runtime.get([task.remote(i) for i in range(10)])
    started = time.perf_counter()
    actor = Actor.remote()
    runtime.get(actor.echo.remote(0))
    rows["actor_ms"] = (time.perf_counter() - started) * 1e3
    rows["call_us"] = _median_us(lambda: runtime.get(actor.echo.remote(1)))
    rows["task_us"] = _median_us(lambda: runtime.get(task.remote(1)))
    for name, submit in {"calls_per_s": actor.echo.remote, "tasks_per_s": task.remote}.items():
        started = time.perf_counter()
        runtime.get([submit(i) for i in range(3000)])
        rows[name] = 3000 / (time.perf_counter() - started)
    array = np.ones(100_000_000, np.uint8)
    seconds = []
    for _ in range(6):
        started = time.perf_counter()
        runtime.put(array)
        seconds.append(time.perf_counter() - started)
    rows["put_100mb_gb_s"] = 0.1 / min(seconds[1:])
    runtime.shutdown()
    return rows


def measure_pipe() -> dict[str, float]:
    """Measure the limit: one byte to a forked child and back, and a plain copy of 100 MB."""
    import numpy as np

    to_child, to_parent = os.pipe(), os.pipe()
    if os.fork() == 0:
        while os.read(to_child[0], 1) == b"x":
            os.write(to_parent[1], b"x")
        os._exit(0)

    def round_trip() -> None:
        os.write(to_child[1], b"x")
        os.read(to_parent[0], 1)

    latency = _median_us(round_trip)
    os.write(to_child[1], b"q")
    source = np.ones(100_000_000, np.uint8)
    target = source.copy()
    started = time.perf_counter()
    target[:] = source
    return {"call_us": latency, "task_us": latency, "put_100mb_gb_s": 0.1 / (time.perf_counter() - started)}


def _median_us(call, count: int = 1500) -> float:
    times = []
    for _ in range(count):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


def main() -> None:
    """Run the rivals in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how many times each rival is measured")
    parser.add_argument("--peer-python", help="a Python with Ray installed")
    parser.add_argument("--rows", type=Path, help="where to write what each round found")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.measure:
        print(json.dumps(measure_pipe() if flags.measure == "pipe" else measure(flags.measure)))
        return
    rivals = {"shoal": sys.executable, "pipe": sys.executable}
    if flags.peer_python:
        rivals["ray"] = flags.peer_python
    results: dict[str, list[dict[str, float]]] = {name: [] for name in rivals}
    lines = []
    for turn in range(flags.rounds):
        for name, python in rivals.items():
            load = os.getloadavg()[0]
            done = subprocess.run([python, __file__, "--measure", name], stdout=subprocess.PIPE, check=True)
            results[name].append(json.loads(done.stdout.splitlines()[-1]))
            lines.append(json.dumps({"rival": name, "round": turn, "load": load} | results[name][-1]) + "\n")
    if flags.rows:
        flags.rows.parent.mkdir(parents=True, exist_ok=True)
        flags.rows.write_text("".join(lines), encoding="utf-8")
    print(f"{'':42}" + "".join(f"{name:>12}" for name in rivals) + (f"{'shoal/ray':>12}" if "ray" in rivals else ""))
    for row, title in ROWS.items():
        medians = {
            name: statistics.median(result[row] for result in results[name]) if row in results[name][0] else None
            for name in rivals
        }
        cells = "".join(f"{'-' if value is None else f'{value:,.1f}':>12}" for value in medians.values())
        ratio = f"{medians['shoal'] / medians['ray']:>12.3f}" if medians.get("ray") else ""
        print(f"{title:42}{cells}{ratio}")


if __name__ == "__main__":
    main()
