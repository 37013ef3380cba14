"""Beginnings and ends on the native engine: actors that wait for arguments, tables that must not grow, late news."""

import gc
import os
import threading
from functools import partial

import numpy as np
import psutil
import pytest
from conftest import shoal_processes, wait_until
from gates import Gate, pass_gate

from shoal import runtime
from shoal.runtime import state
from shoal.runtime.core.engine import current_engine
from shoal.runtime.native.protocol import messages as m

pytestmark = pytest.mark.usefixtures("shared_native")


@runtime.remote
class Holder:
    def __init__(self, value=None):
        self.value = value

    def get(self):
        return self.value

    def take(self, value):
        return value

    def wait_for(self, gate):
        while not runtime.get(gate.is_open.remote()):
            os.sched_yield()

    def new_ref(self):
        self.value = "called"
        return [runtime.put("inner")]

    def call_itself(self, me):
        self.later = me.new_ref.remote()

    def read_later(self):
        return runtime.get(runtime.get(self.later)[0])


@runtime.remote
def fail(box=None):
    raise KeyError("argument")


@runtime.remote
def ask(box):
    return runtime.get(box[0].get.remote())


@runtime.remote
def nothing():
    return None


def actor_processes():
    return named_processes("Holder")


def named_processes(name):
    try:
        return [process for process in shoal_processes() if name in " ".join(process.cmdline())]
    except (psutil.Error, FileNotFoundError):  # one ended while we looked
        return named_processes(name)


def is_lost(ref):
    try:
        runtime.get(ref)
    except runtime.ObjectLostError:
        return True
    return False


def tables():
    """Return the sizes of the driver's tables."""
    gc.collect()
    return current_engine().parts.table_sizes()


# Actors whose arguments are not there yet -----------------------------------------------------------------------------


def test_a_handle_may_be_used_elsewhere_before_the_actors_arguments_are_there():
    gate = Gate.remote()
    holder = Holder.remote(pass_gate.options(num_cpus=0).remote(gate, 5))
    asked = ask.remote([holder])
    runtime.wait([asked], timeout=0.1)
    gate.release.remote()
    assert runtime.get(asked, timeout=20) == 5


def test_an_actor_killed_while_it_waits_for_its_arguments_never_starts():
    gate = Gate.remote()
    argument = pass_gate.remote(gate, 5)
    holder = Holder.remote(argument)
    runtime.kill(holder)
    gate.release.remote()
    runtime.get(argument)
    with pytest.raises(runtime.ActorDiedError, match="it was killed by kill"):
        runtime.get(holder.get.remote(), timeout=20)
    assert not actor_processes()


def test_an_actor_dropped_while_it_waits_for_its_arguments_never_starts():
    gate = Gate.remote()
    argument = pass_gate.remote(gate, 5)
    Holder.options(num_cpus=1).remote(argument)
    gate.release.remote()
    assert runtime.get(argument) == 5
    wait_until(lambda: runtime.available_resources()["CPU"] == 2)
    assert not actor_processes()


def test_an_actor_whose_argument_fails_is_dead_everywhere_and_gives_its_name_back():
    holder = Holder.options(name="holder").remote(fail.remote())
    with pytest.raises(runtime.ActorDiedError, match="an argument of its constructor failed"):
        runtime.get(holder.get.remote(), timeout=20)
    with pytest.raises(runtime.ActorDiedError, match="an argument of its constructor failed"):
        runtime.get(ask.remote([holder]), timeout=20)
    Holder.options(name="holder").remote()


def test_a_name_that_is_taken_leaves_no_arguments_behind():
    keep = Holder.options(name="holder").remote()
    runtime.get(keep.get.remote())
    before = tables()["blocks"]
    with pytest.raises(runtime.InputError, match="is alive"):
        Holder.options(name="holder").remote(np.zeros(100_000))
    assert tables()["blocks"] == before


# References -----------------------------------------------------------------------------------------------------------


def test_an_actor_may_call_itself_and_get_references_back():
    holder = Holder.remote()
    runtime.get(holder.call_itself.remote(holder))
    wait_until(lambda: runtime.get(holder.get.remote()) == "called")
    assert runtime.get(holder.read_later.remote(), timeout=20) == "inner"
    runtime.kill(holder)  # it holds itself


def test_an_actor_whose_last_holder_dies_ends_while_calls_to_others_go_on():
    """Its end comes in the middle of those of the holder's calls: the next call of an actor that waits for one."""
    gate, held, other = Gate.remote(), Holder.remote(), Holder.remote()
    holder = Holder.remote(held)
    again = Holder.remote()
    runtime.get([one.get.remote() for one in (held, other, again)])
    del held
    waits = holder.wait_for.remote(gate)
    failed, sent = other.take.remote(waits), other.take.remote(runtime.put(5))
    runtime.kill(holder)
    assert runtime.get(sent, timeout=20) == 5
    with pytest.raises(runtime.ActorDiedError):
        runtime.get(failed, timeout=20)
    assert runtime.get(again.take.remote(7), timeout=20) == 7


