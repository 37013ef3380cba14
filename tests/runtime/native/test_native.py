"""What only the native engine can do: processes that run at once, share memory, wait for each other and print."""

import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import numpy as np
import psutil
import pytest
from conftest import shoal_processes, wait_until
from gates import Gate, pass_gate

from shoal import runtime
from shoal.runtime.core.engine import current_engine

pytestmark = pytest.mark.usefixtures("shared_native")


@runtime.remote
def pid():
    return os.getpid()


@runtime.remote
class Keeper:
    def keep(self, box):
        self.box = box

    def value(self):
        return runtime.get(self.box[0])

    def forget(self):
        del self.box

    def pid(self):
        return os.getpid()


def test_tasks_run_in_other_processes():
    assert runtime.get(pid.remote()) != os.getpid()


def test_two_tasks_run_at_the_same_time():
    gate = Gate.remote()
    waiting = [pass_gate.remote(gate, i) for i in range(2)]
    gate.release.remote()
    assert runtime.get(waiting, timeout=20) == [0, 1]


def test_get_timeout_says_how_many_are_missing_and_loses_nothing():
    gate = Gate.remote()
    ref = pass_gate.remote(gate, 5)
    with pytest.raises(runtime.GetTimeoutError, match=r"1 of 2 objects were not ready after 0.05 s"):
        runtime.get([runtime.put(1), ref], timeout=0.05)
    with pytest.raises(TimeoutError):
        runtime.get(ref, timeout=0)
    gate.release.remote()
    assert runtime.get(ref) == 5


def test_wait_returns_what_is_ready_at_the_timeout():
    gate = Gate.remote()
    slow, fast = pass_gate.remote(gate, 1), runtime.put(2)
    assert runtime.wait([slow, fast], num_returns=1) == ([fast], [slow])
    assert runtime.wait([slow, fast], num_returns=2, timeout=0.05) == ([fast], [slow])
    gate.release.remote()
    assert runtime.wait([slow, fast], num_returns=2)[0] == [slow, fast]


def test_a_failure_is_raised_before_slow_values_are_there():
    gate = Gate.remote()

    @runtime.remote
    def fail():
        raise KeyError("at once")

    slow = pass_gate.remote(gate, 1)
    with pytest.raises(KeyError):
        runtime.get([slow, fail.remote()], timeout=20)
    gate.release.remote()


def test_more_nested_tasks_than_cpus_do_not_deadlock():
    @runtime.remote
    def tree(depth):
        return 1 if depth == 0 else sum(runtime.get([tree.remote(depth - 1) for _ in range(2)]))

    assert runtime.get([tree.remote(3) for _ in range(4)], timeout=60) == [8] * 4


def test_tasks_queued_behind_a_waiting_task_run_elsewhere():
    @runtime.remote
    def quick(x):
        return x

    @runtime.remote
    def wait_for(box):
        return runtime.get(box[0])

    runtime.get([quick.remote(i) for i in range(500)])  # now known to be short, so several are queued in one worker
    gate = Gate.remote()
    blocked = [wait_for.remote([pass_gate.remote(gate, i)]) for i in range(3)]
    assert runtime.get([quick.remote(i) for i in range(100)], timeout=20) == list(range(100))
    gate.release.remote()
    assert runtime.get(blocked, timeout=20) == [0, 1, 2]


def test_sixteen_threads_call_at_the_same_time():
    @runtime.remote
    class Echo:
        def echo(self, x):
            return x

    actors = [Echo.remote() for _ in range(3)]
    wrong = []

    def work(n):
        for i in range(100):
            if runtime.get(actors[i % 3].echo.remote((n, i)), timeout=30) != (n, i):
                wrong.append((n, i))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)


def test_exceptions_inside_waiting_callers_do_not_disturb_others():
    gate = Gate.remote()
    ref = pass_gate.remote(gate, "done")
    results = []
    thread = threading.Thread(target=lambda: results.append(runtime.get(ref, timeout=30)))
    thread.start()
    for _ in range(20):
        with pytest.raises(runtime.GetTimeoutError):
            runtime.get(ref, timeout=0.001)
    gate.release.remote()
    thread.join(30)
    assert results == ["done"]


