"""What a person sees of a training: a live bar in a terminal, plain lines elsewhere; always on standard error."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .callbacks import Callback, IterationReport, Training, TrainingResult

#: Seconds between two plain lines.
_LINE_INTERVAL = 5.0


def _duration(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}"


class ProgressDisplay(Callback):
    """The callback that shows steps, steps per second, mean return of the last 100 episodes and the time left.

    In a terminal it is one live bar; elsewhere (a file, a pipe, TERM=dumb) a plain line at most every 5 s. Colours
    follow NO_COLOR and FORCE_COLOR. Use it as a context manager, so that the bar ends when an exception does.
    """

    def __init__(self, console: Console | None = None) -> None:
        """Show progress on `console`; default: standard error."""
        self._console = console or Console(stderr=True, highlight=False)
        self._live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._first_timesteps = 0
        self._line_at = float("-inf")

    def on_training_start(self, training: Training, total_timesteps: int) -> None:
        """Open the display."""
        self._first_timesteps = training.timesteps
        if not self._live:
            return
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps"),
            TextColumn("[cyan]{task.fields[speed]}"),
            TextColumn("[green]{task.fields[episode_return]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            refresh_per_second=5,
            # What workers print must not tear the bar; where standard output is a file or a pipe, it stays there.
            redirect_stdout=sys.stdout.isatty(),
        )
        name = f"{training.name} {training.env_id}"
        self._task = self._bar.add_task(
            name, total=total_timesteps, completed=training.timesteps, speed="", episode_return=""
        )
        self._bar.start()

    def on_iteration_end(self, training: Training, report: IterationReport) -> bool | None:
        """Show how far the training is."""
        speed = (report.timesteps - self._first_timesteps) / max(report.elapsed_seconds, 1e-9)
        mean = "–" if report.episode_return_mean is None else f"{report.episode_return_mean:.1f}"
        if self._bar is not None:
            self._bar.update(
                self._task,
                completed=report.timesteps,
                speed=f"{speed:,.0f} steps/s",
                episode_return=f"return {mean}",
            )
        elif not self._live and time.monotonic() - self._line_at >= _LINE_INTERVAL:
            self._line_at = time.monotonic()
            left = max(report.total_timesteps - report.timesteps, 0) / max(speed, 1e-9)
            self._print(
                f"{report.timesteps:,}/{report.total_timesteps:,} steps  {speed:,.0f} steps/s  mean return {mean}  "
                f"time left {_duration(left)}"
            )
        return None

    def on_training_end(self, training: Training, result: TrainingResult) -> None:
        """Close the display and say how the training ended."""
        self.close()
        mean = "no episode ended" if result.episode_return_mean is None else f"{result.episode_return_mean:.1f}"
        solved = {True: "solved, ", False: "not solved, ", None: ""}[result.solved]
        self._print(
            f"{training.name} {training.env_id}: {solved}mean return {mean} after {result.timesteps:,} steps "
            f"in {result.wall_seconds:.1f} s"
        )

    def close(self) -> None:
        """Close the display; harmless a second time."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
