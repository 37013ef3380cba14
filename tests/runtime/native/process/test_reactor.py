"""Who polls, and that nothing is taken from under whoever does."""

import errno
import io
import os
import select
import socket
import sys
import threading
import time

import pytest
from conftest import screen, wait_until

from shoal.runtime.native.driver.node_process import NodeProcess
from shoal.runtime.native.process import reactor as reactor_module
from shoal.runtime.native.process.reactor import Reactor
from shoal.runtime.native.protocol import messages as m
from shoal.runtime.native.protocol.connection import Connection
from shoal.runtime.native.protocol.local_sockets import accept


class Gate:
    """A pipe whose reader waits until it is let go."""

    def __init__(self, reactor):
        self.read, self.write = os.pipe()
        self.entered, self.open = threading.Event(), threading.Event()
        reactor.watch(self.read, self.handle)

    def handle(self, mask):
        os.read(self.read, 1)
        self.entered.set()
        self.open.wait()

    def close(self):
        os.close(self.read)
        os.close(self.write)


def test_a_reactor_that_is_closed_while_a_thread_polls_keeps_its_descriptors_until_that_leaves(monkeypatch):
    monkeypatch.setattr(reactor_module, "_CLOSE_SECONDS", 0.01)
    reactor = Reactor("test-reader", [], lambda connection, nonsense: None)
    first, second = Gate(reactor), Gate(reactor)
    with screen() as shown:
        os.write(first.write, b"x")
        first.entered.wait()
        os.write(second.write, b"x")
        reactor._wake_poll()  # found by the same poll as the line above, after it
        first.open.set()
        second.entered.wait()
        reactor.close()
        second.open.set()
        reactor._thread.join()
        assert shown.getvalue() == ""
    wait_until(lambda: reactor._epoll.closed)
    first.close()
    second.close()


def test_what_arrives_is_read_by_who_attends_and_by_the_reactors_own_thread_while_that_is_kept():
    reactor = Reactor("test-reader", [], lambda connection, nonsense: None)
    ours, theirs = os.pipe()
    readers = []
    reactor.watch(ours, lambda mask: readers.append((os.read(ours, 1), threading.current_thread())))
    attending, kept, other_poll = True, threading.Event(), select.poll()
    reactor.attend(True)
    other_poll.register(reactor, select.POLLIN)

    def attend():
        while attending:
            if other_poll.poll(10):
                reactor.read_arrived()
            kept.wait()

    loop = threading.Thread(target=attend)
    kept.set()
    loop.start()
    try:
        for _ in range(5):  # with a moment between them in which the reactor's own thread rests, or waits, too
            os.write(theirs, b"x")
            time.sleep(0.005)
        wait_until(lambda: len(readers) == 5)
        assert (b"x", loop) in readers
        kept.clear()  # its code computes
        time.sleep(0.02)
        os.write(theirs, b"y")
        wait_until(lambda: len(readers) == 6)
        assert readers[-1] == (b"y", reactor._thread)
    finally:
        attending = False
        kept.set()
        loop.join()
    reactor.close()
    os.close(ours)
    os.close(theirs)


@pytest.fixture
def reactor():
    reactor = Reactor("test-reader", [], lambda connection, nonsense: None)
    yield reactor
    reactor.close()


@pytest.fixture
def line(reactor):
    """A connection that is only written to, and the other end."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(2)
    connection = Connection(ours)
    with theirs:
        yield connection, theirs
    connection.close()


def say(reactor, connection):
    connection.post(m.Exit())
    reactor.flush_soon(connection)


def while_a_wake_is_read(monkeypatch, action):
    """Have another thread, as it were, act between the two steps of the next reading of a wake."""
    read, actions = os.eventfd_read, [action]

    def eventfd_read(fd):
        if actions:
            actions.pop()()
        return read(fd)

    monkeypatch.setattr(os, "eventfd_read", eventfd_read)


def test_what_is_said_while_the_reactors_own_thread_reads_for_who_attends_is_sent(reactor, line):
    reactor.attend(True)
    time.sleep(0.05)  # in which it has heard of that
    gate = Gate(reactor)
    gate.open.set()
    os.write(gate.write, b"x")  # nobody comes, so the reactor's own thread reads, and then waits for more
    assert gate.entered.wait(2)
    wait_until(lambda: reactor._in_poll)
    connection, theirs = line
    say(reactor, connection)
    assert theirs.recv(100)
    gate.close()


def test_what_is_said_while_who_attends_reads_is_sent_when_it_comes_once_more(reactor, line, monkeypatch):
    reactor.attend(True)
    wait_until(lambda: not reactor._nudged or select.select([reactor], [], [], 0)[0])
    connection, theirs = line
    while_a_wake_is_read(monkeypatch, lambda: say(reactor, connection))
    reactor.nudge()
    while not reactor.read_arrived():
        pass
    if select.select([reactor], [], [], 0)[0]:  # else it was sent already, by the reactor's own thread
        reactor.read_arrived()
    assert theirs.recv(100)


def test_a_listener_that_is_closed_has_no_callers():
    listener = socket.socket()
    listener.close()
    assert accept(listener) is None


def test_a_nodes_voice_that_is_closed_meanwhile_says_nothing(monkeypatch):
    def closed(fd, size):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    node = NodeProcess.__new__(NodeProcess)
    with open(os.devnull, "rb") as node._errors:
        monkeypatch.setattr(os, "read", closed)
        assert not node.read()


def test_what_cannot_be_shown_ends_nothing(reactor, monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    reactor.call_later(0, lambda: 1 / 0)
    called = threading.Event()
    time.sleep(0.01)
    reactor.call_later(0, called.set)
    assert called.wait(2)
