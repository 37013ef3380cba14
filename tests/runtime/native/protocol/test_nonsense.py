"""Whoever says what makes no sense loses the connection; node, driver and workers live on and do their work."""

import contextlib
import itertools
import os
import socket
import threading

import psutil
import pytest
from conftest import WORKERS_NEED, screen, wait_until
from nonsense import TYPES, Nonsense

from shoal import runtime
from shoal.runtime.core.engine import current_engine
from shoal.runtime.exceptions import NodeDiedError
from shoal.runtime.native.protocol import messages as m
from shoal.runtime.native.protocol.connection import Connection, Unreadable
from shoal.runtime.native.protocol.local_sockets import connect

# What would be done, and is meant to end the runtime or to change what workers import.
MEANT = {m.Shutdown, m.Preload}
# So many frames of each type, and none that asks for a worker with surroundings of its own, which is an interpreter of
# its own: 58 of them took more time than all the rest. The slow test has all frames, and from more seeds.
FAST = 3


class Stranger:
    """A process at the other end of a socket of the runtime, which the runtime has not started."""

    def __init__(self, name: str, *first: m.Message) -> None:
        sock = connect(name)
        sock.settimeout(10)
        self.connection = Connection(sock)
        sock.settimeout(10)
        for message in first:
            sock.sendall(m.encode(message))

    def answers(self, frame: bytes, question: m.Message, answer: type) -> bool:
        """Send a frame and then a question; return whether it is answered: else the other end has hung up."""
        sock = self.connection.sock
        with contextlib.suppress(ConnectionError):
            sock.sendall(frame)
            sock.sendall(m.encode(question))
        while True:
            messages = self.connection.receive_with_fds()
            if messages is None:
                return False
            if any(isinstance(message, answer) for message in messages):
                return True

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.connection.close()


@runtime.remote
class Adder:
    def add(self, a, b):
        return a + b


@runtime.remote
def double(x):
    return 2 * x


@pytest.fixture(scope="module")
def adder(checked_once):
    runtime.init("native", num_cpus=2, preload=WORKERS_NEED, listen="127.0.0.1:0")
    return Adder.remote()


@pytest.fixture
def program(adder):
    """A program that works, before and after."""
    assert runtime.get(adder.add.remote(1, 2)) == 3
    yield
    if not runtime.is_initialized():
        return
    assert runtime.get(adder.add.remote(3, 4), timeout=20) == 7
    assert runtime.get([double.remote(i) for i in range(4)], timeout=20) == [0, 2, 4, 6]
    assert runtime.get(Adder.remote().add.remote(b"a" * 200_000, b"b"), timeout=20)[-2:] == b"ab"
    wait_until(lambda: runtime.available_resources() == runtime.cluster_resources())


def frames(seed, ids, most=None):
    made = Nonsense(seed, ids, leave_out=(m.Environment,) if most == FAST else ())
    for kind in TYPES:
        if kind not in MEANT:
            yield from itertools.islice(made.frames(kind), most)


def links():
    return current_engine().parts.links


def own_id(number):
    """Return an id of this node that no process has."""
    return links().me[:4] + (0xFFFF0000 + number).to_bytes(4, "big")


def attack_node(seed, most=None):
    refused = 0
    ids = [own_id(seed), links().me[:4]]
    for frame in frames(seed, ids, most):
        with Stranger(links().names.node, m.Register(None)) as driver:
            refused += not driver.answers(frame, m.AskResources(), m.Answer)
    return refused


def attack_peer(process, seed, most=None):
    refused = 0
    for number, frame in enumerate(frames(seed, [process, own_id(seed)], most)):
        with Stranger(links().names.of(process), m.Hello(own_id(number))) as peer:
            refused += not peer.answers(frame, m.Request(b"no such object  "), m.Ready)
    return refused


def attack_head(seed, most=None):
    return sum(not a_head_answers_after(frame) for frame in frames(seed, [links().me[:4]], most))


def a_head_answers_after(frame):
    """Join the head as a node with one process that says this, and then passes a question on."""
    node = m.NodeInfo(b"\xff" + os.urandom(3), "elsewhere", 1, {"CPU": 10_000})
    process = node.id + b"proc"
    question = m.Pass(node.id, process, bytes(m.encode(m.AskNodes())[4:]))
    with Stranger(links().names.of(links().me[:4]), m.Join(node), m.ProcessMade(process)) as line:
        return line.answers(frame, question, m.Pass)


