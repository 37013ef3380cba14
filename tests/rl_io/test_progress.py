"""What a person sees while a training runs."""

import dataclasses
import io
import sys
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from run_fakes import FakeTraining, report, result

from shoal.rl.callbacks import progress
from shoal.rl.callbacks.progress import ProgressDisplay
from shoal.rl.callbacks.progress_line import Standing, duration, lay_out, three_digits


def display_on(width=120, **options):
    output = io.StringIO()
    return ProgressDisplay(Console(file=output, highlight=False, width=width, **options)), output


def test_plain_lines_when_not_a_terminal():
    display, output = display_on(force_terminal=False)
    with display:
        display.on_training_start(FakeTraining(), 1000)
        display.on_iteration_end(FakeTraining(), report(1, [2.0, 4.0]))
        display.on_iteration_end(FakeTraining(), report(2, [2.0]))
        display.on_training_end(FakeTraining(), result())
    lines = output.getvalue().splitlines()
    assert lines[0] == "ppo CartPole-v1: 0/1,000 steps  in the first iteration  0:00 elapsed"
    assert lines[1] == "100/1,000 steps  200 steps/s  mean return 3.00  0:04 left"
    assert lines[2] == "ppo CartPole-v1: not solved, mean return 2.00 after 200 steps (1.0 s)"
    assert len(lines) == 3, "a second line of an iteration comes only after 5 s"
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
    assert "return 3.00" in text
    assert "left" in text


def test_one_line_that_changes_in_a_notebook(monkeypatch):
    shown = []

    class Handle:
        def update(self, data, raw):
            shown[-1].append(data["text/plain"])

    def display(data, raw, display_id):
        shown.append([data["text/plain"]])
        return Handle()

    monkeypatch.setattr(progress, "_NOTEBOOK_INTERVAL", 3600.0)  # however long the test takes
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    with ProgressDisplay(Console(force_jupyter=True)) as on_show:
        on_show.on_training_start(FakeTraining(), 1000)
        on_show.on_iteration_end(FakeTraining(), report(1, [2.0, 4.0]))
        on_show.on_iteration_end(FakeTraining(), report(2, [2.0]))
        on_show.on_training_end(FakeTraining(), result())
    assert shown == [[
        "ppo CartPole-v1: 0/1,000 steps  in the first iteration  0:00 elapsed",
        "ppo CartPole-v1: 100/1,000 steps  200 steps/s  mean return 3.00  0:04 left",
        "ppo CartPole-v1: not solved, mean return 2.00 after 200 steps (1.0 s)",
    ]]  # fmt: skip


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
    assert display._live is None


def test_no_episode():
    display, output = display_on(force_terminal=False)
    display.on_iteration_end(FakeTraining(), report(1))
    assert "no episode has ended yet" in output.getvalue()
    display.on_training_end(FakeTraining(), dataclasses.replace(result(), episode_return_mean=None))
    assert output.getvalue().endswith("no episode ended in 200 steps, so there is no mean return (1.0 s)\n")


@pytest.mark.parametrize("width", [40, 60, 80])
def test_something_is_shown_before_the_first_iteration_ends(width):
    display, output = display_on(force_terminal=True, width=width)
    with display:
        display.on_training_start(FakeTraining(), 1000)
        assert "in the first iteration" in output.getvalue()


def test_a_screen_without_unicode():
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with ProgressDisplay(Console(file=output, force_terminal=True, width=80)) as display:
        display.on_training_start(FakeTraining(), 1000)
        display.on_iteration_end(FakeTraining(), report(5, [1.0]))
    output.flush()
    assert b"=====---" in output.buffer.getvalue().replace(b"\x1b[0m", b"").replace(b"\x1b[2m", b"")


NOW = Standing(
    name="ppo CartPole-v1", timesteps=100_352, total_timesteps=1_000_000, elapsed=12.0, speed=47_123.4,
    mean_return=123.4, left=72.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (20, "10%  mean return 123"),
        (40, "100,352/1,000,000  return 123  1:12 left"),
        (60, "100,352/1,000,000  mean return 123  47,123/s  1:12 left"),
        (80, "BAR  100,352/1,000,000 steps  mean return 123  47,123 steps/s  1:12 left"),
        (
            120,
            "ppo CartPole-v1  BAR  100,352/1,000,000 steps  mean return 123  47,123 steps/s  0:12 elapsed  1:12 left",
        ),
    ],
)
def test_the_most_important_comes_first(width, line):
    parts = lay_out(NOW, width)
    assert "  ".join("BAR" if part.name == "bar" else part.text for part in parts) == line


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])  # cores may be busy
@given(
    width=st.integers(1, 200), name=st.text(min_size=1, max_size=60),
    steps=st.integers(0, 10**12), total=st.integers(1, 10**12),
    seconds=st.floats(0, 1e7), speed=st.none() | st.floats(0, 1e7), mean=st.none() | st.floats(allow_nan=True),
)  # fmt: skip
def test_no_part_is_cut_and_no_bar_is_tiny(width, name, steps, total, seconds, speed, mean):
    now = Standing(name, steps, total, seconds, speed, mean, None if speed is None else seconds)
    parts, all_of_it = lay_out(now, width), {part.name: part.text for part in lay_out(now, 1000)}
    assert sum(len(part.text) + 2 for part in parts) - 2 <= width
    for part in parts:
        assert len(part.text) >= 8 if part.name == "bar" else part.text
    names = [part.name for part in parts]
    assert set(names) <= set(all_of_it)
    if width >= 38:
        assert "steps" in names


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.04123, "0.0412"), (3.0, "3.00"), (475.0, "475"), (-153.26, "-153"), (999.7, "1,000"), (1234.5, "1,234"),
     (99.96, "100"), (1e20, "1e+20"), (1e-7, "1e-07"), (0.0, "0.00")],
)  # fmt: skip
def test_three_significant_digits(value, text):
    assert three_digits(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03"), (273_600, "3 d 4 h")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
