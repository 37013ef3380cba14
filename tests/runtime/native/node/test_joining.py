"""Who is in a cluster, as its head sees it: nodes that exist as sockets only."""

import contextlib
import socket
import time

import pytest

from shoal.runtime.native.node import cluster as cluster_module
from shoal.runtime.native.node.cluster import Cluster
from shoal.runtime.native.protocol import messages as m
from shoal.runtime.native.protocol.connection import Connection
from shoal.runtime.native.protocol.loop import Loop


class Head:
    """The head of a cluster of at most three nodes more."""

    def __init__(self, name=b"head"):
        self.loop, self.lost, self.received, self._sockets = Loop(), [], [], contextlib.ExitStack()
        info = m.NodeInfo(name, "here", 1, {})
        self.cluster = Cluster(info, {}, self.loop, self._receive, self.lost.append, lambda news: None)
        self.cluster.welcome = m.Welcome([], "", {})

    def _receive(self, sender, message):
        handler = self.cluster.handlers.get(type(message))
        if handler is None:
            self.received.append((sender, message))
        else:
            handler(sender, message)

    def join(self, name, *messages):
        """Have a node join and say something; return its socket."""
        ours, theirs = (self._sockets.enter_context(sock) for sock in socket.socketpair())
        theirs.settimeout(2)
        line = Connection(ours)
        self.loop.watch(ours.fileno(), lambda mask: self.cluster._read(line))
        self.say(theirs, m.Join(m.NodeInfo(name, "there", 2, {})), *messages)
        return theirs

    def say(self, sock, *messages):
        sock.sendall(b"".join(map(m.encode, messages)))
        self.loop.poll(0)

    def leave(self, sock):
        sock.close()
        self.loop.poll(0)


@pytest.fixture
def head(monkeypatch):
    monkeypatch.setattr(cluster_module, "MOST_NODES", 3)
    head = Head()
    with head._sockets:
        yield head
    head.loop._epoll.close()


def asks(process):
    return m.Pass(b"head", process, bytes(m.encode(m.AskResources())[4:]))


def test_the_head_does_what_is_said_for_processes_that_it_was_told_of_until_they_end(head):
    line = head.join(b"node", m.ProcessMade(b"node0001"))
    assert head.cluster.lives(b"node0001")
    assert not head.cluster.lives(b"node0002")
    head.say(line, asks(b"node0002"), asks(b"node0001"))
    assert head.received == [(b"node0001", m.AskResources())]
    head.say(line, m.ProcessDied(b"node0001", "it ended"), asks(b"node0001"))
    assert not head.cluster.lives(b"node0001")
    assert len(head.received) == 1


def test_a_node_that_is_not_heard_any_more_is_hung_up_on(head, monkeypatch):
    monkeypatch.setattr(cluster_module, "_MOST_SILENT", 2)
    silent, beating = head.join(b"nod1", m.ProcessMade(b"nod1proc")), head.join(b"nod2")
    for nodes_before in ([b"head", b"nod1", b"nod2"],) * 3:
        assert list(head.cluster.nodes) == nodes_before
        head.say(beating, m.StillHere())
        head.cluster.look_for_silent()
    assert list(head.cluster.nodes) == [b"head", b"nod2"]
    assert "it has said nothing for 20 s" in head.lost[0].reason
    silent.recv(1000)
    assert silent.recv(1000) == b""


def test_a_head_that_was_stopped_itself_does_not_take_its_nodes_for_dead(head, monkeypatch):
    head.join(b"node")
    head.cluster.look_for_silent()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1000)
    head.loop.poll(0)  # in which it looks once
    assert list(head.cluster.nodes) == [b"head", b"node"]


def test_a_node_that_has_joined_says_that_it_is_there(head):
    line = head.join(b"node")
    member = Head(b"memb")
    ours, theirs = (head._sockets.enter_context(sock) for sock in socket.socketpair())
    theirs.sendall(m.encode(m.Welcome([m.NodeInfo(b"head", "here", 1, {})], "", {})))
    member.cluster.join(ours)
    connection = Connection(theirs)
    kinds = [type(message) for message in connection.receive()]
    assert kinds == [m.Join, m.StillHere]
    head.say(line, m.StillHere())
    assert b"node" in head.cluster.nodes
    member.loop._epoll.close()


def test_with_a_node_end_its_processes(head):
    line = head.join(b"node", m.ProcessMade(b"node0001"))
    head.leave(line)
    assert [death.process for death in head.lost] == [b"node0001"]
    assert not head.cluster.lives(b"node0001")


def test_nodes_come_and_go_and_the_latest_are_remembered(head):
    for number in range(50):
        head.leave(head.join(b"nod%d" % (number % 10)))
    assert len(head.cluster.dead) == 3
    assert list(head.cluster.nodes) == [b"head"]


def test_a_cluster_takes_so_many_nodes_at_one_time_and_hangs_up_on_one_more(head):
    lines = [head.join(b"nod%d" % number) for number in range(3)]
    late = head.join(b"late")
    assert late.recv(1000) == b""
    assert len(head.cluster.nodes) == 4
    head.leave(lines[0])
    assert head.join(b"late").recv(1000)
