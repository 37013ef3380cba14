"""Why things wait, on the native engine: every kind of reason, by name."""

import asyncio
import fcntl
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from conftest import WORKERS_NEED, screen, wait_until
from test_waiting_tasks import Counter, locked, square

from shoal import runtime
from shoal.runtime import state
from shoal.runtime.core.engine import current_engine
from shoal.runtime.util import metrics


@pytest.mark.usefixtures("native")
def test_the_story_of_an_actor_tells_its_restarts():
    @runtime.remote(max_restarts=1, max_task_retries=1)
    class Fragile:
        def pid(self):
            return os.getpid()

    actor = Fragile.remote()
    pid = runtime.get(actor.pid.remote())
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: "restarting" in runtime.story(actor))
    again = runtime.get(actor.pid.remote())
    told = runtime.story(actor)
    assert f"alive in pid {pid}" in told
    assert f"alive in pid {again}" in told
    assert "SIGKILL" in told


@pytest.mark.usefixtures("native")
def test_the_story_of_a_task_tells_its_retries(tmp_path):
    @runtime.remote
    def crash_once(path):
        if not os.path.exists(path):
            open(path, "w").close()
            os._exit(3)

    ref = crash_once.remote(str(tmp_path / "crashed"))
    runtime.get(ref)
    told = runtime.story(ref)
    assert "was queued again: process" in told
    assert "exit code 3" in told
    assert "crash_once ended in pid" in told


@pytest.mark.slow
def test_a_process_that_does_not_answer_is_named(tmp_path):
    @runtime.remote
    def stop_until_continued(path):
        open(path, "w").close()
        os.kill(os.getpid(), signal.SIGSTOP)

    runtime.init(engine="native", num_cpus=1, preload=WORKERS_NEED)
    path = tmp_path / "begun"
    ref = stop_until_continued.remote(str(path))
    wait_until(path.exists)
    wait_until(lambda: not all(row.answers for row in state.list_workers()))
    row = state.get_task(ref)
    assert row.state == "RUNNING"
    assert f"is in pid {row.worker_pid}, which did not answer: its GIL is held" in row.reason
    os.kill(row.worker_pid, signal.SIGCONT)
    runtime.get(ref)
    runtime.shutdown()


def test_a_process_that_is_being_made_has_no_pid_yet(native):
    fork_server = psutil.Process(current_engine()._node.pid).children()[0].pid
    os.kill(fork_server, signal.SIGSTOP)
    try:
        counters = [Counter.options(num_cpus=1).remote() for _ in range(3)]
        wait_until(lambda: len(state.list_workers()) == 3)
        assert [(row.pid, row.is_alive) for row in state.list_workers()[1:]] == [(None, False)] * 2
        reason = "waits for CPU 1 (0 of 2 free); held by actor Counter, which is being made"
        assert state.get_actor(counters[2]).reason == reason
        assert 'pid="0"' not in metrics.scrape()
    finally:
        os.kill(fork_server, signal.SIGCONT)
    assert runtime.get([counter.increase.remote() for counter in counters[:2]]) == [1, 1]
    assert all(row.pid is not None for row in state.list_workers())


def test_a_long_wait_is_explained_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOAL_WARN_AFTER_SECONDS", "0.05")
    runtime.init(engine="native", num_cpus=1, preload=WORKERS_NEED)
    path = tmp_path / "lock"
    reason = "made by square, which waits for CPU 1 (0 of 1 free); held by locked in pid"
    with ThreadPoolExecutor(2) as threads, path.open("w") as lock, screen() as shown:
        fcntl.flock(lock, fcntl.LOCK_EX)
        held = locked.remote(path)
        wait_until(lambda: state.get_task(held).state == "RUNNING")
        waiting = square.remote(3)
        gets = [threads.submit(runtime.get, waiting) for _ in range(2)]
        wait_until(lambda: reason in shown.getvalue())
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert [get.result() for get in gets] == [9, 9]
        runtime.shutdown()
        assert shown.getvalue().count(reason) == 1
        assert re.search(r"has waited \d+\.\d", shown.getvalue())


def test_a_bad_threshold_of_warnings_is_refused(monkeypatch):
    monkeypatch.setenv("SHOAL_WARN_AFTER_SECONDS", "soon")
    with pytest.raises(runtime.InputError, match="SHOAL_WARN_AFTER_SECONDS='soon'"):
        runtime.init(engine="native", num_cpus=1)


@pytest.mark.usefixtures("native")
def test_placement_groups_are_listed_with_their_reasons():
    made = runtime.util.placement_group([{"CPU": 2}], name="made")
    runtime.get(made.ready())
    waiting = runtime.util.placement_group([{"CPU": 1}], name="waiting")
    rows = {row.name: row for row in state.list_placement_groups()}
    assert (rows["made"].state, rows["made"].bundles) == ("CREATED", [{"CPU": 2}])
    assert rows["waiting"].state == "PENDING"
    for group in (waiting, made):
        runtime.util.remove_placement_group(group)


