"""A thousand tasks that wait on the native engine: each is listed, counted and shown with its reason."""

import fcntl
import subprocess
import sys

import pytest
from conftest import WORKERS_NEED, wait_until

from shoal import runtime
from shoal.runtime import state


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


@pytest.fixture(scope="module")
def waiting(checked_once, tmp_path_factory):
    """A runtime with a thousand tasks that wait, each kind for another reason; lets them go in the end."""
    runtime.init(engine="native", num_cpus=2, resources={"license": 1}, preload=WORKERS_NEED)
    path = tmp_path_factory.mktemp("locks") / "lock"
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
