"""All benchmarks of training, in turn with the peers: raw rows (JSON), table.md and table.png in a folder.

    python benchmarks/rl/run.py --peer-python .venv-peers/bin/python [--only PART…] [--short] [--rows FOLDER]

Parts and their minutes on two free cores:

    ppo-cartpole 1.5, solve 2, ppo-cheetah 1.5, dqn-cartpole 1, sac-pendulum 1.5   against Stable-Baselines3
    start 0.5       imports, building PPO, memory
    vector 0.5      groups over vector environments against their libraries alone
    exactness 1     what exact results cost: see benchmarks/exactness.py
    sampling 2      rollout workers against bare processes that loop over environments of their own

A part that fails, or would begin after --minutes, is told at the end and in the table; the others' rows are written as
they come, and a later run of some parts puts its table together with what is there.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from measure import ROWS, in_turn, surroundings, write_rows
from table import TRAINED, write_table

HERE = Path(__file__).parent
SAMPLED = {
    "CartPole-v1": ("CartPole-v1", 8), "CartPole-v1 × 64": ("CartPole-v1", 64), "HalfCheetah-v5": ("HalfCheetah-v5", 8),
    "busy-20": ("busy-20", 8), "busy-200": ("busy-200", 8), "busy-5000": ("busy-5000", 8),
}  # fmt: skip
VECTORS = {"gymnasium × 16": ("entry_point", 16), "gymnasium × 64": ("entry_point", 64), "ale-py × 8": ("ale", 8)}
if find_spec("envpool"):  # an extra of its own, of 740 MB
    VECTORS |= {"EnvPool × 16": ("envpool", 16), "EnvPool × 64": ("envpool", 64)}
EXACTNESS = ("ppo-cartpole", "ppo-halfcheetah")


def program(name, *arguments):
    """Return the command of one of the programs beside this one."""
    return [sys.executable, str(HERE / name), *map(str, arguments)]


def training(name):
    """Return what measures one training by each rival."""

    def rows(flags, failures):
        rivals = {rival: program("workloads.py", rival, name, flags.seconds) for rival in TRAINED[name]}
        for rival, command in rivals.items():
            command[0] = flags.peer_python if rival.startswith("sb3") else sys.executable
        yield from in_turn(rivals, flags.rounds, failures)

    return rows


def start(flags, failures):
    """Measure imports and building, and the memory then."""
    rivals = {rival: program("start.py", rival) for rival in ("shoal", "sb3")}
    rivals["sb3"][0] = flags.peer_python
    yield from in_turn(rivals, flags.rounds + 2, failures)


def sampling(flags, failures):
    """Measure rollout workers against bare processes."""
    rivals = {
        f"{name} {kind}": program("sampling.py", which, kind, flags.seconds / 2, size)
        for name, (which, size) in SAMPLED.items()
        for kind in ("trivial", "policy")
    }
    yield from in_turn(rivals, 1, failures)


def vector(flags, failures):
    """Measure groups over vector environments against the libraries alone."""
    rivals = {name: program("vector_rates.py", *which, flags.seconds / 2) for name, which in VECTORS.items()}
    yield from in_turn(rivals, 1, failures)


def exactness(flags, failures):
    """Measure trainings as they are, and with nothing that makes them exact."""
    rivals = {
        f"{case} {mode}": program("../exactness.py", "--one", case, mode)
        for case in EXACTNESS
        for mode in ("exact", "bare")
    }
    yield from in_turn(rivals, flags.rounds, failures)


def solve(flags, failures):
    """Measure the time to solve CartPole, a seed a round."""
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(flags.seeds):
            told = Path(folder) / f"{seed}.json"
            command = program("../ppo_cartpole.py", "--first-seed", seed, "--seeds", 1, "--rows", told)
            load = os.getloadavg()[0]
            try:
                subprocess.run(
                    [*command, "--peer-python", flags.peer_python],
                    env=surroundings(), check=True, timeout=240, stdout=subprocess.DEVNULL,
                )  # fmt: skip
            except (subprocess.SubprocessError, OSError) as error:
                failures.append(f"seed {seed}: {error}")
                continue
            yield from ({**row, "load": load} for row in json.loads(told.read_text()))


PARTS = {
    "ppo-cartpole": training("ppo-cartpole"), "start": start, "vector": vector, "solve": solve,
    "ppo-cheetah": training("ppo-cheetah"), "dqn-cartpole": training("dqn-cartpole"),
    "sac-pendulum": training("sac-pendulum"), "exactness": exactness, "sampling": sampling,
}  # fmt: skip


def shown(row):
    """Return a line's numbers."""
    numbers = {name: value for name, value in row.items() if name not in ("rival", "round", "load")}
    return "  ".join(f"{name} {value:,.4g}" for name, value in numbers.items() if isinstance(value, int | float))


def machine(flags):
    """Return what a reader must know of where it ran."""
    asked = (
        "import stable_baselines3, torch, json; print(json.dumps([stable_baselines3.__version__, torch.__version__]))"
    )
    try:
        peer = json.loads(subprocess.run([flags.peer_python, "-c", asked], capture_output=True, check=True).stdout)
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        peer = [f"missing: {error}", ""]
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": models[0].partition(":")[2].strip() if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "torch": version("torch"),
        "gymnasium": version("gymnasium"),
        "peer stable-baselines3": peer[0],
        "peer torch": peer[1],
        "load before": os.getloadavg()[0],
    }


def main():
    """Run the parts; exits with 1 if something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="a Python with stable-baselines3 and mujoco")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each window")
    parser.add_argument("--seeds", type=int, default=5, help="of the time to solve")
    parser.add_argument("--minutes", type=float, default=12.0, help="no part begins later")
    parser.add_argument("--rows", type=Path, default=ROWS, help="the folder of rows, table and picture")
    parser.add_argument("--short", action="store_true", help="one round of a second each: whether everything works")
    flags = parser.parse_args()
    if flags.short:
        flags.rounds, flags.seconds, flags.seeds = 1, 1.0, 1
    began, failures, about = time.monotonic(), [], machine(flags)
    for name in flags.only:
        if time.monotonic() - began > 60 * flags.minutes:
            failures.append(f"{name}: left out after {flags.minutes:g} minutes")
            continue
        own, rows, part_began = [], [], time.monotonic()
        try:
            for row in PARTS[name](flags, own):
                rows.append(row)
                write_rows(name, rows, flags.rows)
                print(f"{name:13} {row['rival']:24} {shown(row)}", flush=True)
        except Exception as error:
            own.append(repr(error))
        failures += [f"{name}, {problem}" for problem in own]
        about[f"seconds of {name}"] = round(time.monotonic() - part_began)
        print(f"{name:13} took {time.monotonic() - part_began:.0f} s", flush=True)
    write_rows("machine", [about], flags.rows)
    write_table(flags.rows, failures)
    sys.exit("\n".join(["", "These failed:", *failures]) if failures else 0)


if __name__ == "__main__":
    main()