@pytest.mark.slow
def test_workers_that_are_not_needed_any_more_stay_while_others_hold_what_they_own():
    @runtime.remote
    def make(gate, i):
        while not runtime.get(gate.is_open.remote()):
            os.sched_yield()
        return [runtime.put(i)]

    gate = Gate.remote()
    makers = [make.remote(gate, i) for i in range(6)]
    wait_until(lambda: len(named_processes("worker")) >= 6)  # all wait at the same time, so there are more than CPUs
    gate.release.remote()
    boxes = runtime.get(makers, timeout=20)
    del makers
    wait_until(lambda: runtime.available_resources()["CPU"] == 2)
    assert [runtime.get(box[0], timeout=20) for box in boxes] == list(range(6))
    del boxes
    tables()
    wait_until(lambda: len(named_processes("worker")) <= 2)


def test_a_worker_that_ends_leaves_those_alone_that_it_had_lately():
    """A worker holds another one for a moment after its last task: ending then, it must not take that one along."""

    @runtime.remote
    def inner():
        return [runtime.put(7)]

    @runtime.remote
    def outer():
        return os.getpid(), inner.remote()

    parts = current_engine().parts
    links = parts.links
    rounds = 0
    while rounds < 10:
        pid, ref = runtime.get(outer.remote(), timeout=20)
        [inside] = runtime.get(ref, timeout=20)
        del ref
        with links.lock:
            parts.values.settle_drops()
            links.flush()
            leases = [
                (queue.leases, worker) for queue in parts.task_queues.by_key.values() for worker in list(queue.leases)
            ]
            for held, worker in leases:
                del held[worker]
                links.node.send(m.ReturnLease(worker, reusable=False))
        if not leases:  # on a busy machine they were idle for so long that they have been given back, to be used again
            continue
        rounds += 1
        wait_until(lambda pid=pid: not psutil.pid_exists(pid))
        assert runtime.get(inside, timeout=20) == 7


def test_a_task_or_call_that_failed_lets_go_of_what_it_was_given():
    @runtime.remote
    class Failing:
        def fail(self, box):
            raise KeyError("at once")

        async def fail_later(self, box):
            raise KeyError("awaited")

    failing = Failing.remote()
    for call in (fail, failing.fail, failing.fail_later):
        holder = Holder.remote()
        runtime.wait([call.remote([holder])])
        del holder
        wait_until(lambda: not actor_processes())


def test_a_large_value_of_a_dead_owner_is_lost_and_says_so():
    @runtime.remote
    class Owner:
        def put(self):
            return [runtime.put(np.ones(100_000))]

    owner = Owner.remote()
    [ref] = runtime.get(owner.put.remote())
    array = runtime.get(ref)
    runtime.kill(owner)
    # An actor counts as dead once it is killed, a moment before its process has ended: until then the value is there.
    wait_until(lambda: is_lost(ref))
    with pytest.raises(runtime.OwnerDiedError):
        runtime.get(ref)
    assert (array == 1).all()


# Handles by name ------------------------------------------------------------------------------------------------------


@runtime.remote
class Owner:
    """Owns an actor with a name."""

    def create(self, name):
        self.holder = Holder.options(name=name, namespace="shared").remote("the owner's")
        return runtime.get(self.holder.get.remote())

    def drop(self):
        del self.holder
        tables()  # counts what was dropped: by now the node is told


def drop(owner):
    runtime.get(owner.drop.remote())


def kill(owner):
    runtime.kill(owner)
    wait_until(lambda: state.get_actor(owner).state == "DEAD")


def owner_of_x(monkeypatch, *ends):
    """Return the owner of an actor named "x"; it ends so once this process knows the actor and has no handle yet."""
    owner, values = Owner.remote(), current_engine().parts.values
    meanwhile = [partial(end, owner) for end in ends]  # the patch outlives the test, and must not keep its owner
    runtime.get(owner.create.remote("x"))
    borrow = values.borrow

    def borrow_late(object_id):
        while meanwhile:
            meanwhile.pop()()
        return borrow(object_id)

    monkeypatch.setattr(values, "borrow", borrow_late)
    return owner


@pytest.mark.parametrize("end", [drop, kill])
def test_an_actor_whose_last_handle_goes_just_before_ours_is_made_anew(monkeypatch, end):
    owner_of_x(monkeypatch, end)
    holder = Holder.options(name="x", namespace="shared", get_if_exists=True).remote("ours")
    assert runtime.get(holder.get.remote(), timeout=20) == "ours"


