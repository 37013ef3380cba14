"""Who polls, and that nothing is taken from under whoever does."""

import errno
import os
import socket
import threading

from conftest import screen, wait_until

from shoal.runtime.native.driver.node_process import NodeProcess
from shoal.runtime.native.process import reactor as reactor_module
from shoal.runtime.native.process.reactor import Reactor
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
    reactor = Reactor("test-reader")
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
