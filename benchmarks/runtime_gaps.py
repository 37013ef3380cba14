"""The eight operations in which the runtime is furthest from its goal of ten times Ray, each against Ray in turn.

    python benchmarks/runtime_gaps.py --peer-python PYTHON [--rounds 5] [--only call,wait] [--out FILE.jsonl]
    python benchmarks/runtime_gaps.py --before CHECKOUT        # against an earlier Shoal instead

Each round runs every rival in a process of its own, in turn, and every operation several times in it. Counted are
microseconds per operation on the clock, and of processor time in all processes of the rival, which other programs on
the machine disturb less. Printed are medians over the rounds, and of the ratios of each round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

OPERATIONS = {
    "call": "actor call, synchronous",
    "calls": "actor calls, pipelined",
    "calls_10kb": "actor calls with 10 KB in and out, pipelined",
    "async_call": "call of an asyncio actor, synchronous",
    "async_calls": "calls of an asyncio actor, pipelined",
    "nested": "tasks submitted by four tasks",
    "wait": "1000 tasks, waited for one at a time",
    "read": "first read and sum of 100 MB in a new process",
    "reread": "read and sum of another 100 MB there",
    "actor": "new actor, to its first answer",
}
_REPEATS = 3


def processor_seconds() -> dict[int, float]:
    """Return the processor time of this process and of each that lives below it."""
    parents: dict[int, int] = {}
    spent: dict[int, float] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            try:
                parent = Path(entry.path, "stat").read_text().rpartition(")")[2].split()[1]
                threads = [Path(task.path, "schedstat").read_text() for task in os.scandir(entry.path + "/task")]
            except OSError:  # it has just ended
                continue
            parents[int(entry.name)] = int(parent)
            spent[int(entry.name)] = sum(int(thread.split()[0]) for thread in threads) / 1e9
    ours = {}
    for process, seconds in spent.items():
        above = process
        while above not in {os.getpid(), 0}:
            above = parents.get(above, 0)
        if above:
            ours[process] = seconds
    return ours


def measure(runtime: Any, chosen: list[str]) -> dict[str, list[float]]:
    """Return the microseconds of each operation, on the clock and of all processors: the medians of some repeats."""
    workloads = {**small_calls(runtime), **large_reads(runtime)}
    found = {}
    for name in chosen:
        count, run = workloads[name]
        run()
        took = [timed(run) for _ in range(_REPEATS)]
        found[name] = [statistics.median(column) / count * 1e6 for column in zip(*took, strict=True)]
    return found


def timed(run: Callable[[], tuple[float, float] | None]) -> tuple[float, float]:
    """Return the seconds that something takes, on the clock and of all processors, unless it says so itself."""
    before, began = processor_seconds(), time.perf_counter()
    itself = run()
    clock, after = time.perf_counter() - began, processor_seconds()
    return itself or (clock, sum(seconds - before.get(process, 0.0) for process, seconds in after.items()))


def small_calls(runtime: Any) -> dict[str, tuple[int, Callable[[], tuple[float, float] | None]]]:
    """Return how many operations each of these is, and what runs them."""
    import numpy as np

    @runtime.remote(num_cpus=0)
    class Echo:
        def echo(self, x=b"ok"):
            return x

    @runtime.remote(num_cpus=0)
    class AsyncEcho:
        async def echo(self):
            return b"ok"

    @runtime.remote
    def task():
        return b"ok"

    @runtime.remote(num_cpus=0)
    def client(count):
        runtime.get([task.remote() for _ in range(count)])

    def wait_for_each() -> None:
        pending = [task.remote() for _ in range(1000)]
        while pending:
            _, pending = runtime.wait(pending)

    made: list[Any] = []  # they live until the next repeat: the processor time of the dead cannot be counted

    def new_actors() -> None:
        made.clear()
        for _ in range(3):
            made.append(Echo.remote())
            runtime.get(made[-1].echo.remote())

    def synchronous(method: Any) -> None:
        for _ in range(1000):
            runtime.get(method.remote())

    actor, on_loop, array = Echo.remote(), AsyncEcho.remote(), np.ones(10_000, np.uint8)
    return {
        "call": (1000, lambda: synchronous(actor.echo)),
        "calls": (5000, lambda: runtime.get([actor.echo.remote() for _ in range(5000)]) and None),
        "calls_10kb": (2000, lambda: runtime.get([actor.echo.remote(array) for _ in range(2000)]) and None),
        "async_call": (1000, lambda: synchronous(on_loop.echo)),
        "async_calls": (5000, lambda: runtime.get([on_loop.echo.remote() for _ in range(5000)]) and None),
        "nested": (2000, lambda: runtime.get([client.remote(500) for _ in range(4)]) and None),
        "wait": (1000, wait_for_each),
        "actor": (3, new_actors),
    }


def large_reads(runtime: Any) -> dict[str, tuple[int, Callable[[], tuple[float, float] | None]]]:
    """Return the same for reads, which are timed where they happen: twice in each new process."""
    import numpy as np

    @runtime.remote(num_cpus=0)
    class Reader:
        def read(self, refs):
            began, spent = time.perf_counter(), time.process_time()
            assert runtime.get(refs[0]).sum() == 12_500_000
            return time.perf_counter() - began, time.process_time() - spent

    objects = [runtime.put(np.ones(12_500_000)) for _ in range(2)]

    def read(which: int) -> tuple[float, float]:
        reader = Reader.remote()
        seconds = [runtime.get(reader.read.remote([ref])) for ref in objects]
        return seconds[which]

    return {"read": (1, lambda: read(0)), "reread": (1, lambda: read(1))}


def start(module_name: str) -> Any:
    """Start Ray, or Shoal's runtime, on two CPUs; return its module."""
    import numpy  # noqa: F401  # as most programs do before they start it, so that workers have it from the beginning

    if module_name == "ray":
        import ray as runtime

        quiet = {"address": "local", "include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
        runtime.init(num_cpus=2, object_store_memory=2 * 10**9, **quiet)
    else:
        from shoal import runtime

        runtime.init(num_cpus=2)
    return runtime


def main() -> None:
    """Run the rivals in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how many times each rival is measured")
    parser.add_argument("--peer-python", help="a Python with Ray installed")
    parser.add_argument("--before", help="a checkout of an earlier Shoal, measured with this Python")
    parser.add_argument("--only", help="names of operations, with commas: " + ", ".join(OPERATIONS))
    parser.add_argument("--out", type=Path, help="append a row for each rival and round to this file")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    chosen = flags.only.split(",") if flags.only else list(OPERATIONS)
    if flags.measure:
        runtime = start(flags.measure)
        print(json.dumps(measure(runtime, chosen)))
        runtime.shutdown()
        return
    here = str(Path(__file__).resolve().parents[1] / "src")
    rivals = {"shoal": (sys.executable, here)}
    if flags.before:
        rivals["before"] = (sys.executable, str(Path(flags.before).resolve() / "src"))
    if flags.peer_python:
        rivals["ray"] = (flags.peer_python, "")
    results: dict[str, list[dict[str, list[float]]]] = {name: [] for name in rivals}
    for turn in range(flags.rounds):
        for name, (python, path) in rivals.items():
            command = [python, __file__, "--measure", name, "--only", ",".join(chosen)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=os.environ | {"PYTHONPATH": path})
            results[name].append(json.loads(done.stdout.splitlines()[-1]))
            if flags.out:
                row = {"round": turn, "rival": name, "us_clock_and_processor": results[name][-1]}
                with flags.out.open("a") as out:
                    out.write(json.dumps(row) + "\n")
    show(results, chosen)


def show(results: dict[str, list[dict[str, list[float]]]], chosen: list[str]) -> None:
    """Print a row for each operation: medians of both times for each rival, and how many times faster Shoal was."""
    others = [name for name in results if name != "shoal"]
    head = "".join(f"{name:>12}{'CPU':>11}" for name in results) + "".join(
        f"{name + '/shoal':>14}{'CPU':>7}" for name in others
    )
    print(f"{'microseconds':52}{head}")
    for row in chosen:
        line = f"{OPERATIONS[row]:52}"
        for rounds in results.values():
            line += "".join(
                f"{statistics.median(one[row][which] for one in rounds):>{width},.1f}"
                for which, width in ((0, 12), (1, 11))
            )
        for name in others:
            pairs = list(zip(results[name], results["shoal"], strict=True))
            line += "".join(
                f"{statistics.median(other[row][which] / ours[row][which] for other, ours in pairs):>{width}.2f}"
                for which, width in ((0, 14), (1, 7))
            )
        print(line)


if __name__ == "__main__":
    main()
