"""`shoal train … --seeds N`: one training for each seed, side by side, each a process and a run folder of its own.

A training is a program with a runtime of its own, so what happens to one happens to no other; and each is just what
`shoal train … --seed S --run-dir FOLDER/seed-S` is.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..rl import (
    bootstrap_interval,
    check_writable,
    draw_comparison,
    interquartile_mean,
    read_group,
    read_mean_return,
    remove_run,
    three_digits,
    write_json,
)
from ..runtime import InputError
from .output import note
from .signals import STOP_WITH_STDIN, STOPPED

_TAKEN = ("--seeds", "--seed", "--run-dir")
_SWITCHES = ("--json",)
_MOST = 10_000
_PICTURE = "learning_curves.png"


def without_flags(arguments: Sequence[str]) -> list[str]:
    """The arguments that every seed's training is given: all but the seeds, the folder and --json."""
    kept: list[str] = []
    ahead = iter(arguments)
    for word in ahead:
        flag, equals, _ = word.replace("_", "-").partition("=")
        if flag in _TAKEN:
            if not equals:
                next(ahead, None)
        elif flag not in _SWITCHES:
            kept.append(word)
    return kept


@dataclass
class Seeds:
    """Trainings of seeds `first`, `first` + 1, …, at most `parallel` at a time, in folders of `folder`."""

    algorithm: str
    env: str
    arguments: list[str]
    """Of `shoal train`, without seed and run folder."""
    first: int
    count: int
    folder: Path
    parallel: int
    _running: dict[int, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False

    def run(self) -> tuple[int, dict[str, Any]]:
        """Train them all; the exit code and the result, which is in result.json, too. A seed that fails is named, the
        others go on; Ctrl-C stops all, and each saves a checkpoint."""
        seeds = range(self.first, self.first + self.count)
        self._remove_others(seeds)
        self.folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(self.parallel) as pool:
            codes = [pool.submit(self._train, seed) for seed in seeds]
            try:
                ended = dict(zip(seeds, [code.result() for code in codes], strict=True))
            except KeyboardInterrupt:
                self._stop()
                return STOPPED, {}
        return self._sum_up(ended)

    def _remove_others(self, seeds: range) -> None:
        """Delete what was trained in the folder before, by one run or by other seeds: they would be summed up, too."""
        remove_run(self.folder)
        (self.folder / _PICTURE).unlink(missing_ok=True)
        for log in self.folder.glob("seed-*.log"):
            number = log.stem.removeprefix("seed-")
            if number.isdigit() and int(number) not in seeds:
                run = log.with_suffix("")
                remove_run(run)
                log.unlink()
                with contextlib.suppress(OSError):  # something else is in it
                    run.rmdir()

    def _train(self, seed: int) -> int:
        run = self.folder / f"seed-{seed}"
        command = [sys.executable, "-m", "shoal.cli.main", "train", self.algorithm, *self.arguments]
        with (self.folder / f"seed-{seed}.log").open("wb") as log:
            with self._lock:
                if self._stopped:
                    return STOPPED
                self._running[seed] = process = subprocess.Popen(
                    [*command, "--seed", str(seed), "--run-dir", str(run)],
                    stdin=subprocess.PIPE,  # which closes with this process, however that ends
                    env=os.environ | {STOP_WITH_STDIN: "1"},
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # a terminal's Ctrl-C comes once, from here
                )
            note(f"seed {seed} trains; its output: {log.name}")
            code = process.wait()
            assert process.stdin is not None
            process.stdin.close()
        with self._lock:
            del self._running[seed]
        if code and not self._stopped:
            lines = Path(log.name).read_text(errors="replace").strip().splitlines()
            note(f"seed {seed} failed (exit code {code}): {lines[-1] if lines else 'it said nothing'}")
        elif not code:
            note(f"seed {seed}: {_outcome(run)}")
        return code

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._running.values():
                process.send_signal(signal.SIGINT)
        note(f"stopping: each seed saves a checkpoint; go on with one by --resume {self.folder / 'seed-…'}")

    def _sum_up(self, ended: dict[int, int]) -> tuple[int, dict[str, Any]]:
        means = {seed: read_mean_return(self.folder / f"seed-{seed}") for seed, code in ended.items() if code == 0}
        scores = [mean for mean in means.values() if mean is not None]
        result: dict[str, Any] = {
            "algorithm": self.algorithm,
            "env": self.env,
            "episode_return_means": {str(seed): mean for seed, mean in means.items()},
            "failed": [seed for seed, code in ended.items() if code],
            "iqm": interquartile_mean(scores) if scores else None,
            "interval": list(bootstrap_interval(scores)) if scores else None,
            "confidence": 0.95,
        }
        write_json(self.folder / "result.json", result)
        if scores:
            title = f"{self.algorithm.upper()} on {self.env}, {len(scores)} seeds"
            draw_comparison([read_group(self.folder)], self.folder / _PICTURE, title=title)
        return (1 if result["failed"] else 0), result


def summary(result: dict[str, Any], folder: Path) -> str:
    """The result in one line."""
    if result["iqm"] is None:
        return f"no seed has a mean return; see {folder}"
    low, high = (three_digits(end) for end in result["interval"])
    failed = f"; failed: {', '.join(map(str, result['failed']))}" if result["failed"] else ""
    return f"IQM of mean returns {three_digits(result['iqm'])} (95 % interval {low} to {high}){failed}; {folder}"


def parallel_trainings(count: int, workers: int) -> int:
    """How many trainings of so many workers fit the free cores; at least one."""
    return max(1, min(count, len(os.sched_getaffinity(0)) // workers))


def _outcome(run: Path) -> str:
    mean = read_mean_return(run)
    return "no episode ended" if mean is None else f"mean return {three_digits(mean)}"


def check_seeds(count: int, run_dir: str | None, overwrite: bool) -> None:
    """InputError if there can be no such seeds, or none in a folder that is named."""
    if not 1 <= count <= _MOST:
        raise InputError(f"--seeds is {count}, but must be at least 1 and at most {_MOST:,}")
    if run_dir is None:
        return
    folder = Path(run_dir)
    check_writable(folder)
    if not overwrite and folder.exists() and any(folder.iterdir()):
        raise InputError(f"'{folder}' is not empty: choose another --run-dir, or give --overwrite")
