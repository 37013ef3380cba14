"""What a person sees while a training runs."""

import io

import pytest
from rich.console import Console
from run_fakes import FakeTraining, report, result

from shoal.rl import progress
from shoal.rl.progress import ProgressDisplay


def display_on(**options):
    output = io.StringIO()
    return ProgressDisplay(Console(file=output, highlight=False, width=120, **options)), output


def test_plain_lines_when_not_a_terminal():
    display, output = display_on(force_terminal=False)
    with display:
        display.on_training_start(FakeTraining(), 1000)
        display.on_iteration_end(FakeTraining(), report(1, [2.0, 4.0]))
        display.on_iteration_end(FakeTraining(), report(2, [2.0]))
        display.on_training_end(FakeTraining(), result())
    lines = output.getvalue().splitlines()
    assert lines[0] == "100/1,000 steps  200 steps/s  mean return 3.0  time left 0:00:04"
    assert lines[1] == "ppo CartPole-v1: not solved, mean return 2.0 after 200 steps in 1.0 s"
    assert len(lines) == 2, "a second line comes only after 5 s"
    assert "\x1b" not in output.getvalue()


def test_a_line_every_interval(monkeypatch):
    now = iter([0.0, 0.0, 4.9, 5.0, 5.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    display, output = display_on(force_terminal=False)
    for iteration in (1, 2, 3):
        display.on_iteration_end(FakeTraining(), report(iteration))
    assert [line.split("/")[0] for line in output.getvalue().splitlines()] == ["100", "300"]


def test_a_live_bar_in_a_terminal():
    display, output = display_on(force_terminal=True)
    with display:
        display.on_training_start(FakeTraining(), 1000)
        display.on_iteration_end(FakeTraining(), report(1, [2.0, 4.0]))
    text = output.getvalue()
    assert "100/1,000 steps" in text
    assert "200 steps/s" in text
    assert "return 3.0" in text
    assert "left" in text


def test_no_color(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    display, output = display_on(force_terminal=True)
    with display:
        display.on_training_start(FakeTraining(), 1000)
        display.on_iteration_end(FakeTraining(), report(1, [2.0]))
    assert "\x1b[36m" not in output.getvalue(), "cyan"
    assert "\x1b[32m" not in output.getvalue(), "green"


@pytest.mark.parametrize("terminal", [True, False])
def test_an_exception_closes_the_display(terminal):
    display, _ = display_on(force_terminal=terminal)

    def fails():
        with display:
            display.on_training_start(FakeTraining(), 1000)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert display._bar is None


def test_no_episode_yet():
    display, output = display_on(force_terminal=False)
    display.on_iteration_end(FakeTraining(), report(1))
    assert "mean return –" in output.getvalue()
