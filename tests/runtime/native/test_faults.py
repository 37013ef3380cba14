"""Faults: processes that die, and what is left behind; by killing real ones."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap

import psutil
import pytest
from conftest import WORKERS_NEED, shoal_processes, wait_until

from shoal import runtime


@runtime.remote
def die_once(marker, value):
    """Kill this process the first time; the marker file remembers it."""
    if not os.path.exists(marker):
        with open(marker, "w"):
            os.kill(os.getpid(), signal.SIGKILL)
    return value


@runtime.remote
class Fragile:
    def __init__(self, start=0):
        self.value = start

    def increase(self):
        self.value += 1
        return self.value

    def die(self, code=None):
        if code is None:
            os.kill(os.getpid(), signal.SIGSEGV)
        print("these are my last words", flush=True)
        os._exit(code)

    def die_once(self, marker):
        if not os.path.exists(marker):
            with open(marker, "w"):
                os.kill(os.getpid(), signal.SIGKILL)
        return "survived"

    def pid(self):
        return os.getpid()


# Workers --------------------------------------------------------------------------------------------------------------


def test_a_task_whose_worker_dies_is_retried(shared_native, tmp_path):
    assert runtime.get(die_once.remote(str(tmp_path / "marker"), 5), timeout=30) == 5


def test_tasks_queued_behind_the_one_that_dies_are_not_blamed(shared_native, tmp_path):
    refs = [die_once.options(max_retries=1).remote(str(tmp_path / "marker"), i) for i in range(50)]
    assert runtime.get(refs, timeout=30) == list(range(50))


def test_without_retries_the_crash_is_reported_with_its_signal(shared_native, tmp_path):
    ref = die_once.options(max_retries=0).remote(str(tmp_path / "marker"), 1)
    with pytest.raises(
        runtime.WorkerCrashedError, match=r"die_once has no retries left .*: process \d+ .*signal 9 \(SIGKILL\)"
    ):
        runtime.get(ref, timeout=30)


def test_a_workers_exit_code_and_last_words_are_reported(shared_native):
    @runtime.remote(max_retries=0)
    def leave():
        print("goodbye then", flush=True)
        sys.exit(7)

    with pytest.raises(runtime.WorkerCrashedError, match=r"exit code 7.*\n.*goodbye then"):
        runtime.get(leave.remote(), timeout=30)


def test_an_exit_code_is_that_of_the_task_although_nothing_can_be_printed(shared_native):
    class Broken:
        def write(self, text):
            raise RuntimeError("the widget has been deleted")

        flush = write

    @runtime.remote(max_retries=0)
    def leave():
        sys.stdout = sys.stderr = Broken()
        sys.exit(7)

    with pytest.raises(runtime.WorkerCrashedError, match="ended with exit code 7"):
        runtime.get(leave.remote(), timeout=30)


# Actors ---------------------------------------------------------------------------------------------------------------


def test_a_crashed_actor_reports_signal_and_cause(shared_native):
    fragile = Fragile.remote()
    with pytest.raises(
        runtime.ActorDiedError, match=r"Fragile.die.*is dead: process \d+ \(Fragile\) .*signal 11 \(SIGSEGV\)"
    ):
        runtime.get(fragile.die.remote(), timeout=30)
    with pytest.raises(runtime.ActorDiedError, match="SIGSEGV"):
        runtime.get(fragile.increase.remote(), timeout=30)


def test_an_actors_last_words_are_in_the_error(shared_native):
    with pytest.raises(runtime.ActorDiedError, match=r"exit code 3.*\n.*these are my last words"):
        runtime.get(Fragile.remote().die.remote(3), timeout=30)


def test_an_actor_with_restarts_comes_back_from_its_constructor(shared_native):
    fragile = Fragile.options(max_restarts=1).remote(10)
    assert runtime.get(fragile.increase.remote()) == 11
    with pytest.raises(runtime.exceptions.ActorUnavailableError, match=r"is being restarted \(raise max_task_retries"):
        runtime.get(fragile.die.remote(), timeout=30)
    counted = []

    def is_back():
        # Calls that may not be made again do not wait for it.
        with contextlib.suppress(runtime.exceptions.ActorUnavailableError):
            counted.append(runtime.get(fragile.increase.remote(), timeout=30))
        return counted

    wait_until(is_back)
    assert counted == [11]
    with pytest.raises(runtime.ActorDiedError):
        runtime.get(fragile.die.remote(), timeout=30)


def test_calls_in_flight_are_made_again_in_order(shared_native, tmp_path):
    fragile = Fragile.options(max_restarts=-1, max_task_retries=-1).remote()
    refs = [fragile.die_once.remote(str(tmp_path / "marker")), *[fragile.increase.remote() for _ in range(20)]]
    assert runtime.get(refs, timeout=30) == ["survived", *range(1, 21)]


def test_an_actor_killed_from_outside_comes_back(shared_native):
    fragile = Fragile.options(max_restarts=-1, max_task_retries=-1).remote()
    for _ in range(3):
        pid = runtime.get(fragile.pid.remote(), timeout=30)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: not psutil.pid_exists(pid))
    assert runtime.get(fragile.increase.remote(), timeout=30) == 1


def test_objects_of_a_dead_owner_are_lost_with_the_reason(shared_native):
    @runtime.remote
    class Owner:
        def make(self):
            return [runtime.put(1)]

        def pid(self):
            return os.getpid()

    owner = Owner.remote()
    [inner] = runtime.get(owner.make.remote())
    process = psutil.Process(runtime.get(owner.pid.remote()))
    runtime.kill(owner)
    wait_until(lambda: _all_gone([process]))  # until then it may still answer
    with pytest.raises(runtime.OwnerDiedError, match="the process that owned it is gone"):
        runtime.get(inner, timeout=30)


def test_actors_end_with_their_creator(shared_native):
    @runtime.remote
    class Parent:
        def __init__(self):
            self.child = Fragile.remote()

        def child_pid(self):
            return runtime.get(self.child.pid.remote())

    parent = Parent.remote()
    pid = runtime.get(parent.child_pid.remote())
    runtime.kill(parent)
    wait_until(lambda: not psutil.pid_exists(pid))


def test_what_a_worker_has_started_dies_with_it(shared_native):
    @runtime.remote
    class Starter:
        def start(self):
            return subprocess.Popen(["sleep", "1000"]).pid

    starter = Starter.remote()
    process = psutil.Process(runtime.get(starter.start.remote()))
    runtime.kill(starter)
    wait_until(lambda: _all_gone([process]))


# The node and the fork server -----------------------------------------------------------------------------------------


def _named(title):
    return next(process for process in shoal_processes() if title in " ".join(process.cmdline()))


def test_death_of_the_node_fails_what_waits_and_takes_all_with_it(shared_native):
    fragile = Fragile.remote()
    runtime.get(fragile.pid.remote())
    processes = shoal_processes()
    ref = fragile.increase.remote()
    runtime.get(ref)
    _named("shoal: node").kill()
    wait_until(lambda: _all_gone(processes))
    with pytest.raises(runtime.exceptions.NodeDiedError, match="Start the runtime again"):
        runtime.get(fragile.increase.remote(), timeout=30)
    runtime.shutdown()
    runtime.init(engine="native", num_cpus=1, preload=WORKERS_NEED)
    assert runtime.get(Fragile.remote().increase.remote()) == 1
    runtime.shutdown()


# The driver -----------------------------------------------------------------------------------------------------------

DRIVER = """
import os, sys, time
from shoal import runtime
import numpy as np

