"""What a person sees of a training: a live line in a terminal, plain lines elsewhere, both on standard error; in a
notebook a line of the cell's output that changes."""

import sys
import time
from dataclasses import replace
from importlib import import_module
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from .base import Callback, EvaluationReport, IterationReport, Training, TrainingResult
from .progress_line import Standing, duration, in_full, lay_out, three_digits

#: Seconds between two plain lines, and between two states of a notebook's line.
_LINE_INTERVAL, _NOTEBOOK_INTERVAL = 5.0, 0.5
#: Cells at the end of the live line for the ^C that a terminal echoes there; beyond its edge it would begin a new line.
_ECHO = 2
_STYLES = {"name": "bold", "speed": "cyan", "return": "green"}


class _LiveLine:
    """The line as rich shows it: laid out anew each time, for the width and the time of that moment."""

    def __init__(self, standing: Standing) -> None:
        self.standing = standing
        self._since = time.monotonic()

    def set(self, standing: Standing) -> None:
        self.standing, self._since = standing, time.monotonic()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        passed = time.monotonic() - self._since
        left = None if self.standing.left is None else max(self.standing.left - passed, 0.0)
        now = replace(self.standing, elapsed=self.standing.elapsed + passed, left=left)
        line = Text(no_wrap=True, overflow="crop")
        for part in lay_out(now, options.max_width - _ECHO):
            text = _bar(now, len(part.text), options.ascii_only) if part.name == "bar" else part.text
            line.append("  " if line else "").append(text, style=_STYLES.get(part.name))
        yield line


def _bar(now: Standing, cells: int, ascii_only: bool) -> Text:
    done, rest = ("=", "-") if ascii_only else ("━", "─")
    filled = min(cells * now.timesteps // max(now.total_timesteps, 1), cells)
    return Text.assemble((done * filled, "magenta"), (rest * (cells - filled), "dim"))


class _NotebookLine:
    """A line of a cell's output that is replaced, so that an hour of training does not become 720 of them."""

    def __init__(self, text: str) -> None:
        show = import_module("IPython.display").display  # which is there in a notebook, and elsewhere need not be
        self._handle = show({"text/plain": text}, raw=True, display_id=True)

    def set(self, text: str) -> None:
        self._handle.update({"text/plain": text}, raw=True)


class ProgressDisplay(Callback):
    """The callback that shows steps, mean return of the last 100 episodes, steps per second and the time left.

    In a terminal it is one live line, as wide as the terminal; elsewhere (a file, a pipe, TERM=dumb) a plain line at
    the start, and then at most every 5 s; in a notebook one line that changes. Colours follow NO_COLOR and FORCE_COLOR.
    As a context manager it also ends with what comes after the training.
    """

    def __init__(self, console: Console | None = None) -> None:
        """Show progress on `console`; default: standard error."""
        self._console = console or Console(stderr=True, highlight=False)
        self._line: _LiveLine | None = None
        self._live: Live | None = None
        self._cell: _NotebookLine | None = None
        self._first_timesteps = 0
        self._line_at = float("-inf")
        self._evaluation: float | None = None
        self._loss: float | None = None

    def on_training_start(self, training: Training, total_timesteps: int) -> None:
        """Open the display."""
        self._first_timesteps = training.timesteps
        name = f"{training.name} {training.env_id}"
        start = Standing(name=name, timesteps=training.timesteps, total_timesteps=total_timesteps, elapsed=0)
        if self._console.is_jupyter:
            self._cell = _NotebookLine(f"{name}: {in_full(start)}")
            return
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            self._print(f"{name}: {in_full(start)}")
            return
        self._line = _LiveLine(start)
        self._live = Live(
            self._line,
            console=self._console,
            refresh_per_second=5,
            # What workers print must not tear the line; where standard output is a file or a pipe, it stays there.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._live.start(refresh=True)

    def on_iteration_end(self, training: Training, report: IterationReport) -> bool | None:
        """Show how far the training is."""
        if not getattr(training, "needs_environment", True):
            self._loss = report.metrics.get("eval/loss", report.metrics.get("train/loss"))
        speed = (report.timesteps - self._first_timesteps) / max(report.elapsed_seconds, 1e-9)
        now = Standing(
            name=f"{training.name} {training.env_id}",
            timesteps=report.timesteps,
            total_timesteps=report.total_timesteps,
            elapsed=report.elapsed_seconds,
            speed=speed,
            mean_return=report.episode_return_mean,
            evaluation=self._evaluation,
            loss=self._loss,
            left=max(report.total_timesteps - report.timesteps, 0) / max(speed, 1e-9),
        )
        if self._line is not None:
            self._line.set(now)
        elif time.monotonic() - self._line_at >= (_NOTEBOOK_INTERVAL if self._cell else _LINE_INTERVAL):
            self._line_at = time.monotonic()
            self._print(f"{now.name}: {in_full(now)}" if self._cell else in_full(now))
        return None

    def on_evaluation_end(self, training: Training, report: EvaluationReport) -> bool | None:
        """Show the evaluation's mean return from now on."""
        self._evaluation = report.mean_return
        return None

    def on_training_end(self, training: Training, result: TrainingResult) -> None:
        """Close the display and say how the training ended."""
        self.close()
        seconds = result.wall_seconds
        took = f"{seconds:.1f} s" if seconds < 60 else duration(seconds)
        if result.episode_return_mean is None and self._evaluation is not None:
            outcome = f"evaluation's mean return {three_digits(self._evaluation)} after {result.timesteps:,} steps"
        elif self._loss is not None:
            outcome = f"loss {three_digits(self._loss)} after {result.timesteps:,} steps"
        elif result.episode_return_mean is None:
            outcome = f"no episode ended in {result.timesteps:,} steps, so there is no mean return"
        else:
            solved = {True: "solved, ", False: "not solved, ", None: ""}[result.solved]
            mean = three_digits(result.episode_return_mean)
            outcome = f"{solved}mean return {mean} after {result.timesteps:,} steps"
        self._print(f"{training.name} {training.env_id}: {outcome} ({took})")

    def on_exception(self, training: Training, error: BaseException) -> None:
        """Close the display."""
        self.close()

    def close(self) -> None:
        """Close the display; harmless a second time."""
        if self._live is not None:
            self._live.stop()
        self._live = self._line = None

    def _print(self, text: str) -> None:
        if self._cell is not None:
            self._cell.set(text)
            return
        print(text, file=self._console.file, flush=True)  # rich would end the process where nobody reads any more

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
