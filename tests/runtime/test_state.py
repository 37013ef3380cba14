"""Why things wait, on the native engine: every kind of reason, by name."""

import asyncio
import fcntl
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from conftest import WORKERS_NEED, screen, wait_until

from shoal import runtime
from shoal.runtime import state
from shoal.runtime.context import current_engine
from shoal.runtime.util import metrics


@runtime.remote
def square(x):
    return x * x


@runtime.remote(resources={"license": 1})
def licensed():
    return 1


@runtime.remote
def locked(path):
    """Hold the CPU, without using it, until the lock is free."""
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
    return 1


@runtime.remote
class Counter:
    def increase(self, by=1):
        return by

    def hold(self, path):
        return runtime.get(locked.options(num_cpus=0).remote(path))


@pytest.fixture
def waiting(tmp_path):
    """A runtime with a thousand tasks that wait, each kind for another reason; lets them go in the end."""
    runtime.init(engine="native", num_cpus=2, resources={"license": 1}, preload=WORKERS_NEED)
    path = tmp_path / "lock"
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        held = [locked.remote(path) for _ in range(2)]
        license_held = locked.options(num_cpus=0, resources={"license": 1}).remote(path)
        running = [("state", "=", "RUNNING")]
        wait_until(lambda: len(state.list_tasks(filters=running)) == 3)
        busy, behind, pending = Counter.remote(), Counter.remote(), Counter.options(num_cpus=1).remote()
        yield {
            "held": [*held, license_held],
            "cpu": [square.remote(i) for i in range(400)],
            "license": [licensed.remote() for _ in range(99)],
            "arguments": [square.remote(held[0]) for _ in range(200)],
            "busy": [busy.hold.remote(path), *(busy.increase.remote() for _ in range(100))],
            "pending": [pending.increase.remote() for _ in range(100)],
            "behind": [behind.increase.remote(held[1]), *(behind.increase.remote() for _ in range(100))],
        }
    runtime.shutdown()


def test_every_one_of_a_thousand_waiting_tasks_names_its_reason(waiting):
    wait_until(lambda: "made by locked, which runs in pid" in state.get_task(waiting["busy"][0]).reason)
    wait_until(lambda: state.summarize_actors()[0].state_counts.get("ALIVE") == 2)
    rows = {row.task_id: row for row in state.list_tasks()}
    group = {name: [rows[ref.hex()] for ref in refs] for name, refs in waiting.items()}
    assert sum(map(len, group.values())) == 1004
    for row in group["held"]:
        assert (row.state, row.name) == ("RUNNING", "locked")
        assert row.worker_pid is not None
    for place, row in enumerate(group["cpu"], 1):
        assert (row.state, row.waits_for) == ("PENDING_NODE_ASSIGNMENT", "waits for CPU 1 (0 of 2 free)")
        assert "held by locked in pid " in row.reason
        assert place == 1 or f"place {place} in the queue" in row.reason
        assert (row.required_resources, row.retries_left) == ({"CPU": 1}, 3)
    for row in group["license"]:
        assert row.waits_for == "waits for CPU 1 (0 of 2 free) and license 1 (0 of 1 free)"
    for row in group["arguments"]:
        assert (row.state, row.waits_for) == ("PENDING_ARGS_AVAIL", "waits for its arguments")
        assert f"object {waiting['held'][0].hex()[-10:]}, made by locked, which runs in pid" in row.reason
    first, *others = group["busy"]
    assert (first.state, first.waits_for) == ("RUNNING", "waits in get or wait")
    assert "where it waits for object" in first.reason
    assert "made by locked, which runs in pid" in first.reason
    for row in others:
        assert (row.state, row.waits_for) == ("SUBMITTED_TO_WORKER", "waits for its actor to run it")
        assert f"pid {first.worker_pid} runs Counter.hold since" in row.reason
    for row in group["pending"]:
        assert row.waits_for == "its actor Counter is pending creation"
        assert "waits for CPU 1 (0 of 2 free)" in row.reason
    first, *others = group["behind"]
    assert first.waits_for == "waits for its arguments"
    for place, row in enumerate(others, 1):
        assert row.waits_for == "is behind an earlier call of Counter"
        assert f"behind {place} earlier call" in row.reason
        assert "; the first, Counter.increase, waits for its argument object" in row.reason


def test_summaries_count_all_by_reason(waiting):
    wait_until(lambda: state.summarize_actors()[0].state_counts.get("ALIVE") == 2)

    def summary():
        return {row.name: row for row in state.summarize_tasks()}

    wait_until(lambda: summary()["locked"].state_counts == {"RUNNING": 4})
    found = summary()
    assert found["square"].state_counts == {"PENDING_NODE_ASSIGNMENT": 400, "PENDING_ARGS_AVAIL": 200}
    assert found["square"].waits_for == {"waits for CPU 1 (0 of 2 free)": 400, "waits for its arguments": 200}
    assert found["Counter.hold"].waits_for == {"waits in get or wait": 1}
    assert found["Counter.increase"].waits_for == {
        "waits for its actor to run it": 100,
        "its actor Counter is pending creation": 100,
        "waits for its arguments": 1,
        "is behind an earlier call of Counter": 100,
    }
    actors = {row.class_name: row.state_counts for row in state.summarize_actors()}
    assert actors == {"Counter": {"ALIVE": 2, "PENDING_CREATION": 1}}


def test_lists_say_when_they_are_cut(waiting):
    rows = state.list_tasks(limit=50)
    assert len(rows) == 50
    assert rows.truncated
    assert rows.total >= 1000


def test_shoal_status_names_the_reasons_of_a_thousand_waiting_tasks(waiting):
    wait_until(lambda: state.summarize_actors()[0].state_counts.get("ALIVE") == 2)
    wait_until(lambda: "waits in get or wait" in [group.waits_for for group in state.status().tasks])
    (node,) = runtime.nodes()
    command = [sys.executable, "-m", "shoal.cli.main", "status", "--session", node.session]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = {" ".join(line.split()[:-2]) for line in shown.splitlines() if line.endswith(" s")}
    assert {
        "400 square PENDING_NODE_ASSIGNMENT waits for CPU 1 (0 of 2 free)",
        "200 square PENDING_ARGS_AVAIL waits for its arguments",
        "99 licensed PENDING_NODE_ASSIGNMENT waits for CPU 1 (0 of 2 free) and license 1 (0 of 1 free)",
        "100 Counter.increase PENDING_NODE_ASSIGNMENT its actor Counter is pending creation",
        "100 Counter.increase PENDING_NODE_ASSIGNMENT is behind an earlier call of Counter",
        "100 Counter.increase SUBMITTED_TO_WORKER waits for its actor to run it",
        "1 Counter PENDING_NODE_ASSIGNMENT waits for CPU 1 (0 of 2 free)",
        "4 locked RUNNING",
        "1 Counter.hold RUNNING waits in get or wait",
    } <= lines
    assert "CPU 2 of 2 used" in shown
    assert "(MainThread) has waited" in shown
    assert "made by locked, which runs in pid" in shown


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
