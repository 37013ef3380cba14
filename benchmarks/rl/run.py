"""All benchmarks of training, in turn with the peers; writes raw rows, table.md and table.png into `rows`.

python benchmarks/rl/run.py --peer-python .venv-peers/bin/python [--only NAME…] [--rounds 3] [--seconds 8]
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from measure import ROWS, in_turn, median, ratios, read_rows, write_rows

HERE = Path(__file__).parent
SAMPLED = ("CartPole-v1", "HalfCheetah-v5", "busy-20", "busy-200", "busy-5000")
TRAINED = {
    "ppo-cartpole": ("shoal", "shoal-vector", "sb3"),
    "ppo-cheetah": ("shoal", "sb3", "sb3-processes"),
    "dqn-cartpole": ("shoal", "sb3"),
    "sac-pendulum": ("shoal", "sb3"),
}


def interpreter(rival, flags):
    """Return the Python that runs a rival."""
    return flags.peer_python if rival.startswith("sb3") else sys.executable


def measure_training(flags, name):
    """Measure one training by each rival."""
    rivals = {
        rival: [interpreter(rival, flags), str(HERE / "workloads.py"), rival, name, str(flags.seconds)]
        for rival in TRAINED[name]
    }
    rows = []
    for row in in_turn(rivals, flags.rounds, rows):
        print(f"{name:14} {row['rival']:14} {row['steps_per_second']:10,.0f} steps/s", flush=True)
    write_rows(name, rows)


def measure_start(flags):
    """Measure imports and building."""
    rivals = {rival: [interpreter(rival, flags), str(HERE / "start.py"), rival] for rival in ("shoal", "sb3")}
    rows = []
    for row in in_turn(rivals, flags.rounds, rows):
        print(f"{'start':14} {row['rival']:14} {row['seconds']:10.2f} s", flush=True)
    write_rows("start", rows)


def measure_sampling(flags):
    """Measure rollout workers against bare processes."""
    seconds, rows = str(flags.seconds / 3), []
    rivals = {
        f"{name} {kind}": [sys.executable, str(HERE / "sampling.py"), name, kind, seconds]
        for name in SAMPLED
        for kind in ("trivial", "policy")
    }
    for row in in_turn(rivals, max(1, flags.rounds - 1), rows):
        print(f"{'sampling':14} {row['rival']:24} {row['efficiency']:8.0%} of bare processes", flush=True)
    write_rows("sampling", rows)


def measure_solving(flags):
    """Measure the time to solve CartPole."""
    command = [sys.executable, str(HERE.parent / "ppo_cartpole.py"), "--seeds", str(flags.seeds)]
    command += ["--peer-python", flags.peer_python, "--rows", str(ROWS / "solve.json")]
    subprocess.run(command, check=True)


def lines():
    """Return the table's rows: what, ours, theirs, and the ratio of pairs."""
    for name, rivals in TRAINED.items():
        rows = read_rows(name)
        for ours in (rival for rival in rivals if rival.startswith("shoal")):
            best = max(
                (rival for rival in rivals if rival.startswith("sb3")),
                key=lambda rival: median(rows, rival, "steps_per_second") or 0,
            )
            if median(rows, ours, "steps_per_second") is None:
                continue
            for value, unit in (
                ("steps_per_second", "steps/s"),
                ("steps_per_cpu_second", "steps per processor second"),
            ):
                ratio = statistics.median(ratios(rows, ours, best, value))
                yield f"{name}, {ours}, {unit}", median(rows, ours, value), median(rows, best, value), ratio
            memory = statistics.median(ratios(rows, ours, best, "pss_megabytes"))
            yield (
                f"{name}, {ours}, MB in all (PSS)",
                median(rows, ours, "pss_megabytes"),
                median(rows, best, "pss_megabytes"),
                memory,
            )
    rows = read_rows("start")
    if rows:
        ratio = statistics.median(ratios(rows, "sb3", "shoal", "seconds"))
        yield "import and build PPO, s", median(rows, "shoal", "seconds"), median(rows, "sb3", "seconds"), ratio
    rows = read_rows("solve")
    if rows:
        found = {
            rival: statistics.median(row["seconds"] for row in rows if row["rival"] == rival)
            for rival in ("shoal", "sb3")
        }
        yield (
            "solve CartPole-v1, s",
            found["shoal"],
            found["sb3"],
            statistics.median(ratios(rows, "sb3", "shoal", "seconds")),
        )
    rows = read_rows("sampling")
    for rival in dict.fromkeys(row["rival"] for row in rows):
        yield (
            f"sampling {rival}, steps/s",
            median(rows, rival, "workers"),
            median(rows, rival, "bare"),
            median(rows, rival, "efficiency"),
        )


def write_table():
    """Write table.md and table.png of the rows that there are."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    told = list(lines())
    text = ["| | Shoal | rival | ratio |", "|---|---:|---:|---:|"]
    text += [f"| {what} | {ours:,.4g} | {theirs:,.4g} | {ratio:.2f} |" for what, ours, theirs, ratio in told]
    (ROWS / "table.md").write_text("\n".join(text) + "\n")
    print("\n".join(text))
    shown = [(what, ratio) for what, *_, ratio in told if "PSS" not in what][::-1]
    figure, axes = plt.subplots(figsize=(8, 0.3 * len(shown) + 1), layout="constrained")
    axes.barh([what for what, _ in shown], [ratio for _, ratio in shown], color="#4c78a8")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("Shoal's speed over its rival's (median of pairs)")
    figure.savefig(ROWS / "table.png", dpi=120)


def main():
    everything = [*TRAINED, "start", "solve", "sampling"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="a Python with stable-baselines3 and mujoco")
    parser.add_argument("--only", nargs="*", choices=everything, default=everything)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each window")
    parser.add_argument("--seeds", type=int, default=5, help="of the time to solve")
    flags = parser.parse_args()
    for name in flags.only:
        others = {"start": measure_start, "solve": measure_solving, "sampling": measure_sampling}
        others[name](flags) if name in others else measure_training(flags, name)
    write_table()


if __name__ == "__main__":
    main()
