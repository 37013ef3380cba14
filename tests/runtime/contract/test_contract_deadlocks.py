"""The contract of waits that can never end: they raise in those who wait for one another, and nowhere else."""

import os
import signal

import pytest
from conftest import wait_until
from gates import Gate, pass_gate

from shoal import runtime

pytestmark = pytest.mark.slow


@runtime.remote
class Peer:
    def __init__(self):
        self.other = None

    def meet(self, other):
        self.other = other

    def ask(self):
        return runtime.get(self.other.ask.remote())

    def ask_by_wait(self):
        return runtime.wait([self.other.ask.remote()])

    def ask_with_timeout(self, gate):
        gate.release.remote()
        return runtime.get(self.other.ask.remote(), timeout=60)

    def ask_about(self, refs):
        return runtime.get(refs)

    def iterate(self):
        return runtime.get(list(self.other.values.remote()))

    def values(self):
        yield 1

    def answer(self):
        return "answer"

    def pid(self):
        return os.getpid()


def pair():
    first, second = Peer.remote(), Peer.remote()
    runtime.get([first.meet.remote(second), second.meet.remote(first)])
    return first, second


@pytest.mark.parametrize("wait", ["ask", "iterate"])
def test_an_actor_that_waits_for_itself_raises(engine, wait):
    peer = Peer.remote()
    runtime.get(peer.meet.remote(peer))
    with pytest.raises(runtime.exceptions.DeadlockError, match=rf"Peer\.{wait}"):
        runtime.get(getattr(peer, wait).remote(), timeout=20)
    assert runtime.get(peer.answer.remote()) == "answer"


def test_two_actors_that_wait_for_each_other_raise_and_live_on(engine):
    first, second = pair()
    with pytest.raises(runtime.exceptions.DeadlockError) as caught:
        runtime.get(first.ask.remote(), timeout=20)
    assert "max_concurrency" in str(caught.value) or "serial engine" in str(caught.value)
    assert runtime.get([first.answer.remote(), second.answer.remote()], timeout=20) == ["answer"] * 2


def test_the_error_names_the_whole_cycle(processes):
    first, second = pair()
    with pytest.raises(runtime.exceptions.DeadlockError) as caught:
        runtime.get(first.ask.remote(), timeout=20)
    for peer in (first, second):
        assert f"Peer.ask (pid {runtime.get(peer.pid.remote())}) waits for Peer.ask" in str(caught.value)


def test_a_cycle_of_three_through_a_task_raises(processes):
    @runtime.remote
    def ask(peer):
        return runtime.get(peer.ask.remote())

    peer, first = Peer.remote(), Peer.remote()
    runtime.get([peer.meet.remote(first), first.meet.remote(peer)])
    with pytest.raises(runtime.exceptions.DeadlockError):
        runtime.get(ask.remote(peer), timeout=20)


def test_wait_is_part_of_a_cycle_too(processes):
    first, _second = pair()
    with pytest.raises(runtime.exceptions.DeadlockError):
        runtime.get(first.ask_by_wait.remote(), timeout=20)


def test_a_get_with_a_timeout_goes_on_by_itself_and_is_no_cycle(processes):
    gate = Gate.remote()
    first, second = pair()
    asked = first.ask_with_timeout.remote(gate)
    wait_until(lambda: runtime.get(gate.is_open.remote()))
    assert runtime.wait([asked], timeout=2.5)[0] == []
    runtime.kill(second)
    with pytest.raises(runtime.ActorDiedError):
        runtime.get(asked, timeout=20)


def test_long_chains_and_slow_answers_are_no_cycles(processes):
    gate = Gate.remote()
    slow = pass_gate.options(num_cpus=0).remote(gate, "value")
    peers = [Peer.remote() for _ in range(3)]
    asked = peers[0].ask_about.remote([slow])
    for peer in peers[1:]:
        asked = peer.ask_about.remote([asked])
    assert runtime.wait([asked], timeout=2.5)[0] == [], "they wait long enough to be looked at more than once"
    gate.release.remote()
    assert runtime.get(asked, timeout=20) == [[["value"]]]


def test_killing_one_of_a_cycle_frees_the_other(processes):
    first, second = pair()
    asked = first.ask.remote()
    runtime.kill(second)
    with pytest.raises((runtime.ActorDiedError, runtime.exceptions.DeadlockError)):
        runtime.get(asked, timeout=20)
    assert runtime.get(first.answer.remote(), timeout=20) == "answer"


def test_a_process_of_a_cycle_that_is_killed_frees_the_other(processes):
    first, second = pair()
    pid = runtime.get(second.pid.remote())
    asked = first.ask.remote()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises((runtime.ActorDiedError, runtime.exceptions.DeadlockError)):
        runtime.get(asked, timeout=20)