# Shared memory --------------------------------------------------------------------------------------------------------


def _usage():
    current_engine().parts.values.tidy()
    return current_engine().parts.store.arena.usage()


def test_large_results_lie_in_shared_memory_and_are_not_copied():
    @runtime.remote
    def make():
        return np.ones(1_000_000)

    ref = make.remote()
    first, second = runtime.get(ref), runtime.get(ref)
    assert np.shares_memory(first, second)


def test_memory_is_freed_with_the_last_ref_and_used_again():
    _usage()
    for _ in range(20):
        ref = runtime.put(np.zeros(1_000_000))
    del ref
    blocks, touched = _usage()
    assert blocks == 0
    assert touched < 3 * 8_000_000


def test_a_view_keeps_its_block_though_the_ref_is_gone():
    view = runtime.get(runtime.put(np.full(1_000_000, 3.0)))[10:20]
    others = [runtime.put(np.zeros(1_000_000)) for _ in range(3)]
    assert (view == 3).all()
    del others, view
    assert _usage()[0] == 0


def test_a_view_in_another_process_keeps_the_block():
    @runtime.remote
    class Reader:
        def read(self, array):
            self.array = array

        def total(self):
            return float(self.array[5:].sum())

    reader = Reader.remote()
    runtime.get(reader.read.remote(runtime.put(np.ones(1_000_000))))
    assert _usage()[0] == 1
    for _ in range(3):
        runtime.put(np.zeros(1_000_000))
    assert runtime.get(reader.total.remote()) == 999_995
    runtime.kill(reader)
    wait_until(lambda: _usage()[0] == 0)


def test_an_unsealed_array_that_is_dropped_gives_its_block_back():
    array = runtime.empty(1_000_000)
    assert _usage()[0] == 1
    del array
    assert _usage()[0] == 0


def test_a_value_survives_its_maker():
    @runtime.remote
    class Maker:
        def make(self):
            array = runtime.empty(500_000)
            array[:] = 4
            return array

        def pid(self):
            return os.getpid()

    maker = Maker.remote()
    maker_pid = runtime.get(maker.pid.remote())
    ref = maker.make.remote()
    runtime.wait([ref])
    runtime.kill(maker)
    wait_until(lambda: not psutil.pid_exists(maker_pid))
    assert (runtime.get(ref) == 4).all()

    @runtime.remote
    def total(array):
        return float(array.sum())

    assert runtime.get(total.remote(ref)) == 2_000_000


# References across processes ------------------------------------------------------------------------------------------


def _owned():
    return current_engine().parts.table_sizes()["records"]


def test_a_borrower_keeps_the_object_alive_and_then_lets_it_go():
    keeper = Keeper.remote()
    runtime.get(keeper.keep.remote([runtime.put(np.arange(50_000))]))
    assert runtime.get(keeper.value.remote())[-1] == 49_999
    runtime.get(keeper.forget.remote())
    wait_until(lambda: _owned() == 1)  # the actor's own lifetime


def test_a_ref_passed_on_by_a_borrower_stays_alive():
    first, second = Keeper.remote(), Keeper.remote()

    @runtime.remote
    def hand_over(box, keeper):
        return runtime.get(keeper.keep.remote(box))

    ref = runtime.put("precious")
    runtime.get(hand_over.remote([ref], second))
    runtime.get(first.keep.remote([ref]))
    del ref
    runtime.get(first.forget.remote())
    assert runtime.get(second.value.remote()) == "precious"


def test_a_dead_borrower_counts_as_none():
    keeper = Keeper.remote()
    runtime.get(keeper.keep.remote([runtime.put(1)]))
    runtime.kill(keeper)
    wait_until(lambda: _owned() == 1)


def test_the_actor_ends_with_its_last_handle():
    keeper = Keeper.remote()
    process = psutil.Process(runtime.get(keeper.pid.remote()))
    del keeper
    _owned()
    wait_until(lambda: not process.is_running())


def test_calls_made_before_the_last_handle_is_dropped_are_run():
    gate = Gate.remote()
    refs = [pass_gate.remote(gate, i) for i in range(2)]
    release = gate.release.remote()
    del gate
    runtime.get(release)
    assert runtime.get(refs, timeout=20) == [0, 1]


