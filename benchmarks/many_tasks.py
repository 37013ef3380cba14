"""A million tasks, and the memory of all processes meanwhile: it must not grow with the number of tasks.

    python benchmarks/many_tasks.py [--tasks 1000000] [--window 1000] [--most-growth 8]

At most `--window` tasks are under way at any moment. The proportional set size (PSS) of the driver, the node and all
workers, and the driver's resident set, are looked at after a tenth of the tasks and at the end; the exit code is 1 if
the sum has grown by more than `--most-growth` MB between the two.
"""

import argparse
import collections
import gc
import sys
import time

import psutil

from shoal import runtime


@runtime.remote
def task(x: int) -> int:
    return x


def run(numbers: range, window: int) -> None:
    """Run a task for each number, and check what it returns."""
    under_way: collections.deque = collections.deque()
    for number in numbers:
        under_way.append((number, task.remote(number)))
        if len(under_way) == window:
            half = [under_way.popleft() for _ in range(window // 2)]
            assert runtime.get([ref for _, ref in half]) == [number for number, _ in half]
    assert runtime.get([ref for _, ref in under_way]) == [number for number, _ in under_way]


def memory() -> dict[str, float]:
    """Return MB: the driver's resident set, and the proportional set size of all processes."""
    gc.collect()
    me = psutil.Process()
    everybody = [me, *me.children(recursive=True)]
    return {
        "rss": me.memory_info().rss / 1e6,
        "pss": sum(process.memory_full_info().pss for process in everybody) / 1e6,
    }


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--window", type=int, default=1000)
    parser.add_argument("--most-growth", type=float, default=8.0, help="MB")
    arguments = parser.parse_args()
    runtime.init(num_cpus=2)
    first = arguments.tasks // 10
    seen = []
    for numbers in (range(first), range(first, arguments.tasks)):
        started = time.perf_counter()
        run(numbers, arguments.window)
        seconds = time.perf_counter() - started
        seen.append(memory())
        resident, all_of_them = seen[-1]["rss"], seen[-1]["pss"]
        print(f"{numbers.stop:>9} tasks: driver {resident:.1f} MB resident, all processes {all_of_them:.1f} MB PSS")
        print(f"{'':>9} {len(numbers) / seconds:.0f} tasks a second", flush=True)
    runtime.shutdown()
    growth = seen[1]["pss"] - seen[0]["pss"]
    print(f"grown by {growth:.1f} MB over {arguments.tasks - first} tasks")
    return int(growth > arguments.most_growth)


if __name__ == "__main__":
    sys.exit(main())
