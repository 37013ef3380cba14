"""Reports of deaths, and what happens when memory runs out: from recorded files and by really dying."""

import os
import re
import signal

import psutil
import pytest

from shoal import runtime
from shoal.runtime.core.resources.machine_memory import (
    Memory,
    biggest_processes,
    human_bytes,
    machine_memory,
    read_memory,
    read_oom_kills,
)
from shoal.runtime.native.node.deaths import Death, killed_by_kernel, signal_name
from shoal.runtime.native.node.known_process import Process
from shoal.runtime.native.node.memory_monitor import MemoryMonitor, choose_victim
from shoal.runtime.native.node.scheduler import Lease

MEMORY = Memory(total=8 * 2**30, available=2 * 2**30)
EXIT_3 = 3 << 8


def death(**changed):
    given = {"who": "7 (worker)", "status": signal.SIGKILL, "expected": False, "peak": 3 * 2**20, "memory": MEMORY}
    return Death(**given | changed).describe()


# Words ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (signal.SIGKILL, r"signal 9 \(SIGKILL\): from outside: by hand, by a job scheduler"),
        (signal.SIGSEGV, r"signal 11 \(SIGSEGV\): a crash in native code.*PYTHONFAULTHANDLER"),
        (signal.SIGTERM, r"signal 15 \(SIGTERM\): from outside"),
        (signal.SIGUSR1, r"killed by signal 10 \(SIGUSR1\)\. It held"),
        (35, r"killed by signal 35\. It held"),
        (EXIT_3, r"ended with exit code 3\. It held up to 3\.1 MB of memory; 2\.1 GB of 8\.6 GB are available"),
    ],
)
def test_a_report_says_how_and_what_was_held(status, words):
    assert re.search(words, death(status=status))


def test_a_report_ends_with_the_log_and_the_last_lines():
    assert death(log="/logs/a.out", tail=["one", "two"]).endswith(
        "What it printed is in /logs/a.out; its last lines:\n    one\n    two"
    )


def test_an_expected_death_gives_no_advice():
    assert death(expected=True) == "process 7 (worker) was killed by signal 9 (SIGKILL)"


def test_want_of_memory_is_told_with_who_holds_it_and_the_cure():
    text = death(starved="the kernel", biggest=[(5, "python big.py", 5 * 2**30)])
    assert "was killed for want of memory by the kernel. Run fewer tasks at a time" in text
    assert "Most memory is held by python big.py (pid 5) 5.4 GB" in text


def test_names_and_sizes():
    assert (signal_name(9), human_bytes(2**30), human_bytes(1536)) == ("signal 9 (SIGKILL)", "1.1 GB", "1.5 KB")


@pytest.mark.parametrize(
    ("status", "expected", "before", "now", "starved"),
    [
        (signal.SIGKILL, False, 3, 4, True),
        (signal.SIGKILL, False, 3, 3, False),
        (signal.SIGKILL, True, 3, 4, False),
        (signal.SIGSEGV, False, 3, 4, False),
        (EXIT_3, False, 3, 4, False),
    ],
)
def test_the_kernels_kill_is_told_from_others(status, expected, before, now, starved):
    assert killed_by_kernel(status, expected, before, now) is starved


# The kernel's files ---------------------------------------------------------------------------------------------------


def _write(root, files):
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


MEMINFO = {"proc/meminfo": "MemTotal:       8000 kB\nMemFree:        1000 kB\nMemAvailable:   5000 kB\n"}
CGROUP_2 = {
    "proc/self/cgroup": "0::/app\n",
    "sys/fs/cgroup/app/memory.max": "4096000\n",
    "sys/fs/cgroup/app/memory.current": "3000000\n",
    "sys/fs/cgroup/app/memory.stat": "anon 1\ninactive_file 1000000\n",
    "sys/fs/cgroup/app/memory.events": "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n",
}
CGROUP_1 = {
    "proc/self/cgroup": "5:cpu:/x\n4:memory:/docker/abc\n0::/\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "4096000\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": "3000000\n",
    "sys/fs/cgroup/memory/memory.stat": "inactive_file 1\ntotal_inactive_file 500000\n",
    "sys/fs/cgroup/memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n",
}


def test_memory_of_a_machine(tmp_path):
    _write(tmp_path, MEMINFO | {"proc/vmstat": "pgfault 1\noom_kill 9\n"})
    memory = read_memory(str(tmp_path))
    assert memory == Memory(8000 * 1024, 5000 * 1024)
    assert memory.used == pytest.approx(0.375)
    assert read_oom_kills(str(tmp_path)) == 9


def test_memory_of_a_container_with_cgroups_of_version_2(tmp_path):
    _write(tmp_path, MEMINFO | CGROUP_2)
    assert read_memory(str(tmp_path)) == Memory(4096000, 4096000 - 2000000)
    assert machine_memory(str(tmp_path)) == 4096000
    assert read_oom_kills(str(tmp_path)) == 2


def test_memory_of_a_container_with_cgroups_of_version_1(tmp_path):
    _write(tmp_path, MEMINFO | CGROUP_1)
    assert read_memory(str(tmp_path)) == Memory(4096000, 4096000 - 2999999)
    assert machine_memory(str(tmp_path)) == 4096000
    assert read_oom_kills(str(tmp_path)) == 5


