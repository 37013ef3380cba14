"""Objects that memory has no room for: moved to disk, read from there, and nothing left of them afterwards."""

import errno
import gc
import os
import random
import re
import signal

import numpy as np
import psutil
import pytest
from conftest import WORKERS_NEED, shoal_processes, wait_until

from shoal import runtime
from shoal.runtime import state

pytestmark = pytest.mark.slow

STORE = 32 << 20
SIZE = 1 << 20


@pytest.fixture
def small_store(tmp_path):
    runtime.init(
        engine="native",
        num_cpus=2,
        preload=WORKERS_NEED,
        object_store_memory=STORE,
        object_spilling_directory=str(tmp_path),
    )
    yield tmp_path
    runtime.shutdown()
    assert os.listdir(tmp_path) == []


def array(number):
    return np.full(SIZE, number % 251, np.uint8)


def is_whole(value, number):
    return value.nbytes == SIZE and bool((value == number % 251).all())


@runtime.remote
def make(number):
    return array(number)


@runtime.remote
def check(value, number):
    return is_whole(value, number)


@runtime.remote
class Keeper:
    """Puts arrays that it owns itself, and hands out references to them."""

    def __init__(self):
        self.refs = {}

    def put(self, number):
        self.refs[number] = runtime.put(array(number))
        return [self.refs[number]]

    def drop(self, number):
        del self.refs[number]

    def check(self, held, number):
        return is_whole(runtime.get(held[0]), number)


def test_three_times_the_memory_comes_back_whole(small_store):
    refs = [runtime.put(array(number)) for number in range(96)]
    assert all(is_whole(runtime.get(ref), number) for number, ref in enumerate(refs))
    assert all(runtime.get([check.remote(ref, number) for number, ref in enumerate(refs)]))
    assert 0 < state.status().shared_memory <= STORE  # what lies on disk is none of it


def test_what_tasks_return_moves_too(small_store):
    refs = [make.remote(number) for number in range(96)]
    assert all(is_whole(runtime.get(ref), number) for number, ref in enumerate(refs))


def test_what_another_process_owns_is_found_where_it_went(small_store):
    keeper = Keeper.remote()
    held = [runtime.get(keeper.put.remote(number))[0] for number in range(20)]
    assert all(is_whole(runtime.get(ref), number) for number, ref in enumerate(held))
    others = [runtime.put(array(number)) for number in range(40)]  # the keeper's go to disk, and we know the old places
    assert all(runtime.get([check.remote(ref, number) for number, ref in enumerate(held)]))
    assert all(is_whole(runtime.get(ref), number) for number, ref in enumerate(held))
    assert all(runtime.get([keeper.check.remote([ref], number) for number, ref in enumerate(others)]))


def test_two_gets_of_an_object_on_disk_view_the_same_memory(small_store):
    refs = [runtime.put(array(number)) for number in range(64)]
    first, second = runtime.get(refs[0]), runtime.get(refs[0])
    assert np.shares_memory(first, second)
    assert not first.flags.writeable


def test_what_is_viewed_stays_in_memory_and_as_it_is(small_store):
    viewed = [runtime.get(runtime.put(array(number))) for number in range(10)]
    refs = [runtime.put(array(number)) for number in range(64)]
    assert all(is_whole(value, number) for number, value in enumerate(viewed))
    del refs


def test_when_all_is_in_use_the_error_says_who_holds_what(small_store):
    viewed = []
    message = ""
    try:
        for number in range(40):
            viewed.append(runtime.get(runtime.put(array(number))))
    except runtime.exceptions.ObjectStoreFullError as error:  # its frames must not outlive this
        message = str(error)
    assert len(viewed) >= 28
    assert f"{STORE:,} bytes" in message
    assert re.search(rf"driver \(pid {os.getpid()}\): owns \d+ objects", message)
    assert "Drop references" in message
    viewed.clear()
    assert is_whole(runtime.get(runtime.put(array(1))), 1)


