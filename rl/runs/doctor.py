"""Where the time of a run went, from the times that it has recorded, and what other settings would gain.

Of a synchronous training an iteration is  rollouts (of the slowest worker) + update + transfer;  rollouts are made of
environment and inference, and of waiting for the slowest worker. An asynchronous one overlaps them: its time is that
of its workers, and the learner's beside it. What a setting gains is told by that sum with one of its parts changed:
"at most" where the part would only vanish with perfect scaling, else "about".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...runtime import InputError
from .files import understood
from .metrics import read_metrics
from .run_folder import read_config

PARTS = ("environment", "inference", "transfer", "learner", "waiting")
_WORTH = 1.05
_OVERLAPPED = ("impala", "appo", "apex")
_ASYNCHRONOUS = {"ppo": "appo", "a2c": "impala", "dqn": "apex"}


@dataclass(frozen=True)
class Facts:
    """What decides how an iteration's time is made up, and what of it can be changed."""

    workers: int
    """That have something to do: with one process for all of them 1."""
    groups: int
    size: int
    """Environments per group."""
    cores: int
    """Of the machine that it ran on."""
    one_process: bool = False
    """The serial engine: all take turns."""
    overlapped: bool = False
    """Whether workers and learner do not wait for each other."""
    asynchronous: str | None = None
    """The algorithm that does the same without waiting, if there is one."""
    can_vectorize: bool = False
    """Whether the environment has a vector version that is not used."""
    can_shard: bool = False
    """Whether more than one learner can work on an update."""
    batch_size: int | None = None


@dataclass(frozen=True)
class Times:
    """Seconds of one iteration, the mean of many."""

    iteration: float
    environment: float
    """Summed over all groups, as `inference`."""
    inference: float
    learner: float
    slowest: float
    """What the worker with most to do was busy for."""


@dataclass(frozen=True)
class Suggestion:
    """A setting, and by which factor the steps per second would grow."""

    setting: str
    why: str
    gain: float
    bound: bool
    """Whether the gain is one that will not be exceeded, rather than an estimate."""
    changes_results: bool
    """Whether what is learned becomes another (the same seed gives other weights)."""

    def __str__(self) -> str:
        kind = "at most" if self.bound else "about"
        other = "; other weights for the same seed" if self.changes_results else ""
        return f"{self.setting}: {kind} {self.gain:.2f} × the steps per second ({self.why}{other})"


@dataclass(frozen=True)
class Diagnosis:
    """`shares` of the time by part, which sum to 1; the `bottleneck` is the largest; `learner_busy` is how much of the
    time the learner worked; `suggestions`, the best first."""

    iterations: int
    iteration_seconds: float
    steps_per_second: float
    shares: Mapping[str, float]
    bottleneck: str
    learner_busy: float
    suggestions: Sequence[Suggestion]

    def to_json(self) -> dict[str, Any]:
        """As `shoal doctor --json` prints it."""
        told = [vars(suggestion) | {"gain": round(suggestion.gain, 3)} for suggestion in self.suggestions]
        return {**vars(self), "shares": dict(self.shares), "suggestions": told}


