"""Processes that may open no more files: they raise their limit, or others wait until they close some."""

import errno
import os
import resource
import subprocess
import sys

import psutil
import pytest
from conftest import WORKERS_NEED, screen

from shoal import runtime
from shoal.runtime.native.node.workers import most_processes
from shoal.runtime.native.protocol import descriptors
from shoal.runtime.native.protocol.descriptors import opening


@runtime.remote
class Hoarder:
    def fill(self, most):
        """Leave this process no descriptor; return how many it may open. `most`: nor the right to raise its limit."""
        highest = max(map(int, os.listdir("/proc/self/fd"))) + 3  # so that releasing them makes room for several
        self.held = [os.open(os.devnull, os.O_RDONLY)]
        while self.held[-1] < highest:
            self.held.append(os.open(os.devnull, os.O_RDONLY))
        limit = self.held[-1] + 1
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (limit, limit if most else resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        )
        return limit

    def answer(self):
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def make(self, size):
        return bytes(size)

    def size_of(self, data):
        return len(data)

    def release(self):
        for fd in self.held:
            os.close(fd)


@runtime.remote
def ask(hoarder):
    return runtime.get(hoarder.answer.remote())


@pytest.fixture
def hoarder():
    runtime.init("native", num_cpus=2, preload=WORKERS_NEED)
    return Hoarder.remote()


def test_a_process_without_a_descriptor_for_a_caller_raises_its_limit(hoarder):
    limit = runtime.get(hoarder.fill.remote(most=False))
    assert runtime.get(ask.remote(hoarder), timeout=10) == 2 * limit


def test_a_process_without_a_descriptor_makes_and_reads_blocks_all_the_same(hoarder):
    runtime.get(hoarder.fill.remote(most=False))
    block = hoarder.make.remote(1 << 20)
    assert len(runtime.get(block, timeout=10)) == 1 << 20
    runtime.get(hoarder.fill.remote(most=False))
    assert runtime.get(hoarder.size_of.remote(runtime.put(bytes(1 << 21))), timeout=10) == 1 << 21


def test_who_calls_a_process_that_may_open_no_more_waits_until_it_closes_some(hoarder):
    with screen() as shown:
        limit = runtime.get(hoarder.fill.remote(most=True))
        answer = ask.remote(hoarder)
        assert runtime.wait([answer], timeout=0.7) == ([], [answer])
        runtime.get(hoarder.release.remote())
        assert runtime.get(answer, timeout=10) == limit
        assert f"can open no more files (Too many open files; its limit is {limit})" in shown.getvalue()


def test_a_block_that_cannot_be_opened_for_that_is_not_taken_for_lost(hoarder):
    block = runtime.put(bytes(1 << 20))
    runtime.get(hoarder.fill.remote(most=True))
    with pytest.raises(OSError, match="Too many open files"):
        runtime.get(hoarder.size_of.remote(block), timeout=10)
    runtime.get(hoarder.release.remote())
    assert runtime.get(hoarder.size_of.remote(block), timeout=10) == 1 << 20


@pytest.mark.parametrize(("limits", "raised"), [((100, 300), [200, 300]), ((100, resource.RLIM_INFINITY), [200, 400])])
def test_a_limit_is_doubled_until_there_is_room_or_it_is_at_the_systems(monkeypatch, limits, raised):
    current, tried = list(limits), []

    def set_limit(which, to):
        tried.append(to[0])
        current[:] = to

    def open_one():
        if current[0] < 400:
            raise OSError(errno.EMFILE, "no descriptor is left")
        return 7

    monkeypatch.setattr(descriptors.resource, "getrlimit", lambda which: tuple(current))
    monkeypatch.setattr(descriptors.resource, "setrlimit", set_limit)
    if limits[1] == 300:
        with pytest.raises(OSError, match="no descriptor is left"):
            opening(open_one)
    else:
        assert opening(open_one) == 7
    assert tried == raised


@pytest.mark.parametrize(("files", "processes"), [(1024, 137), (4096, 576), (1 << 20, 1024), (-1, 1024)])
def test_a_node_has_no_more_processes_than_it_may_open_files_for(monkeypatch, files, processes):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (files, files))
    assert most_processes() == processes


PROGRAM = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
from shoal import runtime
runtime.init("native", num_cpus=1)
"""


@pytest.mark.slow
def test_a_runtime_does_not_begin_with_fewer_files_than_it_needs():
    ended = subprocess.run([sys.executable, "-c", PROGRAM], check=False, capture_output=True, text=True, timeout=60)
    assert "but may open only 60 here. Raise the limit (ulimit -Hn)" in ended.stderr.splitlines()[-1]


def test_no_addresses_left_to_map_shared_memory_is_told_and_nothing_is_lost(native):
    @runtime.remote
    def make():
        return bytes(200_000)

    limits = resource.getrlimit(resource.RLIMIT_AS)
    made = make.remote()
    runtime.wait([made])
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 2**30, limits[1]))
    try:
        with pytest.raises(OSError, match=r"no addresses left of .* GB \(ulimit -v\) to map .* GB of shared memory"):
            runtime.put(bytes(200_000))
        with pytest.raises(OSError, match="object_store_memory"):
            runtime.get(made)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert len(runtime.get(made)) == len(runtime.get(runtime.put(bytes(200_000)))) == 200_000