def test_who_only_views_memory_is_named(small_store):
    @runtime.remote
    class Viewer:
        def __init__(self):
            self.viewed = []

        def keep(self, value):
            self.viewed.append(value)
            return os.getpid()

    viewer, count = Viewer.remote(), 20
    [pid] = {runtime.get(viewer.keep.remote(array(number))) for number in range(count)}
    [row] = state.memory().viewers
    assert (row.pid, row.viewed_memory // SIZE) == (pid, count)
    assert re.search(rf"^ +{pid} +views +[\d.]+ MB +\S*Viewer$", str(state.memory()), re.MULTILINE)
    named = rf"Viewer \(pid {pid}\): arrays in it view {count} blocks"
    with pytest.raises(runtime.exceptions.ObjectStoreFullError, match=named):
        runtime.put(np.zeros(STORE - count // 2 * SIZE, np.uint8))


def test_an_object_larger_than_the_store_is_refused_with_both_sizes(small_store):
    with pytest.raises(runtime.exceptions.ObjectStoreFullError, match=rf"100,\d+,\d+ bytes.*{STORE:,} bytes"):
        runtime.put(np.zeros(100_000_000, np.uint8))

    @runtime.remote
    def too_large():
        return np.zeros(100_000_000, np.uint8)

    with pytest.raises(runtime.exceptions.ObjectStoreFullError, match="larger than the whole object store"):
        runtime.get(too_large.remote())


def test_a_maker_waits_while_arguments_of_others_calls_take_all_memory(small_store):
    results = [check.remote(array(number), number) for number in range(96)]  # arguments stay in memory
    assert all(runtime.get(results))


def test_dropped_objects_leave_the_disk(small_store):
    refs = [runtime.put(array(number)) for number in range(96)]
    assert was_spilled(small_store)
    files = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    on_disk = [path for path in files if os.path.exists(path) and os.readlink(path).startswith(str(small_store))]
    assert on_disk
    assert os.stat(on_disk[0]).st_blocks * 512 > 50 * SIZE
    refs.clear()
    wait_until(lambda: runtime.put(1) and os.stat(on_disk[0]).st_blocks * 512 <= 2 * SIZE)


def test_what_dead_workers_made_counts_until_it_is_dropped(small_store):
    for start in range(0, 60, 20):
        keepers = [Keeper.remote() for _ in range(2)]
        refs = [runtime.get(keepers[number % 2].put.remote(start + number)) for number in range(20)]
        for keeper in keepers:
            runtime.kill(keeper)
        del refs
    refs = [runtime.put(array(number)) for number in range(64)]
    assert all(is_whole(runtime.get(ref), number) for number, ref in enumerate(refs))


@pytest.fixture
def without_collections():
    gc.disable()
    yield
    gc.enable()
    gc.collect()


def in_a_circle(what):
    circle = [what]
    circle.append(circle)


def was_spilled(folder):
    """Whether a process has made a file for objects; its name is gone as soon as it is open."""
    pids = [os.getpid(), *(process.pid for process in shoal_processes())]
    files = [f"/proc/{pid}/fd/{fd}" for pid in pids for fd in os.listdir(f"/proc/{pid}/fd")]
    return any(os.path.lexists(file) and os.readlink(file).startswith(str(folder)) for file in files)


def test_references_that_only_garbage_holds_cost_no_disk(small_store, without_collections):
    in_a_circle([runtime.put(array(number)) for number in range(20)])
    kept = [runtime.put(array(number)) for number in range(20)]
    assert not was_spilled(small_store)
    assert all(is_whole(runtime.get(ref), number) for number, ref in enumerate(kept))


def test_views_that_only_garbage_holds_are_no_reason_to_refuse(small_store, without_collections):
    in_a_circle(runtime.get([runtime.put(array(number)) for number in range(14)]))
    viewed = runtime.get([runtime.put(array(number)) for number in range(14)])
    for _ in range(3):  # by then collections are due only when nothing else has helped
        in_a_circle(runtime.get(runtime.put(np.zeros(12 * SIZE, np.uint8))))
    assert all(is_whole(value, number) for number, value in enumerate(viewed))


def test_garbage_in_actors_is_found_too(small_store):
    @runtime.remote
    class Careless:
        def __init__(self):
            gc.disable()

        def put(self):
            in_a_circle([runtime.put(array(number)) for number in range(10)])

    careless = Careless.remote()
    runtime.get([careless.put.remote(), careless.put.remote()])
    refs = [runtime.put(array(number)) for number in range(20)]
    assert not was_spilled(small_store)
    assert all(is_whole(runtime.get(ref), number) for number, ref in enumerate(refs))


def test_a_full_disk_is_called_by_its_name_and_the_store_stays_usable(small_store, monkeypatch):
    room = 4 * SIZE

    def full_disk(fd, start, size):
        if start + size > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full_disk)
    refs = []
    named = rf"nothing can be moved to disk \({re.escape(str(small_store))}: No space left on device\)"

    def put_on():
        while True:
            refs.append(runtime.put(array(len(refs))))

    with pytest.raises(runtime.exceptions.ObjectStoreFullError, match=named):
        put_on()
    assert 30 <= len(refs) <= 36
    assert all(is_whole(runtime.get(ref), number) for number, ref in enumerate(refs))
    del refs[:8]
    more = [runtime.put(array(number)) for number in range(6)]
    assert all(is_whole(runtime.get(ref), number) for number, ref in enumerate(more))
    room = 1 << 40
    more += [runtime.put(array(number)) for number in range(6, 40)]
    assert all(is_whole(runtime.get(ref), number) for number, ref in enumerate(more))


def test_bad_settings_are_refused(tmp_path):
    for engine in ("native", "serial"):
        with pytest.raises(runtime.InputError, match="at least"):
            runtime.init(engine=engine, object_store_memory=1000)
        with pytest.raises(runtime.InputError, match="this machine has only"):
            runtime.init(engine=engine, object_store_memory=1 << 60)
        file = tmp_path / "file"
        file.touch()
        with pytest.raises(runtime.InputError, match="no folder"):
            runtime.init(engine=engine, object_spilling_directory=str(file))
    assert not runtime.is_initialized()


@pytest.mark.parametrize("seed", range(2))
def test_random_use_by_several_processes(small_store, seed):
    chance = random.Random(seed)
    keepers = [Keeper.remote() for _ in range(2)]
    living = {}
    for number in range(160):
        kind = chance.choice(["put", "make", "keeper", "drop", "check", "get"])
        if kind == "put":
            living[number] = runtime.put(array(number))
        elif kind == "make":
            living[number] = make.remote(number)
        elif kind == "keeper":
            living[number] = runtime.get(chance.choice(keepers).put.remote(number))[0]
        elif living:
            which = chance.choice(list(living))
            if kind == "drop":
                del living[which]
            elif kind == "get":
                assert is_whole(runtime.get(living[which]), which)
            else:
                assert runtime.get(chance.choice(keepers).check.remote([living[which]], which))
    for number, ref in living.items():
        assert is_whole(runtime.get(ref), number), number
    assert all(runtime.get([check.remote(ref, number) for number, ref in living.items()]))


def test_what_tasks_make_of_each_others_results_needs_no_more_than_there_is(small_store):
    """Large and small results and arguments of two workers: each fits, and nothing is viewed for long."""

    @runtime.remote
    def fill(like, size):
        return np.full(size, 7 if like is None else like[0], np.uint8)

    chance, refs = random.Random(5), []
    for _ in range(100):
        size = chance.choice([STORE // 28, STORE * 10 // 28])
        refs.append(fill.remote(chance.choice([None, *refs]), size))
        if len(refs) > 12:
            refs.pop(chance.randrange(len(refs)))
    assert all((runtime.get(ref) == 7).all() for ref in refs)


def test_values_of_several_arrays_do_not_wait_for_each_other(small_store):
    """Each takes more than half of the store: makers that had a part of it would wait for ever."""

    @runtime.remote
    def several(number):
        return [np.full(STORE // 5, number, np.uint8) for _ in range(3)]

    for first in range(0, 8, 2):
        refs = [several.remote(number) for number in (first, first + 1)]
        for number, ref in enumerate(refs, first):
            assert [array[0] for array in runtime.get(ref)] == [number] * 3


@pytest.mark.parametrize("lazily", [False, True])
def test_the_values_of_one_call_need_not_fit_into_the_store_together(small_store, lazily):
    @runtime.remote(num_returns=4, max_retries=0)
    def four():
        values = (np.full(STORE // 2, number, np.uint8) for number in range(4))
        return values if lazily else list(values)

    for _ in range(2):
        refs = four.remote()
        assert [runtime.get(ref)[-1] for ref in refs] == list(range(4))
    assert "spilled" in {row.where for row in state.memory().rows}
    del refs
    wait_until(lambda: not state.memory().rows)


def test_values_that_a_dead_worker_has_spilled_stay(small_store):
    @runtime.remote(num_returns=4, max_retries=0)
    def four():
        return [os.getpid(), *(np.full(STORE // 2, number, np.uint8) for number in range(3))]

    pid, *refs = four.remote()
    os.kill(runtime.get(pid), signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(runtime.get(pid)))
    assert [runtime.get(ref)[-1] for ref in refs] == list(range(3))


def test_an_object_of_more_than_half_the_store_finds_room_time_and_again(small_store):
    viewed = runtime.get(runtime.put(np.zeros(STORE // 4, np.uint8)))
    refs = [runtime.put(np.full(STORE * 6 // 10, number, np.uint8)) for number in range(5)]
    assert [runtime.get(ref)[-1] for ref in refs] == list(range(5))
    assert not viewed.any()
