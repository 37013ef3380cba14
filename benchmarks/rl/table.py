"""The table and the picture of the benchmarks of training, of the rows that there are."""

import statistics

from measure import median, ratios, read_rows

TRAINED = {
    "ppo-cartpole": ("shoal", "shoal-vector", "sb3"),
    "ppo-cheetah": ("shoal", "sb3", "sb3-processes"),
    "dqn-cartpole": ("shoal", "sb3"),
    "sac-pendulum": ("shoal", "sb3"),
}
LIMITS = "sampling", "vector environments", "exactness"
"""What lines begin with in which ours is compared with what the machine does without it."""
QUOTED = """
Time to solve CartPole-v1 from process start, measured earlier on another machine of two cores, where Stable-Baselines3
with the zoo's settings took 53.3 s (3 of 3): purejaxrl with its defaults 30.7 s (0.58 of that), PufferLib 3.0 with its
environment in C and hyperparameters searched for it 20.3 s (0.38). Neither is installed here: what is compared is each
one's share of Stable-Baselines3's time.
"""


def trained(name, rows):
    """Yield the table's lines of one training: what, ours, the best rival's, the median of the ratios of pairs."""
    rivals = [rival for rival in TRAINED[name] if rival.startswith("sb3") and median(rows, rival, "steps_per_second")]
    if not rivals:
        return
    best = max(rivals, key=lambda rival: median(rows, rival, "steps_per_second"))
    values = {
        "steps_per_second": "steps/s",
        "steps_per_cpu_second": "steps per processor second",
        "pss_megabytes": "MB in all (PSS)",
    }
    for ours in (rival for rival in TRAINED[name] if not rival.startswith("sb3")):
        for value, unit in values.items():
            found = ratios(rows, best, ours, value) if "PSS" in unit else ratios(rows, ours, best, value)
            if found:
                pair = median(rows, ours, value), median(rows, best, value)
                yield f"{name}, {ours} against {best}, {unit}", *pair, statistics.median(found)


def paired(rows, what, value, ours="shoal", theirs="sb3"):
    """Yield the line of one value that is less the better; the ratio says how many times less."""
    found = ratios(rows, theirs, ours, value)
    if found:
        yield what, median(rows, ours, value), median(rows, theirs, value), statistics.median(found)


def shares(rows, what, ours, theirs, ratio):
    """Yield a line for each rival of rows that hold both sides."""
    for rival in dict.fromkeys(row["rival"] for row in rows):
        yield f"{what} {rival}", median(rows, rival, ours), median(rows, rival, theirs), median(rows, rival, ratio)


def lines(folder):
    """Yield the table's lines, part by part."""
    for name in TRAINED:
        yield from trained(name, read_rows(name, folder))
    yield from paired(read_rows("solve", folder), "solve CartPole-v1, process start included, s", "seconds")
    start = read_rows("start", folder)
    yield from paired(start, "import and build PPO, s", "seconds")
    yield from paired(start, "MB then (PSS)", "pss_megabytes")
    sampled = read_rows("sampling", folder)
    yield from shares(sampled, "sampling, steps/s of workers and bare processes:", "workers", "bare", "efficiency")
    cpu = "workers_per_cpu_second", "bare_per_cpu_second", "cpu_efficiency"
    yield from shares(sampled, "sampling, steps per processor second:", *cpu)
    yield from shares(
        read_rows("vector", folder), "vector environments, group and library:", "group", "library", "efficiency"
    )
    exact = read_rows("exactness", folder)
    for case in dict.fromkeys(row["case"] for row in exact):
        what = f"exactness, µs of processor a step with it and without: {case}"
        yield from paired(exact, what, "cpu_us_per_step", f"{case} exact", f"{case} bare")


def shown(value):
    """Four digits of a number, never as a power of ten, thousands apart."""
    return f"{float(f'{value:.4g}'):,.10g}".replace(",", " ")


def write_table(folder, failures):
    """Write table.md and table.png into the rows' folder, and print the former."""
    told = list(lines(folder))
    text = ["# Benchmarks of training", "", "| | Shoal | rival | ratio |", "|---|---:|---:|---:|"]
    text += [f"| {what} | {shown(ours)} | {shown(theirs)} | {ratio:.2f} |" for what, ours, theirs, ratio in told]
    about = {name: value for row in read_rows("machine", folder) for name, value in row.items()}
    text += [
        "",
        "Medians, and medians of pairs' ratios: of rates ours over theirs, of times and memory theirs over ours.",
    ]
    text += [QUOTED.strip(), "", ", ".join(f"{name}: {value}" for name, value in about.items()) + "."]
    text += (
        ["", "Not measured, or not wholly:", "", *(f"- {each.splitlines()[0]}" for each in failures)]
        if failures
        else []
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text("\n".join(text) + "\n")
    print("\n".join(text))
    draw([(what, ratio) for what, *_, ratio in told if "PSS" not in what], folder / "table.png")


def draw(told, file):
    """Draw what rivals are beaten by, and below it what limits are reached."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    limits = [each for each in told if each[0].startswith(LIMITS)]
    rivals = [each for each in told if each not in limits]
    heights = [len(rivals) + 2, len(limits) + 2]
    figure, both = plt.subplots(2, figsize=(10, 0.25 * sum(heights)), height_ratios=heights, layout="constrained")
    labels = ["how many times better than the rival", "share of what is reached without Shoal"]
    for axes, picked, label in zip(both, [rivals, limits], labels, strict=True):
        bars = axes.barh([what for what, _ in picked], [ratio for _, ratio in picked], color="#4c78a8")
        axes.bar_label(bars, fmt="{:.2f}", padding=-30, color="white")
        axes.axvline(1, color="black", linewidth=0.8)
        axes.margins(0.03, 0.02)
        axes.invert_yaxis()
        axes.set_xlabel(f"{label} (median of pairs)")
    figure.savefig(file, dpi=120)
    plt.close(figure)