def test_a_cgroup_without_limit_does_not_count(tmp_path):
    _write(tmp_path, MEMINFO | CGROUP_2 | {"sys/fs/cgroup/app/memory.max": "max\n"})
    assert read_memory(str(tmp_path)) == Memory(8000 * 1024, 5000 * 1024)
    assert machine_memory(str(tmp_path)) == psutil.virtual_memory().total


def test_this_machine_can_be_read():
    memory = read_memory()
    assert 0 < memory.available <= memory.total
    assert read_oom_kills() >= 0
    biggest = biggest_processes(3)
    assert biggest == sorted(biggest, key=lambda process: -process[2])
    assert biggest[0][2] > 2**20


def test_without_the_kernels_files_nothing_is_killed(tmp_path):
    assert read_memory(str(tmp_path)).used == 0.0
    assert read_oom_kills(str(tmp_path)) == 0


# Whom to end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("candidates", "victim"),
    [
        ([], None),
        # The caller with most workers gives, and of those the latest.
        ([(b"1", b"A", True, 1), (b"2", b"A", True, 2), (b"3", b"B", True, 9)], b"2"),
        # What is not retried is spared as long as there is something else.
        ([(b"1", b"A", True, 1), (b"2", b"A", False, 2)], b"1"),
        ([(b"1", b"A", True, 1), (b"2", b"B", True, 2)], b"2"),
        ([(b"1", b"A", False, 1), (b"2", b"B", False, 2)], b"2"),
        # Two callers with as many: the latest of all.
        ([(b"1", b"A", True, 1), (b"2", b"A", True, 4), (b"3", b"B", True, 2), (b"4", b"B", True, 3)], b"2"),
    ],
)
def test_the_one_is_ended_whose_loss_costs_least(candidates, victim):
    leases = {who: Lease(asker, 1, {}, retriable=again, since=since) for who, asker, again, since in candidates}
    assert choose_victim(leases) == victim


class _Killed(Process):
    def signal(self, number):
        self.killed = number


def test_the_monitor_ends_one_worker_at_a_time():
    timers = []
    processes = {
        key: _Killed(key, 0, "A", registered=True, lease=Lease(b"owner", 1, {}, since=float(index)))
        for index, key in enumerate((b"1", b"2"))
    }
    MemoryMonitor(lambda seconds, look: timers.append(look), processes, 0.9, lambda: Memory(100, 5)).start()
    timers.pop()()
    timers.pop()()
    assert processes[b"2"].starved == "the node, since 95% of the memory are in use, more than 90%"
    assert processes[b"2"].killed == signal.SIGKILL
    assert processes[b"1"].starved is None


def test_the_monitor_lets_live_while_there_is_memory():
    processes = {b"1": _Killed(b"1", 0, "A", registered=True, lease=Lease(b"owner", 1, {}))}
    timers = []
    MemoryMonitor(lambda seconds, look: timers.append(look), processes, 0.9, lambda: Memory(100, 11)).start()
    timers.pop()()
    assert processes[b"1"].starved is None
    assert timers


# By really dying ------------------------------------------------------------------------------------------------------


@runtime.remote
def hold_and_die(marker=None):
    """Die by SIGKILL, the first time or always."""
    if marker is None or not os.path.exists(marker):
        if marker is not None:
            open(marker, "w").close()
        print("my last words", end="", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return "lived"


def test_memory_log_and_half_a_last_line_are_in_the_report(native):
    with pytest.raises(runtime.WorkerCrashedError) as caught:
        runtime.get(hold_and_die.options(max_retries=0).remote(), timeout=30)
    text = str(caught.value)
    assert "of memory; " in text
    assert text.endswith("\n    my last words")
    path = text.partition("What it printed is in ")[2].partition(";")[0]
    with open(path) as log:
        assert log.read() == "my last words"
    assert not isinstance(caught.value, runtime.OutOfMemoryError)


@pytest.fixture
def starving():
    """A node that finds any memory too full: it ends workers as soon as it looks."""
    runtime.init(engine="native", num_cpus=1, preload=[], memory_usage_threshold=0.0001)
    yield
    runtime.shutdown()


@runtime.remote
class Waiter:
    def wait(self):
        signal.pause()


def test_a_task_ended_for_want_of_memory_raises_out_of_memory(starving):
    @runtime.remote(max_retries=1)
    def wait():
        signal.pause()

    with pytest.raises(runtime.OutOfMemoryError, match=r"wait has no retries.*for want of memory by the node, since"):
        runtime.get(wait.remote(), timeout=30)


def test_an_actor_ended_for_want_of_memory_has_that_as_its_cause(starving):
    with pytest.raises(runtime.ActorDiedError, match="for want of memory by the node") as caught:
        runtime.get(Waiter.remote().wait.remote(), timeout=30)
    assert isinstance(caught.value.__cause__, runtime.OutOfMemoryError)


def test_a_memory_error_is_the_tasks_own_exception(native):
    @runtime.remote
    def ask_for_too_much():
        import resource

        limits = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (2**30, limits[1]))
        try:
            return len(bytearray(2**40))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)

    with pytest.raises(MemoryError):
        runtime.get(ask_for_too_much.remote(), timeout=30)


def test_a_threshold_must_be_a_part():
    with pytest.raises(runtime.InputError, match=r"memory_usage_threshold=1\.5"):
        runtime.init(engine="native", memory_usage_threshold=1.5)