@pytest.mark.parametrize("end", [drop, kill])
def test_an_actor_whose_last_handle_goes_just_before_ours_is_not_found(monkeypatch, end):
    owner_of_x(monkeypatch, end)
    with pytest.raises(ValueError, match="no living actor"):
        runtime.get_actor("x", namespace="shared")


def test_a_handle_by_name_keeps_the_actor_alive(monkeypatch):
    owner = owner_of_x(monkeypatch)
    holder = Holder.options(name="x", namespace="shared", get_if_exists=True).remote("ours")
    found = runtime.get_actor("x", namespace="shared")
    drop(owner)
    assert runtime.get([holder.get.remote(), found.get.remote()], timeout=20) == ["the owner's"] * 2


# Tables ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_tables_do_not_grow_with_calls_and_actors():
    def use():
        holders = [Holder.remote(runtime.put(i)) for i in range(3)]
        runtime.get([holder.get.remote() for holder in holders] + [nothing.remote() for _ in range(20)])
        runtime.get([ask.remote([holder]) for holder in holders])

    before = tables()
    for _ in range(3):
        use()
        wait_until(lambda: tables() == before)
    wait_until(lambda: not actor_processes())


def test_a_borrower_forgets_actors_whose_handles_it_dropped():
    @runtime.remote
    class Borrower:
        def use(self, box):
            return runtime.get(box[0].get.remote())

        def links(self):
            return tables()["actors"]

    borrower = Borrower.remote()
    for i in range(5):
        assert runtime.get(borrower.use.remote([Holder.remote(i)])) == i
    wait_until(lambda: runtime.get(borrower.links.remote()) == 0)


def test_what_was_published_before_a_call_is_known_to_it():
    @runtime.remote
    class Reader:
        def read(self, key):
            return runtime.lookup(key)

    readers = [Reader.remote() for _ in range(3)]
    runtime.get([reader.read.remote("0") for reader in readers])
    for i in range(200):
        runtime.publish("key", i)
        assert runtime.get([reader.read.remote("key") for reader in readers]) == [i] * 3


def test_functions_are_forgotten_in_the_end():
    parts = current_engine().parts
    for i in range(300):

        def closure(i=i):
            return i

        assert runtime.get(runtime.remote(closure).remote()) == i
    assert len(parts.tasks.seconds) <= 256
    assert all(len(peer.functions) <= 256 for peer in parts.links.peers.values())


def test_blocks_freed_by_their_owner_do_not_outlive_their_maker():
    @runtime.remote
    class Maker:
        def make(self):
            return np.ones(200_000)

    node = current_engine()._node.pid

    def arenas():
        found = []
        for fd in os.listdir(f"/proc/{node}/fd"):
            try:
                found.append(os.readlink(f"/proc/{node}/fd/{fd}"))
            except OSError:
                continue
        return sum("shoal-arena" in target for target in found)

    before = arenas()
    maker = Maker.remote()
    ref = maker.make.remote()
    runtime.get(ref)
    assert arenas() == before + 1
    del ref
    gc.collect()
    tables()
    runtime.get(maker.make.remote())  # the maker has read by now that the first is free
    tables()
    runtime.get(nothing.remote())
    runtime.kill(maker)
    wait_until(lambda: arenas() == before)


def test_a_process_hears_of_deaths_before_its_birth():
    @runtime.remote
    class Owner:
        def make(self):
            return [runtime.put(1)]

    @runtime.remote
    class Late:
        def get(self, refs):
            return runtime.get(refs)

    owner = Owner.remote()
    refs = runtime.get(owner.make.remote())
    runtime.kill(owner)
    wait_until(lambda: not named_processes("Owner"))
    with pytest.raises(runtime.OwnerDiedError):
        runtime.get(Late.remote().get.remote(refs), timeout=20)


# While others wait ----------------------------------------------------------------------------------------------------


def test_a_result_does_not_wait_for_the_next_call_to_end(tmp_path):
    @runtime.remote
    class Waiter:
        def wait_for(self, path):
            while not os.path.exists(path):
                os.sched_yield()

    waiter, paths = Waiter.remote(), [tmp_path / "first", tmp_path / "second"]
    runtime.get(waiter.wait_for.remote(tmp_path))  # the method is known to be short now
    refs = [waiter.wait_for.remote(path) for path in paths]
    for ref, path in zip(refs, paths, strict=True):
        path.touch()
        runtime.get(ref, timeout=20)


def test_a_dropped_handle_ends_its_actor_though_another_thread_waits():
    gate = Gate.remote()
    waiting = threading.Thread(target=lambda: runtime.get(pass_gate.options(num_cpus=0).remote(gate, 1)))
    holder = Holder.options(num_cpus=2).remote()
    runtime.get(holder.get.remote())
    waiting.start()
    del holder
    wait_until(lambda: not actor_processes())
    gate.release.remote()
    waiting.join(10)
    assert not waiting.is_alive()
