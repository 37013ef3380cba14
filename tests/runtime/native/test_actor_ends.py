"""What an actor leaves behind gets a moment at its end, and no more; tests with runtimes of their own."""

import atexit
import multiprocessing
import os
import threading
import time

import psutil
import pytest
from conftest import WORKERS_NEED, wait_until

from shoal import runtime


class Writing:
    def __init__(self, path):
        self.path = path

    def ready(self):
        return True

    def __ray_shutdown__(self):
        with open(self.path, "a") as file:
            file.write("shut down\n")


@pytest.mark.parametrize("engine_name", ["native", "serial"])
def test_actors_are_told_of_the_end_of_the_runtime(engine_name, tmp_path):
    runtime.init(engine=engine_name, num_cpus=2, preload=WORKERS_NEED)
    actor = runtime.remote(Writing).remote(tmp_path / "log")
    runtime.get(actor.ready.remote())
    runtime.shutdown()
    assert (tmp_path / "log").read_text() == "shut down\n"


@runtime.remote(num_cpus=1)
class Keeper:
    """Has something that does not end with it."""

    def start_helper(self):
        helper = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        helper.start()
        return helper.pid

    def start_thread(self):
        threading.Thread(target=time.sleep, args=(60,), daemon=False).start()

    def at_exit(self):
        atexit.register(time.sleep, 60)

    def on_deletion(self):
        self.slow = _Slow()

    def finish_a_thread(self, path):
        def late():
            threading.Event().wait(0.2)
            path.write_text("finished")

        threading.Thread(target=late).start()

    def pid(self):
        return os.getpid()


class _Slow:
    def __del__(self):
        time.sleep(60)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["start_helper", "start_thread", "at_exit", "on_deletion"])
def test_an_actors_end_is_bounded(what):
    runtime.init(engine="native", num_cpus=1, preload=WORKERS_NEED)
    try:
        keeper = Keeper.remote()
        pids = [runtime.get(keeper.pid.remote()), runtime.get(getattr(keeper, what).remote())]
        del keeper
        assert runtime.get(Keeper.remote().pid.remote(), timeout=8) not in pids
        wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids if pid))
    finally:
        runtime.shutdown()


def test_an_actors_threads_may_finish(native, tmp_path):
    keeper = Keeper.remote()
    runtime.get(keeper.finish_a_thread.remote(tmp_path / "file"))
    del keeper
    wait_until((tmp_path / "file").exists)
