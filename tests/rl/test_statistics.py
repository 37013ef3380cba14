"""IQM and bootstrap intervals, by numbers worked by hand; and the picture made of them."""

import json

import numpy as np
import pytest

from shoal.rl import bootstrap_interval, draw_comparison, interquartile_mean, read_group
from shoal.rl.runs.comparison import mean_and_interval
from shoal.runtime import InputError


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([8, 1, 7, 2, 6, 3, 5, 4], 4.5),  # 3, 4, 5, 6 are left
        ([0, 10, 20, 30, 1000], 20),  # one at each end is left out of five
        ([1, 2, 6], 3),  # none of three
        ([[1, 100], [2, 3]], 2.5),  # over all runs and tasks at once
    ],
)
def test_the_middle_half_counts(scores, expected):
    assert interquartile_mean(scores) == expected


def test_the_interval_of_two_runs_by_hand():
    # Resamples of (0, 1): both 0, both 1 with a quarter each, so the ends of 95 % are 0 and 1, of 40 % both 0.5.
    assert bootstrap_interval([0, 1]) == (0, 1)
    assert bootstrap_interval([0, 1], confidence=0.4) == (0.5, 0.5)
    assert bootstrap_interval([3.0, 3.0, 3.0]) == (3, 3)


def test_tasks_are_resampled_apart():
    # Task 1 is 0 in all runs, task 2 is 10 in all: drawing within each task, the mean is always 5.
    scores = np.array([[0.0, 10.0]] * 3)
    assert bootstrap_interval(scores, lambda drawn: float(drawn.mean())) == (5, 5)


def test_nothing_has_no_statistic():
    for statistic in (interquartile_mean, bootstrap_interval):
        with pytest.raises(ValueError, match="scores is empty"):
            statistic([])


def write(folder, returns):
    folder.mkdir(parents=True)
    lines = [
        {"iteration": i, "timesteps": 10 * i, "elapsed_seconds": 2.0 * i, "episode_returns": [value],
         "episode_lengths": [10]}
        for i, value in enumerate(returns, 1)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_group_is_a_run_or_the_seeds_in_a_folder(tmp_path):
    write(tmp_path / "group" / "seed-0", [0, 0, 0])
    write(tmp_path / "group" / "seed-1", [2, 2, 2, 2])
    group = read_group(tmp_path / "group")
    x, mean, low, high = mean_and_interval(group)
    assert (group.name, x[0], x[-1]) == ("group", 10, 30)  # the shorter run ends there
    assert set(mean) == {1}
    assert (set(low), set(high)) == ({0}, {2})
    [curve] = read_group(tmp_path / "group" / "seed-1", "time").curves
    assert list(curve.x) == [2, 4, 6, 8]


def test_pictures(tmp_path):
    write(tmp_path / "a" / "seed-0", range(5))
    write(tmp_path / "b", range(3))
    groups = [read_group(tmp_path / name) for name in "ab"]
    for name, start in (("x.png", b"\x89PNG"), ("x.svg", b"<?xml")):
        draw_comparison(groups, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
    with pytest.raises(InputError, match=r"must end in \.png or \.svg"):
        draw_comparison(groups, tmp_path / "x.jpg")
    with pytest.raises(InputError, match="there is nothing to draw of"):
        read_group(tmp_path)