@runtime.remote
class Busy:
    def pid(self):
        return os.getpid()
    def work(self):
        while True:
            pass

@runtime.remote
def spin():
    while True:
        pass

actors = [Busy.remote() for _ in range(2)]
big = runtime.put(np.zeros(2_000_000))
runtime.get([actor.pid.remote() for actor in actors])
refs = [actor.work.remote() for actor in actors] + [spin.remote()]
print(runtime.nodes()[0].session, flush=True)
sys.stdin.readline()
runtime.get(refs)
"""


@pytest.fixture
def start_driver():
    """Start a driver; get it, the processes that it has made, which it was made to wait for, and its session."""
    drivers = []

    def start(source=DRIVER):
        driver = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(source)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        drivers.append(driver)
        assert driver.stdin is not None
        assert driver.stdout is not None
        with driver.stdout, driver.stdin:
            session = driver.stdout.readline().strip()
            family = psutil.Process(driver.pid).children(recursive=True)
            driver.stdin.write("go on\n")
        assert len(family) >= 4
        return driver, family, session

    yield start
    for driver in drivers:
        driver.kill()
        driver.wait()


def _lives(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended between the two questions
        return False


def _all_gone(family):
    return not any(map(_lives, family))


def _sockets(session):
    with open("/proc/net/unix") as sockets:
        return [line for line in sockets if f"@shoal-{session}-" in line]


def test_kill_9_of_the_driver_leaves_nothing_behind(start_driver):
    driver, family, session = start_driver()
    assert _sockets(session)
    driver.kill()
    driver.wait()
    wait_until(lambda: _all_gone(family) and not _sockets(session))


def test_ctrl_c_interrupts_get_and_leaves_nothing_behind(start_driver):
    driver, family, _ = start_driver()
    driver.send_signal(signal.SIGINT)
    assert driver.wait(10) == -signal.SIGINT
    wait_until(lambda: _all_gone(family))


def test_after_ctrl_c_the_runtime_still_works():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent("""
            import os, signal, threading, traceback
            from shoal import runtime

            @runtime.remote
            class Actor:
                def block(self):
                    threading.Event().wait(3600)
                def f(self):
                    return 5

            runtime.get(Actor.remote().f.remote())
            stuck = Actor.remote()
            ref = stuck.block.remote()
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                runtime.get(ref)
            except KeyboardInterrupt as error:
                frames = traceback.extract_tb(error.__traceback__)
                runtime.kill(stuck)
                print(runtime.get(Actor.remote().f.remote()), len(frames) <= 3)
        """)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.stdout == "5 True\n", done.stderr


def test_ctrl_c_in_a_finaliser_comes_after_it(native):
    class Dropped:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    dropped = [Dropped()]
    with pytest.raises(KeyboardInterrupt):
        wait_until(dropped.clear)


def test_an_uncaught_exception_in_the_driver_leaves_nothing_behind(start_driver):
    driver, family, _ = start_driver(DRIVER.replace("runtime.get(refs)", "raise SystemExit(3)"))
    assert driver.wait(10) == 3
    wait_until(lambda: _all_gone(family))


def test_a_node_that_cannot_start_shows_why(monkeypatch):
    runtime.shutdown()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(runtime.exceptions.NodeDiedError, match="did not start"):
        runtime.init(engine="native")
