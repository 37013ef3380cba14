"""Two nodes on one machine: what goes where, and what happens when one of them dies."""

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request
from pathlib import Path

import conftest
import nodes
import numpy as np
import psutil
import pytest
from conftest import WORKERS_NEED, screen, wait_until
from nodes import address, alive, joined, start_node

from shoal import runtime
from shoal.runtime import state
from shoal.runtime.util import placement_group

pytestmark = pytest.mark.slow

HERE, THERE = {"A": 1}, {"B": 1}


@pytest.fixture
def cluster():
    resources = {"A": 10}
    runtime.init("native", num_cpus=1, resources=resources, preload=WORKERS_NEED, listen="127.0.0.1:0", metrics_port=0)
    with joined("--num-cpus", "1", "--resources", '{"B": 10, "either": 1}') as node:
        yield node


@runtime.remote(num_cpus=0)
def total(array):
    return float(array.sum())


@runtime.remote(num_cpus=0)
def ones(size):
    return np.ones(size)


@runtime.remote(num_cpus=0)
def node_of():
    return psutil.Process().parents()[1].pid


@runtime.remote
def hold_cpu(marker, value):
    """Keep the CPU, without waiting for any object, until the file is there."""
    while not os.path.exists(marker):
        os.sched_yield()
    return value


@runtime.remote(num_cpus=0)
class Counter:
    def __init__(self):
        self.value = 0

    def increase(self):
        self.value += 1
        return self.value

    def pid(self):
        return os.getpid()


def peak_memory(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def die(process):
    """Kill a node's daemon; its fork server and workers die with it."""
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    wait_until(lambda: not any(worker.is_running() and worker.status() != "zombie" for worker in workers))
    wait_until(lambda: len(alive()) == 1)


# What goes where ------------------------------------------------------------------------------------------------------


def test_both_nodes_are_listed_and_their_resources_added_up(cluster):
    head, other = runtime.nodes()
    assert (head.is_head_node, other.is_head_node) == (True, False)
    assert other.pid == cluster.pid
    assert runtime.cluster_resources()["CPU"] == 2
    assert runtime.cluster_resources()["B"] == 10
    there = runtime.remote(lambda: [node.node_id for node in runtime.nodes()]).options(resources={"B": 1})
    assert runtime.get(there.remote()) == [head.node_id, other.node_id], "the head answers who asks on another node"


def test_a_node_that_has_joined_is_no_runtime_of_its_own(cluster):
    assert cluster.pid not in {session.pid for session in state.sessions()}


def test_a_task_runs_where_its_resources_are(cluster):
    there = node_of.options(resources=THERE).remote()
    assert runtime.get(there) == cluster.pid
    assert runtime.get(node_of.options(resources=HERE).remote()) != cluster.pid


def test_what_no_node_can_meet_raises_at_once(cluster):
    with pytest.raises(runtime.InfeasibleError, match="rocket"):
        node_of.options(resources={"rocket": 1}).remote()
    with pytest.raises(runtime.InfeasibleError):
        node_of.options(resources={"A": 1, "B": 1}).remote()


def test_work_that_finds_its_node_taken_goes_to_the_other(cluster, tmp_path):
    held = hold_cpu.remote(str(tmp_path / "go"), 1)
    wait_until(lambda: runtime.available_resources()["CPU"] == 1)
    assert set(runtime.get([node_of.options(num_cpus=1).remote() for _ in range(3)], timeout=30)) == {cluster.pid}
    (tmp_path / "go").touch()
    assert runtime.get(held, timeout=30) == 1


def test_large_objects_cross_in_both_directions_in_bounded_memory(cluster):
    before = peak_memory(cluster.pid)
    size = 13_000_000  # 104 MB
    array = np.arange(size, dtype=np.float64)
    assert runtime.get(total.options(resources=THERE).remote(runtime.put(array)), timeout=60) == array.sum()
    ref = ones.options(resources=THERE).remote(size)
    result = runtime.get(ref, timeout=60)
    assert result.sum() == size
    assert np.shares_memory(result, runtime.get(ref))
    assert runtime.get(total.options(resources=HERE).remote(ref), timeout=60) == size
    assert peak_memory(cluster.pid) - before < 64 << 20


def test_actors_talk_across_nodes(cluster):
    @runtime.remote(num_cpus=0)
    def use(counter):
        return runtime.get([counter.increase.remote() for _ in range(100)])[-1]

    here, there = Counter.options(resources=HERE).remote(), Counter.options(resources=THERE).remote()
    assert runtime.get(use.options(resources=THERE).remote(here), timeout=30) == 100
    assert runtime.get(use.options(resources=HERE).remote(there), timeout=30) == 100
    assert runtime.get([there.increase.remote() for _ in range(5)]) == list(range(101, 106))


def test_the_death_of_a_worker_on_the_other_node_is_told_with_its_cause(cluster):
    counter = Counter.options(resources=THERE).remote()
    os.kill(runtime.get(counter.pid.remote()), signal.SIGSEGV)
    with pytest.raises(runtime.ActorDiedError, match="SIGSEGV"):
        runtime.get(counter.increase.remote(), timeout=30)


def test_a_group_lasts_as_long_as_the_actor_of_the_other_node_that_made_it_but_longer_than_a_tasks_worker(cluster):
    def make_group():
        placement_group([{"A": 1}])
        return os.getpid()

    @runtime.remote(num_cpus=0, resources=THERE)
    class Maker:
        def make(self):
            return make_group()

    pids = [runtime.get(runtime.remote(num_cpus=0, resources=THERE)(make_group).remote(), timeout=30)]
    maker = Maker.remote()
    pids.append(runtime.get(maker.make.remote(), timeout=30))
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not {row.pid for row in state.list_workers()} & set(pids))
    assert [row.state for row in state.list_placement_groups()] == ["CREATED", "REMOVED"]