# Surroundings ---------------------------------------------------------------------------------------------------------


def _run(source, **kwargs):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **kwargs,
    )


def test_what_workers_print_reaches_the_driver_marked_with_who_it_was():
    done = _run(
        """
        import sys
        from shoal import runtime
        @runtime.remote
        class Speaker:
            def speak(self):
                print("hello")
                print("trouble", file=sys.stderr)
        runtime.get(Speaker.remote().speak.remote())
        runtime.shutdown()
        """
    )
    assert done.returncode == 0, done.stderr
    assert "(Speaker pid=" in done.stdout
    assert "hello" in done.stdout
    assert "trouble" in done.stderr


def test_a_forked_child_of_the_driver_is_told_so():
    runtime.get(pid.remote())
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            runtime.put(1)
        except runtime.ShoalError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as text:
        assert "was forked from process" in text.read()
    assert runtime.get(pid.remote()) > 0


def test_works_inside_a_running_event_loop():
    import asyncio

    async def cell():
        return runtime.get(pid.remote())

    assert asyncio.run(cell()) > 0


def test_process_titles_are_readable():
    keeper = Keeper.remote()
    process = psutil.Process(runtime.get(keeper.pid.remote()))
    assert process.cmdline()[0] == "shoal: Keeper"


def test_first_use_starts_the_runtime():
    runtime.shutdown()
    assert runtime.get(pid.remote()) != os.getpid()
    assert runtime.is_initialized()


def test_busy_resources_are_not_available():
    gate = Gate.remote()
    ref = pass_gate.options(num_cpus=1).remote(gate, 1)

    @runtime.remote(num_cpus=0, resources={})
    def free():
        return runtime.available_resources()["CPU"]

    gate.release.remote()
    runtime.get(ref)
    wait_until(lambda: runtime.available_resources()["CPU"] == 2)
    assert runtime.get(free.remote()) == 2


def test_actors_wait_for_resources():
    holder = Keeper.options(num_cpus=2).remote()
    runtime.get(holder.pid.remote())
    waiting = Keeper.options(num_cpus=1).remote()
    ref = waiting.pid.remote()
    with pytest.raises(runtime.GetTimeoutError):
        runtime.get(ref, timeout=0.1)
    del holder
    assert runtime.get(ref, timeout=20) > 0


def test_idle_processes_use_no_cpu():
    keeper = Keeper.remote()
    runtime.get(keeper.pid.remote())
    used = sum(sum(process.cpu_times()[:2]) for process in shoal_processes())
    runtime.wait([keeper.value.remote()], timeout=5)  # fails at once: it keeps nothing
    threading.Event().wait(0.5)
    assert sum(sum(process.cpu_times()[:2]) for process in shoal_processes()) - used < 0.1


def test_workers_look_where_the_program_does_after_preload(tmp_path, monkeypatch):
    (tmp_path / "came_later.py").write_text("def f():\n    return 7\n")
    runtime.get(pid.remote())
    monkeypatch.syspath_prepend(tmp_path)
    late = runtime.remote(import_module("came_later").f)
    with pytest.raises(ModuleNotFoundError, match="came_later") as caught:
        runtime.get(late.remote())
    assert "runtime.preload() has new ones look" in caught.value.__cause__.__notes__[0]
    runtime.preload()
    assert runtime.get(late.remote()) == 7


def test_whoever_waits_when_the_runtime_is_shut_down_is_told_so():
    blocked = pass_gate.remote(Gate.remote(), 1)
    waits = [
        lambda: runtime.get(blocked),
        lambda: runtime.get([runtime.put(1), blocked], timeout=60),
        lambda: runtime.wait([blocked]),
        lambda: runtime.wait([blocked, runtime.put(1)], num_returns=2, timeout=60),
    ]
    with ThreadPoolExecutor(len(waits)) as pool:
        told = [pool.submit(wait) for wait in waits]
        told.append(blocked.future())
        running = current_engine().parts.waits.running
        wait_until(lambda: len(running) == len(waits))
        runtime.shutdown()
    for one in told:
        error = one.exception(30)
        assert type(error) is runtime.ShoalError
        assert "the runtime was shut down while this waited" in str(error)
