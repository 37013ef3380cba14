"""Workers start few at a time, so that those which nobody wants any more, or which cannot start, are not made."""

import os
import time

import pytest
from conftest import WORKERS_NEED, screen, wait_until

from shoal import runtime
from shoal.runtime.core.engine import current_engine
from shoal.runtime.native.node import workers as workers_module
from shoal.runtime.native.node.session import logs_of
from shoal.runtime.native.node.workers import Workers

MANY = 300
ENVIRONMENT = {"env_vars": {"PYTHONHOME": "/nonexistent"}}


@runtime.remote(num_cpus=0.002, max_retries=0)
def double(x):
    return 2 * x


def test_surroundings_in_which_nothing_starts_cost_no_worker_for_each_task():
    runtime.init("native", num_cpus=1, preload=WORKERS_NEED)
    with screen():
        refs = [double.options(runtime_env=ENVIRONMENT).remote(i) for i in range(MANY)]
        for ref in refs:
            with pytest.raises(runtime.RuntimeEnvSetupError):
                runtime.get(ref, timeout=20)
        assert runtime.get(double.remote(4), timeout=20) == 8
        wait_until(lambda: runtime.available_resources() == runtime.cluster_resources())
        logs = os.listdir(logs_of(current_engine().parts.links.welcome.folder))
    assert 0 < sum(name.endswith(".err") for name in logs) <= 4 * workers_module._MOST_STARTING


class Forks(Workers):
    """Workers whose fork server is a list of who was asked for."""

    def __init__(self):
        self.asked, self.exits, self.calls = [], [], []
        self._starting, self._looks_later, self._to_fork = {}, False, workers_module.deque()
        self.processes, self._monitor, self._loop = {}, self, self
        self._on_exit = lambda process, reason: self.exits.append(process)

    def start(self):
        """As the memory monitor."""

    def call_later(self, seconds, action):
        """As the loop."""
        self.calls.append(action)

    def new(self, title):
        return workers_module.Process(b"%08d" % len(self.asked + list(self._to_fork)), 0, title)

    def _send_fork(self, process):
        self._starting[process.id] = time.monotonic()
        self.asked.append(process)

    def pass_time(self):
        calls, self.calls = self.calls, []
        for call in calls:
            call()


@pytest.fixture
def forks(monkeypatch):
    monkeypatch.setattr(workers_module, "_MOST_STARTING", 2)
    return Forks()


def test_few_start_at_one_time_and_the_next_when_one_is_up(forks):
    made = [forks.fork("worker") for _ in range(5)]
    assert forks.asked == made[:2]
    forks.came_up(made[0], 1)
    forks.pass_time()
    assert forks.asked == made[:3]


def test_what_is_ended_before_it_was_made_is_not_made(forks):
    made = [forks.fork("worker") for _ in range(5)]
    made[2].kill()
    made[4].kill()
    forks.pass_time()
    assert forks.exits == [made[2], made[4]]
    forks.came_up(made[0], 1)
    forks.pass_time()
    assert forks.asked == [*made[:2], made[3]]


def test_one_that_does_not_come_up_keeps_others_from_starting_for_a_while_only(forks, monkeypatch):
    made = [forks.fork("worker") for _ in range(3)]
    forks.pass_time()
    assert forks.asked == made[:2]
    monkeypatch.setattr(workers_module, "_START_SECONDS", 0.0)
    forks.pass_time()
    assert forks.asked == made
