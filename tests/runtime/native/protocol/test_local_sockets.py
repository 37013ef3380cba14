"""Only this user's processes talk to each other: names cannot be guessed, and who calls or is called is checked."""

import os
import signal
import socket

import pytest
from conftest import wait_until
from other_user import another_user, needs_root

from shoal import runtime
from shoal.runtime.core.engine import current_engine
from shoal.runtime.native.protocol import loop as loop_module
from shoal.runtime.native.protocol.local_sockets import SocketNames, accept, connect, listen, node_name, peer_pid
from shoal.runtime.native.protocol.observer import observe, sessions

LISTEN = """
listening = []
for name in sys.argv[1:]:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind("\\0" + name)
    sock.listen()
    listening.append(sock)
print("listening", flush=True)
sock.accept()[0].recv(1)
"""
# Answers each question for an object with a pickle that opens a file for writing.
ANSWER = (
    LISTEN.replace("sys.argv[1:]", "sys.argv[1:2]").rpartition("sock.accept")[0]
    + """
import pickle

class Evil:
    def __reduce__(self):
        return open, (sys.argv[2], "w")

while True:
    connection = Connection(sock.accept()[0])
    while (messages := connection.receive()) is not None:
        for message in messages:
            if isinstance(message, m.Request):
                connection.send(m.Ready(message.object, m.Value(pickle.dumps(Evil()))))
"""
)


@pytest.fixture
def names():
    return SocketNames.new(f"test-{os.urandom(6).hex()}")


def test_the_name_of_a_process_to_come_cannot_be_guessed():
    names, others = SocketNames.new("session"), SocketNames.new("session")
    process = b"node" + (7).to_bytes(4, "big")
    assert names.of(process) == SocketNames("session", names.key).of(process)
    assert names.of(process) != others.of(process)
    assert process.hex() not in names.of(process)
    assert names.key not in names.of(process)
    assert names.node == others.node == node_name("session")


def test_this_user_is_let_in_and_connects(names):
    with listen(names.node) as listener, connect(names.node) as ours:
        assert peer_pid(ours) == os.getpid()
        theirs = accept(listener)
        theirs.sendall(b"hello")
        assert ours.recv(5) == b"hello"
        theirs.close()
        assert accept(listener) is None  # nobody else calls


def test_who_does_not_say_who_it_is_is_hung_up_on_after_a_while(names, monkeypatch):
    monkeypatch.setattr(loop_module, "_STRANGER_SECONDS", 0.0)
    loop, callers = loop_module.Loop(), []

    def came(connection):
        connection.peer = b"process1" if callers else None
        callers.append(connection)

    with listen(names.node) as listener, connect(names.node) as stranger, connect(names.node):
        stranger.settimeout(2)
        loop.let_in(listener, came)
        for _ in range(3):
            loop.poll(0)
        assert stranger.recv(1) == b""
        assert callers[0].receive() is None
        assert callers[1].receive() == []
        for connection in callers:
            connection.close()
    loop._epoll.close()


def test_a_full_queue_holds_nobody_up(names):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(names.node)
        listener.listen(0)
        with connect(names.node), pytest.raises(BlockingIOError):
            connect(names.node, patience=0.01)


@needs_root
def test_another_user_who_listens_is_not_talked_to(names):
    with another_user(LISTEN, names.node[1:]), pytest.raises(PermissionError, match="belongs to user 65534"):
        connect(names.node)


@needs_root
def test_another_users_runtime_is_neither_listed_nor_asked(names):
    with another_user(LISTEN, names.node[1:]):
        assert names.session not in {session.name for session in sessions()}
        with pytest.raises(runtime.InputError, match="there is no runtime"):
            observe(names.session, [], 1)


@runtime.remote
class Owner:
    def make(self):
        return [runtime.put(1)]

    def pid(self):
        return os.getpid()


@runtime.remote
def read(refs):
    return runtime.get(refs[0], timeout=10)


@needs_root
def test_another_user_who_took_a_dead_workers_name_answers_nothing(native, tmp_path):
    owner = Owner.remote()
    refs = runtime.get(owner.make.remote())
    links = current_engine().parts.links
    name = links.names.of(refs[0].id[:8])
    os.kill(runtime.get(owner.pid.remote()), signal.SIGKILL)
    wait_until(lambda: refs[0].id[:8] in links.dead)
    trap = tmp_path / "trap"
    with another_user(ANSWER, name[1:], str(trap)), pytest.raises(runtime.OwnerDiedError):
        runtime.get(read.remote(refs))
    assert not trap.exists()


@needs_root
def test_actors_start_though_another_user_has_taken_the_names_that_ids_suggest(native):
    links = current_engine().parts.links
    node, number = links.me[:4], int.from_bytes(links.me[4:], "big")
    next_ids = [node + (number + i).to_bytes(4, "big") for i in range(1, 50)]
    with another_user(LISTEN, *(f"shoal-{links.names.session}-{process.hex()}" for process in next_ids)):
        assert runtime.get(Owner.remote().pid.remote(), timeout=10)
