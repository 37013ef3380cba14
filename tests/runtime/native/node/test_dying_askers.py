"""Processes that die, or are interrupted, while the node has yet to answer: what they asked for must not last.

The node is stopped meanwhile, so that it finds the question and the death at once.
"""

import contextlib
import os
import signal
import threading

import numpy as np
import psutil
import pytest
from conftest import wait_until
from nodes import two_nodes

from shoal import runtime
from shoal.runtime import state
from shoal.runtime.core.engine import current_engine
from shoal.runtime.util import list_named_actors, placement_group


def stop(pid):
    """Stop a process; it has stopped when this returns."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)


def has_ended(pid):
    """Return whether a process is dead with all its threads, the last of which closes its sockets."""
    try:
        process = psutil.Process(pid)
        return process.status() == psutil.STATUS_ZOMBIE and process.num_threads() == 1
    except psutil.NoSuchProcess:
        return True


def new_arena():
    runtime.put(np.ones(100_000))


def named_actor():
    return Asker.options(name="x").remote()


def detached_actor():
    return Asker.options(name="x", lifetime="detached").remote()


def group():
    return placement_group([{"memory": 1}], name="x")


def die_asking(ask, node, marker, before_death=lambda: None):
    """Stop the node, ask it something and die before it has answered; the marker tells this process's pid."""
    links = current_engine().parts.links

    def die():
        wait_until(lambda: any(links.asked.values()))
        with links.lock:  # asked, and sent
            pass
        before_death()
        marker.with_suffix(".part").write_text(str(os.getpid()))
        marker.with_suffix(".part").rename(marker)
        os.kill(os.getpid(), signal.SIGKILL)

    stop(node)
    threading.Thread(target=die, daemon=True).start()
    ask()


@runtime.remote(max_retries=0)
def ask_in_a_task(*arguments):
    die_asking(*arguments)


@runtime.remote
class Asker:
    def ask(self, *arguments):
        die_asking(*arguments)

    def pid(self):
        return os.getpid()


@runtime.remote
def one():
    return 1


def go_on_after_death(node, marker):
    """Let the node go on once the process of which the marker tells is dead."""
    try:
        wait_until(marker.exists)
        wait_until(lambda: has_ended(int(marker.read_text())))
    finally:
        os.kill(node, signal.SIGCONT)


def arenas(node):
    targets = []
    for fd in os.listdir(f"/proc/{node}/fd"):
        with contextlib.suppress(FileNotFoundError):
            targets.append(os.readlink(f"/proc/{node}/fd/{fd}"))
    return sum("shoal-arena" in target for target in targets)


def nothing_is_left():
    resources = runtime.available_resources() == runtime.cluster_resources()
    actors = [row for row in state.list_actors() if row.state != "DEAD"]
    groups = [row for row in state.list_placement_groups() if row.state != "REMOVED"]
    return resources and not actors and not groups and not list_named_actors(all_namespaces=True)


def stop_fork_server():
    stop(os.getppid())


@pytest.mark.parametrize("before_death", [lambda: None, stop_fork_server], ids=["death reported", "hung up only"])
def test_the_node_outlives_a_worker_that_dies_as_it_announces_its_arena(native, tmp_path, before_death):
    node = current_engine()._node.pid
    runtime.get(one.remote())
    before = arenas(node)
    fork_server = psutil.Process(node).children()[0].pid
    ref = ask_in_a_task.remote(new_arena, node, tmp_path / "pid", before_death)
    try:
        go_on_after_death(node, tmp_path / "pid")
        runtime.available_resources()  # answered after all that the node has found
    finally:
        os.kill(fork_server, signal.SIGCONT)
    with pytest.raises(runtime.WorkerCrashedError, match="SIGKILL"):
        runtime.get(ref, timeout=30)
    assert runtime.get(one.remote(), timeout=30) == 1
    assert arenas(node) == before


@pytest.mark.parametrize("ask", [named_actor, detached_actor, group])
def test_what_an_actor_asks_for_as_it_dies_does_not_happen(native, tmp_path, ask):
    node = current_engine()._node.pid
    asker = Asker.remote()
    ref = asker.ask.remote(ask, node, tmp_path / "pid")
    go_on_after_death(node, tmp_path / "pid")
    with pytest.raises(runtime.ActorDiedError, match="SIGKILL"):
        runtime.get(ref, timeout=30)
    del asker, ref
    wait_until(nothing_is_left)
    made = ask()  # the name is free
    assert not nothing_is_left()
    del made


def test_a_group_that_a_task_asks_for_as_it_dies_is_not_made(native, tmp_path):
    node = current_engine()._node.pid
    ref = ask_in_a_task.remote(group, node, tmp_path / "pid")
    go_on_after_death(node, tmp_path / "pid")
    with pytest.raises(runtime.WorkerCrashedError, match="SIGKILL"):
        runtime.get(ref, timeout=30)
    wait_until(nothing_is_left)


def test_a_name_is_free_again_if_its_creation_is_interrupted(native):
    node, links = current_engine()._node.pid, current_engine().parts.links

    def interrupt():
        wait_until(lambda: any(links.asked.values()))
        os.kill(os.getpid(), signal.SIGINT)

    stop(node)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            named_actor()
    finally:
        thread.join()
        os.kill(node, signal.SIGCONT)
    assert runtime.get(named_actor().pid.remote(), timeout=30)


@pytest.mark.slow
@pytest.mark.parametrize("ask", [named_actor, detached_actor, group])
def test_the_head_does_not_answer_the_dead_of_another_node(tmp_path, ask):
    with two_nodes():
        head = current_engine()._node.pid
        asker = Asker.options(num_cpus=1).remote()
        # The other node answers this, which is asked later, so it has passed on what the head is asked.
        ref = asker.ask.remote(ask, head, tmp_path / "pid", new_arena)
        go_on_after_death(head, tmp_path / "pid")
        with pytest.raises(runtime.ActorDiedError, match="SIGKILL"):
            runtime.get(ref, timeout=30)
        del asker, ref
        wait_until(nothing_is_left)