def diagnose(folder: str | Path, **known: Any) -> Diagnosis:
    """Diagnose the run in `folder`; `known` are fields of `Facts` that its files do not tell.

    Raises:
        InputError: no run folder, or one without times of at least two iterations.
    """
    config, metrics = read_config(folder), Path(folder) / "metrics.jsonl"
    records = list(read_metrics(metrics))
    with understood(metrics):
        times, steps = mean_times(records, folder)
    run = config.get("run", {})
    size = int(run.get("group_size") or 1)
    groups = max(1, int(run.get("n_envs") or 1) // size)
    one_process = config.get("engine") == "serial"
    facts = Facts(
        workers=1 if one_process else max(1, min(int(run.get("workers") or 1), groups)),
        groups=groups,
        size=size,
        cores=int(config.get("machine", {}).get("cores") or 1),
        one_process=one_process,
        overlapped=config["algorithm"] in _OVERLAPPED,
        asynchronous=_ASYNCHRONOUS.get(config["algorithm"]),
        batch_size=config.get("hyperparameters", {}).get("batch_size"),
    )
    facts = replace(facts, **known)
    shares = shares_of(times, facts)
    return Diagnosis(
        iterations=len(records),
        iteration_seconds=times.iteration,
        steps_per_second=steps / times.iteration,
        shares=shares,
        bottleneck=max(PARTS, key=lambda part: shares[part]),
        learner_busy=min(1.0, times.learner / times.iteration),
        suggestions=suggestions(times, facts),
    )


def mean_times(records: Sequence[Mapping[str, Any]], folder: str | Path) -> tuple[Times, float]:
    """Mean times of the iterations after the first, which has the start in it, and their mean environment steps."""
    sums, count, steps = dict.fromkeys(("iteration", "environment", "inference", "learner", "slowest"), 0.0), 0, 0
    for before, record in itertools.pairwise(records):
        seconds = record["elapsed_seconds"] - before["elapsed_seconds"]
        if seconds <= 0 or "time/update_seconds" not in record:
            continue
        count, steps = count + 1, steps + record["timesteps"] - before["timesteps"]
        sums["iteration"] += seconds
        sums["learner"] += record["time/update_seconds"]
        for part in ("environment", "inference"):
            sums[part] += record.get(f"time/{part}_seconds", 0.0)
        sums["slowest"] += record.get("time/slowest_worker_seconds", 0.0)
    if not count:
        raise InputError(
            f"at least 2 iterations with times are needed, and '{folder}' has {len(records)} in all: train longer, "
            "or name the run of an algorithm that updates a network"
        )
    return Times(**{name: value / count for name, value in sums.items()}), steps / count


def shares_of(times: Times, facts: Facts) -> dict[str, float]:
    """The share of each part in an iteration's time."""
    environment, inference = times.environment / facts.workers, times.inference / facts.workers
    if facts.overlapped:
        whole = max(times.iteration, environment + inference)
        parts = {"environment": environment, "inference": inference, "transfer": 0.0, "learner": 0.0}
        rest = whole - environment - inference
        if times.learner > environment + inference:  # the workers wait for the learner
            parts["learner"], rest = rest, 0.0
        return {name: value / whole for name, value in (parts | {"waiting": rest}).items()}
    rollouts = _rollouts(times, facts)
    transfer = max(0.0, times.iteration - rollouts - times.learner)
    waiting = max(0.0, rollouts - environment - inference)
    found = dict(zip(PARTS, (environment, inference, transfer, times.learner, waiting), strict=True))
    whole = sum(found.values())
    return {name: value / whole for name, value in found.items()}


def _rollouts(times: Times, facts: Facts) -> float:
    """Seconds that the rollouts of an iteration take, until the slowest worker is done."""
    return max(times.slowest, (times.environment + times.inference) / facts.workers)


def suggestions(times: Times, facts: Facts) -> list[Suggestion]:
    """What would make the run faster by 5 % at least, the best first."""
    found = [*_of_rollouts(times, facts), *_of_updates(times, facts)]
    return sorted((each for each in found if each.gain >= _WORTH), key=lambda each: -each.gain)


def _gain(times: Times, facts: Facts, *, rollouts: float | None = None, learner: float | None = None) -> float:
    """How much faster the run would be with other seconds of rollouts or updates."""
    old, new = _rollouts(times, facts), _rollouts(times, facts) if rollouts is None else rollouts
    update = times.learner if learner is None else learner
    if facts.overlapped:
        return max(old, times.learner) / max(new, update, 1e-9)
    return times.iteration / max(times.iteration - old - times.learner + new + update, 1e-9)


def _of_rollouts(times: Times, facts: Facts) -> list[Suggestion]:
    found, workers, groups = [], facts.workers, facts.groups
    busy = times.environment + times.inference
    most = min(groups, facts.cores)
    if facts.one_process and facts.cores > 1 and groups > 1:
        gain = _gain(times, facts, rollouts=busy * math.ceil(groups / most) / groups)
        found.append(
            Suggestion(f"engine native, workers {most}", "rollouts in processes of their own", gain, True, False)
        )
    elif most > workers:
        gain = _gain(times, facts, rollouts=busy * math.ceil(groups / most) / groups)
        why = f"{groups} groups of environments wait for {workers} workers on {facts.cores} cores"
        found.append(Suggestion(f"workers {most}", why, gain, False, False))
    elif groups % workers:
        fewer = _gain(times, facts, rollouts=busy / workers)
        why = f"{groups} groups do not divide evenly among {workers} workers"
        found.append(
            Suggestion(f"n_envs {facts.size * workers * math.ceil(groups / workers)}", why, fewer, False, True)
        )
    if groups > workers and groups % workers == 0:
        rollouts = times.environment / workers + times.inference / groups
        gain = _gain(times, facts, rollouts=rollouts)
        why = "one forward pass acts for more environments"
        found.append(Suggestion(f"group_size {facts.size * groups // workers}", why, gain, False, True))
    if facts.can_vectorize and facts.size > 1:
        rollouts = (times.environment / facts.size + times.inference) / workers
        why = f"a group of {facts.size} steps as one environment"
        gain = _gain(times, facts, rollouts=rollouts)
        found.append(Suggestion("vectorization entry_point", why, gain, True, True))
    return found


def _of_updates(times: Times, facts: Facts) -> list[Suggestion]:
    found = []
    if facts.can_shard and not facts.one_process and facts.cores > 1:
        gain = _gain(times, facts, learner=times.learner / 2)
        why = "two learners share each minibatch"
        found.append(Suggestion("learners 2, gradient_shards 2", why, gain, True, True))
    if facts.batch_size is not None and facts.batch_size <= 256:
        gain = _gain(times, facts, learner=times.learner / 2)
        why = "half as many minibatches: learning may want another learning rate"
        found.append(Suggestion(f"batch_size {2 * facts.batch_size}", why, gain, True, True))
    if facts.asynchronous is not None and not facts.overlapped and not facts.one_process:
        work = times.environment + times.inference + times.learner
        longer = max(_rollouts(times, facts), times.learner, work / facts.cores)
        gain = times.iteration / max(longer, 1e-9)
        why = "it lets workers act while the learner learns"
        found.append(Suggestion(f"algorithm {facts.asynchronous}", why, gain, True, True))
    transfer = times.iteration - _rollouts(times, facts) - times.learner
    if not facts.overlapped and transfer > 0.25 * times.iteration:
        gain = times.iteration / (times.iteration - transfer / 2)
        why = "what each iteration costs is paid half as often"
        found.append(Suggestion("n_steps or train_freq twice as long", why, gain, True, True))
    return found