@pytest.fixture
def lock(tmp_path, native):
    """The path of a file that is locked until the test ends, on an engine of its own."""
    path = tmp_path / "lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield str(path)


@pytest.mark.usefixtures("native")
def test_what_is_to_run_in_a_group_that_is_not_reserved_yet_names_it():
    made = runtime.util.placement_group([{"CPU": 1}])
    runtime.get(made.ready())
    waiting = runtime.util.placement_group([{"CPU": 1}, {"CPU": 1}], name="later")
    there = runtime.PlacementGroupSchedulingStrategy(waiting)
    refs = [square.options(scheduling_strategy=there).remote(i) for i in range(2)]
    actor = Counter.options(scheduling_strategy=there, num_cpus=1).remote()
    reason = (
        "waits for placement group later, which has not been reserved yet: it wants CPU 2 (1 of 2 free) in 2 bundles"
    )
    wait_until(lambda: state.get_actor(actor).waits_for == reason)
    assert state.get_actor(actor).reason == reason
    for row in map(state.get_task, refs):
        assert (row.waits_for, row.reason[: len(reason)]) == (reason, reason)
    assert {("square", reason), ("Counter", reason)} <= {(row.name, row.waits_for) for row in state.status().tasks}
    for group in (waiting, made):
        runtime.util.remove_placement_group(group)


def test_what_waits_for_room_in_a_bundle_names_the_group(lock):
    group = runtime.util.placement_group([{"CPU": 1}], name="small")
    there = runtime.PlacementGroupSchedulingStrategy(group)
    held = locked.options(scheduling_strategy=there).remote(lock)
    wait_until(lambda: state.get_task(held).state == "RUNNING")
    behind = square.options(scheduling_strategy=there).remote(3)
    wait_until(lambda: state.get_task(behind).waits_for == "waits for CPU 1 in placement group small")
    assert "CPU 1 wanted, 0 of 1 free" in state.get_task(behind).reason
    runtime.util.remove_placement_group(group)


@runtime.remote(generator_backpressure=2)
def squares(most):
    for x in range(most):
        yield x * x


class Squares:
    async def give(self, most):
        for x in range(most):
            yield x * x


@pytest.mark.usefixtures("native")
def test_a_generator_says_that_it_waits_for_its_consumer():
    actor = runtime.remote(Squares).remote()
    for call in (squares, actor.give.options(generator_backpressure=2)):
        values = call.remote(3)
        ref = values.completed()
        wait_until(lambda ref=ref: state.get_task(ref).waits_for == "waits until its values are taken")
        assert state.get_task(ref).reason.endswith("where it waits until its values are taken: 2 wait")
        assert "waits until its values are taken" in {row.waits_for for row in state.status().tasks}
        assert runtime.get(list(values)) == [0, 1, 4]
        wait_until(lambda ref=ref: state.get_task(ref).state == "FINISHED")


def test_who_waits_for_the_next_value_of_a_generator_names_it(lock):
    @runtime.remote
    def values(path):
        yield runtime.get(locked.options(num_cpus=0).remote(path))

    @runtime.remote
    def first(path):
        return runtime.get(next(values.remote(path)))

    ref = first.remote(lock)
    wait_until(lambda: re.search("object .*, made by .*values, which runs in pid", state.get_task(ref).reason))


@pytest.mark.parametrize("by", ["await", "as_completed"])
def test_what_a_task_awaits_without_blocking_is_named(lock, by):
    @runtime.remote
    def ask(path):
        async def wait():
            return await locked.options(num_cpus=0).remote(path)

        if by == "await":
            return asyncio.run(wait())
        return list(runtime.util.as_completed([locked.options(num_cpus=0).remote(path)]))

    ref = ask.remote(lock)
    wait_until(lambda: state.get_task(ref).waits_for == "awaits objects")
    assert "where it awaits object " in state.get_task(ref).reason
    wait_until(lambda: "made by locked, which runs in pid" in state.get_task(ref).reason)


@pytest.mark.usefixtures("native")
def test_logs_are_read_by_process():
    @runtime.remote
    def talk():
        print("hello from the task")
        return os.getpid()

    pid = runtime.get(talk.remote())
    wait_until(lambda: any(str(pid) in name for name in state.list_logs()))
    wait_until(lambda: list(state.get_log(pid=pid, tail=1)) == ["hello from the task"])
    with pytest.raises(runtime.InputError, match="no log file 'none'"):
        list(state.get_log("none"))
    with pytest.raises(runtime.InputError, match="either filename= or pid="):
        list(state.get_log())
