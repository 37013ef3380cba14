"""What the benchmarks of training share: windows, trees of processes, rivals in turn, rows, a table and a picture.

Needs nothing but Python: the peers' interpreter imports it, too.
"""

import json
import os
import signal
import statistics
import subprocess
import time
from pathlib import Path

ROWS = Path(__file__).parent / "rows"
_TICKS = os.sysconf("SC_CLK_TCK")


def tree(root=None):
    """Return the ids of a process (default: this one) and of all that it, or they, have started."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parents[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):  # it has ended
                continue
    found, waiting = [], [os.getpid() if root is None else root]
    while waiting:
        found.append(waiting.pop())
        waiting += [child for child, parent in parents.items() if parent == found[-1]]
    return found


def cpu_seconds(pids):
    """Return user and system time of processes, together."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def pss_megabytes(pids):
    """Return the proportional memory of processes, together: a page that n of them share counts 1/n for each."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


class Window:
    """From `begin` to `end`: seconds and processor seconds of this process and those that it started."""

    def begin(self):
        self.started, self.cpu = time.perf_counter(), cpu_seconds(tree())

    def end(self, steps):
        """Return what is printed of `steps` environment steps in it."""
        seconds, pids = time.perf_counter() - self.started, tree()
        cpu = cpu_seconds(pids) - self.cpu
        return {
            "steps": steps,
            "steps_per_second": steps / seconds,
            "steps_per_cpu_second": steps / max(cpu, 1e-9),
            "pss_megabytes": pss_megabytes(pids),
        }


class FailedError(Exception):
    """A program of a benchmark failed, or took too long."""


def surroundings():
    """Return the environment variables of what is measured.

    Libraries that would start a thread for each core get one (ours sets the number itself). Variables that name a
    kernel are taken out: each library chooses what suits this processor. Modules are compiled once, as they are where
    nobody has forbidden it.
    """
    left_out = ("OPENBLAS_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return kept | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def run(command, limit=120):
    """Run a command; return what its last line of output says as JSON, the seconds that it took in all, and how much
    others did on the machine when it began. FailedError if it fails, or takes more than `limit` seconds."""
    shown, started, load = " ".join(command), time.perf_counter(), os.getloadavg()[0]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=surroundings(), start_new_session=True
    ) as process:
        try:
            output, errors = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise FailedError(f"{shown} took more than {limit} s") from None
        except BaseException:  # Ctrl-C: what it has started ends with it
            os.killpg(process.pid, signal.SIGTERM)
            raise
    if process.returncode or not output.strip():
        raise FailedError(f"{shown} ended with status {process.returncode}:\n{errors[-1500:]}")
    return {**json.loads(output.splitlines()[-1]), "seconds": time.perf_counter() - started, "load": load}


def in_turn(rivals, rounds, failures, limit=120):
    """Run rivals (name → command) in turn, `rounds` times; yield a row of each. Who fails is told in `failures`, and
    left out from then on."""
    there = dict(rivals)
    for turn in range(rounds):
        for name in list(there):
            try:
                yield {"rival": name, "round": turn, **run(there[name], limit)}
            except FailedError as error:
                failures.append(f"{name}: {error}")
                del there[name]


def ratios(rows, ours, theirs, value):
    """Return the ratio of each pair: of the two rivals in the same round."""
    found = {(row["rival"], row["round"]): row[value] for row in rows}
    return [found[ours, turn] / found[theirs, turn] for name, turn in found if name == ours and (theirs, turn) in found]


def median(rows, rival, value):
    """Return the median of a rival's rows; None if it has none."""
    found = [row[value] for row in rows if row["rival"] == rival and value in row]
    return statistics.median(found) if found else None


def write_rows(name, rows, folder=ROWS):
    """Write raw rows, as a whole."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    whole = path.with_suffix(".tmp")
    whole.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    whole.replace(path)


def read_rows(name, folder=ROWS):
    """Return the rows of a benchmark; none where it has not run."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else []