def test_what_workers_of_the_other_node_print_reaches_the_driver(cluster):
    @runtime.remote(num_cpus=0, resources=THERE)
    def speak():
        print("from the other side", flush=True)

    with screen() as shown:
        runtime.get(speak.remote())
        wait_until(lambda: "from the other side" in shown.getvalue())


def test_the_program_of_the_page_on_scaling_works_on_two_nodes(tmp_path):
    page = (Path(__file__).parents[4] / "docs" / "scaling.md").read_text()
    text = page.partition("# head.py\n")[2].partition("```")[0]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "head.py").write_text(text.replace("127.0.0.1:6400", f"127.0.0.1:{port}"))
    environment = os.environ | {"SHOAL_TOKEN": "as on the page"}
    node = nodes.start_node("--num-cpus", "2", token="as on the page", join=f"127.0.0.1:{port}")
    try:
        done = subprocess.run(
            [sys.executable, "head.py"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout == "2 nodes have worked\n", done.stderr
        assert node.wait(10) == 0
    finally:
        node.kill()
        node.wait()


# Deaths ---------------------------------------------------------------------------------------------------------------


def test_when_a_node_dies_its_tasks_run_elsewhere(cluster, tmp_path):
    refs = [hold_cpu.remote(str(tmp_path / "go"), value) for value in range(4)]
    wait_until(lambda: runtime.available_resources()["CPU"] == 0)
    die(cluster)
    (tmp_path / "go").touch()
    assert runtime.get(refs, timeout=60) == list(range(4))


def test_when_a_node_dies_its_actors_are_dead_for_that_reason(cluster):
    counter = Counter.options(resources=THERE).remote()
    assert runtime.get(counter.increase.remote()) == 1
    die(cluster)
    with pytest.raises(runtime.ActorDiedError, match=r"node [0-9a-f]{8} .* has died"):
        runtime.get(counter.increase.remote(), timeout=30)


def test_when_a_node_dies_that_is_said_and_what_ran_there_alone_is_infeasible(cluster, capfd):
    there = node_of.options(resources=THERE)
    assert runtime.get(there.remote()) == cluster.pid
    die(cluster)
    assert re.search(r"shoal: node [0-9a-f]{8} on .* has died: ", capfd.readouterr().err)
    with pytest.raises(runtime.InfeasibleError):
        there.remote()


def test_an_actor_with_restarts_comes_back_on_a_node_that_joins_later(cluster):
    counter = Counter.options(resources=THERE, max_restarts=1, max_task_retries=1).remote()
    assert runtime.get(counter.increase.remote()) == 1
    die(cluster)
    ref = counter.increase.remote()
    with joined("--num-cpus", "1", "--resources", '{"B": 1}'):
        assert runtime.get(ref, timeout=60) == 1


def test_what_lay_on_a_dead_node_is_made_again(cluster, tmp_path):
    @runtime.remote
    def make():
        return np.ones(1_000_000)

    @runtime.remote(max_retries=1)
    def make_one_by_one():
        for value in range(3):
            yield np.full(1_000_000, value)

    held = hold_cpu.remote(str(tmp_path / "go"), 1)
    wait_until(lambda: runtime.available_resources()["CPU"] == 1)
    ref, refs = make.remote(), list(make_one_by_one.remote())
    runtime.wait([ref])
    (tmp_path / "go").touch()
    runtime.get(held)
    die(cluster)
    assert runtime.get(ref, timeout=60).sum() == 1_000_000
    assert [runtime.get(ref, timeout=60)[0] for ref in refs] == [0, 1, 2], "one run makes all of them again"


def test_what_was_put_on_a_dead_node_is_lost_and_says_so(cluster):
    @runtime.remote(num_cpus=0, resources=THERE)
    class Owner:
        def make(self):
            return [runtime.put(np.ones(1_000_000))]

    owner = Owner.remote()
    [inner] = runtime.get(owner.make.remote())
    die(cluster)
    with pytest.raises(runtime.ObjectLostError, match="is gone"):
        runtime.get(inner, timeout=30)


def test_the_heads_metrics_are_those_of_all_nodes(cluster):
    runtime.get(total.options(resources=THERE).remote(np.ones(3)))
    with urllib.request.urlopen(runtime.nodes()[0].metrics_address) as reply:
        text = reply.read().decode()
    assert all(f'node="{node.node_id}"' in text for node in runtime.nodes())
    assert 'name="B"' in text


def test_kill_9_of_the_head_ends_the_other_node_and_all_its_workers():
    code = """
        import os, signal, time
        from nodes import start_node
        from conftest import wait_until
        from shoal import runtime
        runtime.init("native", num_cpus=0, preload=(), listen="127.0.0.1:0")
        node = start_node("--num-cpus", "1")
        wait_until(lambda: len(runtime.nodes()) == 2)
        pid = runtime.get(runtime.remote(os.getpid).remote())
        print(node.pid, pid, runtime.nodes()[0].pid, flush=True)
        signal.pause()
    """
    folders = [os.path.dirname(module.__file__) for module in (conftest, nodes)]
    path = os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path}
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as driver:
        node, worker, head = (psutil.Process(int(word)) for word in driver.stdout.readline().split())
        head.kill()
        wait_until(lambda: not worker.is_running() and (not node.is_running() or node.status() == "zombie"))
        driver.kill()


# Who may join ---------------------------------------------------------------------------------------------------------


@runtime.remote(max_retries=-1, num_cpus=0, resources={"either": 1})
def large():
    return np.ones(1_000_000)


@runtime.remote(max_restarts=-1, max_task_retries=-1, num_cpus=0, resources={"either": 1})
class Summed:
    def __init__(self, array):
        self.sum = array.sum()

    def get(self):
        return self.sum


def test_an_actor_that_comes_back_leaves_its_resources_to_what_makes_its_argument(cluster):
    array = large.remote()
    runtime.wait([array])
    actor = Summed.remote(array)
    assert runtime.get(actor.get.remote(), timeout=30) == 1_000_000
    die(cluster)
    with joined("--num-cpus", "1", "--resources", '{"either": 1}'):
        assert runtime.get(actor.get.remote(), timeout=30) == 1_000_000


def test_a_dead_node_is_remembered(cluster):
    node_id = runtime.nodes()[1]["NodeID"]
    die(cluster)
    head, gone = runtime.nodes()
    assert (head["Alive"], gone["Alive"], gone["NodeID"], gone["Resources"]["B"]) == (True, False, node_id, 10)


def test_the_heads_own_resource_pins_to_the_head(cluster):
    pinned = [node_of.options(resources={"node:__internal_head__": 0.001}).remote() for _ in range(3)]
    assert set(runtime.get(pinned, timeout=30)) == {runtime.nodes()[0].pid}


@runtime.remote(scheduling_strategy="SPREAD", num_cpus=0)
class Spread:
    def node(self):
        return psutil.Process().parents()[1].pid


def test_what_is_to_be_spread_runs_on_both_nodes_in_turn(cluster):
    actors = [Spread.remote() for _ in range(6)]
    places = runtime.get([actor.node.remote() for actor in actors], timeout=30)
    assert places == places[:2] * 3
    assert places[0] != places[1]
    spread = node_of.options(scheduling_strategy="SPREAD")
    places = [runtime.get(spread.remote(), timeout=30) for _ in range(6)]
    assert places == places[:2] * 3
    assert places[0] != places[1]
    places = runtime.get([spread.remote() for _ in range(6)], timeout=30)
    assert len(set(places)) == 2


@pytest.fixture
def head():
    runtime.init("native", num_cpus=1, preload=WORKERS_NEED, listen="127.0.0.1:0")
    yield
    runtime.shutdown()


def test_a_wrong_token_is_refused(head):
    node = start_node(token="guessed", stderr=subprocess.PIPE, text=True)
    _, errors = node.communicate(timeout=60)
    assert node.returncode == 2
    assert f"the token is not that of the cluster at {address()}" in errors
    assert len(runtime.nodes()) == 1


def test_garbage_on_the_port_does_no_harm(head):
    host, port = address().split(":")
    for data in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(10_000), b""):
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(data)
    with joined("--num-cpus", "1", "--resources", '{"B": 1}') as node:
        assert runtime.get(node_of.options(resources=THERE).remote(), timeout=30) == node.pid


@pytest.mark.parametrize("bad", ["nowhere", "127.0.0.1:", "127.0.0.1:99999"])
def test_a_bad_address_is_refused(bad):
    with pytest.raises(runtime.InputError, match="want HOST:PORT"):
        runtime.init("native", listen=bad)


def test_serial_cannot_listen():
    with pytest.raises(runtime.InputError, match="use engine='native'"):
        runtime.init("serial", listen="127.0.0.1:0")