# A node would be the owner of what nobody would ever give back.
OF_PROCESSES = [
    m.CreateActor(b"an actor", "Any", {"CPU": 1}, 0, True, m.Job(), detached=True),
    m.CreateGroup(b"a group.", [{"CPU": 1}], "PACK", "", True),
]


@pytest.mark.parametrize("message", OF_PROCESSES)
def test_what_processes_ask_for_a_node_cannot_ask_for_itself(program, message):
    with screen():
        assert a_head_answers_after(b"")
        assert not a_head_answers_after(bytes(m.encode(message)))


@pytest.mark.parametrize("seed", range(5))
def test_bytes_that_are_no_message_are_told_from_those_that_are(seed):
    for frame in frames(seed, []):
        ours, theirs = socket.socketpair()
        with contextlib.closing(Connection(ours)) as connection, theirs:
            theirs.sendall(frame + bytes(m.encode(m.Exit())))
            first, *others = connection.receive()
            assert others == ([] if isinstance(first, Unreadable) else [m.Exit()])


def attack_actor(seed, most=None):
    link = next(iter(current_engine().parts.actor_calls.queues.values()))
    return attack_peer(link.process, seed, most)


def attack_driver(seed, most=None):
    return attack_peer(links().me, seed, most)


ATTACKS = [attack_node, attack_head, attack_driver, attack_actor]


@pytest.mark.parametrize("attack", ATTACKS)
def test_all_live_on(program, attack):
    with screen():
        assert attack(1, FAST) > 0


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("seed", range(2, 5))
def test_all_live_on_whatever_is_said(program, attack, seed):
    with screen():
        assert attack(seed) > 0


def test_an_actor_is_told_to_free_what_it_has_not_made_and_reads_on(program):
    """While the node, which it must not ask for anything now, is slow to answer."""
    actor = Adder.remote()
    assert runtime.get(actor.add.remote(1, 2)) == 3
    queues = current_engine().parts.actor_calls.queues
    process = queues[actor._actor.id].process
    free = bytes(m.encode(m.Free([m.Span(process, 5, 0, 10, 1)])))
    node = psutil.Process(links().welcome.node_pid)
    node.suspend()
    try:
        for number in range(3):
            with Stranger(links().names.of(process), m.Hello(own_id(number))) as peer:
                assert peer.answers(free, m.Request(b"no such object  "), m.Ready)
    finally:
        node.resume()
    assert runtime.get(actor.add.remote(3, 4), timeout=20) == 7


@runtime.remote
class Babbler:
    def __init__(self, frame):
        self.frame = frame

    def babble(self):
        """Say nonsense to the node, and wait for what comes of it."""
        links().node.sock.sendall(self.frame)
        threading.Event().wait()


FRAMES = {
    "no message": b"\1\0\0\0\xc1",
    "a driver's": bytes(m.encode(m.Shutdown())),
    "a node's": bytes(m.encode(m.NodeLoad({}, [], 0.0, 0))),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_a_worker_that_makes_no_sense_is_ended_and_its_caller_told(program, frame):
    with screen(), pytest.raises(runtime.ActorDiedError, match="is not understood"):
        runtime.get(Babbler.remote(frame).babble.remote(), timeout=10)


def test_a_worker_that_makes_no_sense_to_its_caller_is_ended(program):
    @runtime.remote(max_retries=0)
    def babble(driver):
        links().peer(driver).sock.sendall(b"\1\0\0\0\xc1")
        threading.Event().wait()

    with screen(), pytest.raises(runtime.WorkerCrashedError, match="is not understood"):
        runtime.get(babble.remote(links().me), timeout=10)


def test_a_driver_hears_why_the_node_hung_up(program):
    """That costs it its runtime, and not its life. The last test of this module."""
    with screen():
        links().node.sock.sendall(FRAMES["no message"])
        with pytest.raises(NodeDiedError, match="is not understood"):
            runtime.get(double.remote(1), timeout=10)
        runtime.shutdown()
