"""Faults of concurrent and detached actors, by killing real processes."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading

import psutil
import pytest
from conftest import wait_until

from shoal import runtime

pytestmark = pytest.mark.slow

CALLS = 100


@runtime.remote
class Async:
    def __init__(self):
        self.begun, self.all_begun = 0, asyncio.Event()

    async def hold(self, marker):
        """Kill this process once all calls are in flight, the first time; the marker file remembers it."""
        self.begun += 1
        if self.begun == CALLS:
            if not os.path.exists(marker):
                with open(marker, "w"):
                    os.kill(os.getpid(), signal.SIGKILL)
            self.all_begun.set()
        await self.all_begun.wait()
        return self.begun


@runtime.remote(max_concurrency=4)
class Threaded:
    def __init__(self):
        self.barrier = threading.Barrier(4, action=self.kill_once)
        self.marker = ""

    def kill_once(self):
        """Run while all four calls are in flight."""
        if not os.path.exists(self.marker):
            with open(self.marker, "w"):
                os.kill(os.getpid(), signal.SIGKILL)

    def hold(self, marker):
        self.marker = marker
        self.barrier.wait(20)
        return 4


@pytest.mark.parametrize(("cls", "calls"), [(Async, CALLS), (Threaded, 4)], ids=["async", "threads"])
def test_all_callers_of_a_killed_concurrent_actor_get_errors(native, tmp_path, cls, calls):
    actor = cls.remote()
    refs = [actor.hold.remote(str(tmp_path / "marker")) for _ in range(calls)]
    for ref in refs:
        with pytest.raises(runtime.ActorDiedError, match="SIGKILL"):
            runtime.get(ref, timeout=30)


@pytest.mark.parametrize(("cls", "calls"), [(Async, CALLS), (Threaded, 4)], ids=["async", "threads"])
def test_calls_of_a_killed_concurrent_actor_are_made_again(native, tmp_path, cls, calls):
    actor = cls.options(max_restarts=1, max_task_retries=1).remote()
    refs = [actor.hold.remote(str(tmp_path / "marker")) for _ in range(calls)]
    assert set(runtime.get(refs, timeout=30)) == {calls}


DRIVER = """
import os, sys
from shoal import runtime

@runtime.remote
class Lasting:
    def pid(self):
        return os.getpid()

runtime.init(engine="native", num_cpus=1)
actor = Lasting.options(name="lasting", lifetime="detached", max_restarts=-1).remote()
print(runtime.get(actor.pid.remote()), flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_a_detached_actor_ends_with_the_last_driver(end):
    driver = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert driver.stdin is not None
    assert driver.stdout is not None
    with driver.stdout, driver.stdin:
        actor = psutil.Process(int(driver.stdout.readline()))
        family = [actor, *psutil.Process(driver.pid).children(recursive=True)]
        if end == "kill":
            driver.kill()
        else:
            driver.stdin.write("go on\n")
    driver.wait(20)
    wait_until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family))
