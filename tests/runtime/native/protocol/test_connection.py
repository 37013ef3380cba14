"""Framing over a socket pair: frames cut anywhere, partial sends, descriptors beside messages."""

import os
import socket

import pytest

from shoal.runtime.native.protocol import messages as m
from shoal.runtime.native.protocol.connection import Connection

MESSAGES = [
    m.Exit(),
    m.Lookup("key"),
    m.Release(b"o" * 16, 3),
    m.Push(
        b"t" * 16,
        b"f" * 16,
        "name",
        m.Value(b"stream", (b"buffer", m.Span(b"maker", 1, 64, 10, 7)), (b"r" * 16,)),
        [m.Value(m.Span(b"maker", 1, 0, 99, 1), failed=True)],
        2,
    ),
    m.Publish("k" * 300, b"\0" * 70_000),
]


class Pair:
    def __init__(self):
        self.wishes = []
        ours, self.raw = socket.socketpair()
        self.connection = Connection(ours, lambda connection, wanted: self.wishes.append(wanted))
        self.raw.setblocking(False)

    def read_all(self):
        data = b""
        while True:
            try:
                chunk = self.raw.recv(1 << 20)
            except BlockingIOError:
                return data
            data += chunk

    def close(self):
        self.connection.close()
        self.raw.close()


@pytest.fixture
def pair():
    pair = Pair()
    yield pair
    pair.close()


def frames(messages):
    return b"".join(m.encode(message) for message in messages)


def receive_from(data, pieces):
    """Return what a connection receives of data that arrives in pieces."""
    pair = Pair()
    try:
        received = []
        for start, end in zip((0, *pieces), (*pieces, len(data)), strict=True):
            pair.raw.send(data[start:end])
            received += pair.connection.receive()
        return received
    finally:
        pair.close()


def test_every_message_survives():
    assert receive_from(frames(MESSAGES), ()) == MESSAGES


def test_frames_cut_at_every_byte():
    data = frames(MESSAGES[:4])
    for cut in range(1, len(data)):
        assert receive_from(data, (cut,)) == MESSAGES[:4]


def test_frames_that_arrive_byte_by_byte():
    data = frames(MESSAGES[:4])
    assert receive_from(data, tuple(range(1, len(data)))) == MESSAGES[:4]


def test_nothing_there_is_no_end_and_the_end_is_told_after_the_last_message(pair):
    assert pair.connection.receive() == []
    pair.raw.send(frames(MESSAGES[:1]))
    pair.raw.close()
    assert pair.connection.receive() == MESSAGES[:1]
    assert pair.connection.receive() is None


def test_posted_messages_go_out_together_in_order(pair):
    for message in MESSAGES:
        pair.connection.post(message)
    pair.connection.flush()
    assert pair.read_all() == frames(MESSAGES)
    assert not pair.connection.blocked


def test_a_full_socket_keeps_the_rest_and_asks_once_for_room(pair):
    sent = [m.Publish(str(number), os.urandom(50_000)) for number in range(40)]
    for message in sent:
        pair.connection.send(message)
    assert pair.connection.blocked
    assert pair.wishes == [True]
    data = b""
    while pair.connection.blocked:
        data += pair.read_all()
        pair.connection.flush()
    assert data + pair.read_all() == frames(sent)
    assert pair.wishes == [True, False]


def test_sending_to_the_dead_is_silent_and_closes_descriptors(pair):
    pair.raw.close()
    read, write = os.pipe()
    pair.connection.send(m.NewArena(), (write,))
    pair.connection.send(m.Exit())
    assert not pair.connection.blocked
    assert os.read(read, 1) == b""
    os.close(read)


def test_after_close_nothing_is_kept(pair):
    pair.connection.close()
    pair.connection.send(m.Exit())
    pair.connection.post(m.Exit())
    pair.connection.flush()
    assert not pair.connection.blocked


def test_descriptors_travel_beside_their_messages(pair):
    other = Connection(pair.raw)
    pipes = [os.pipe() for _ in range(3)]
    for number, (_, write) in enumerate(pipes):
        pair.connection.post(m.Lookup(str(number)))
        pair.connection.send(m.NewArena(), (write,))
    received = []
    while len(received) < 6:
        received += other.receive_with_fds()
    assert received == [item for number in range(3) for item in (m.Lookup(str(number)), m.NewArena())]
    for number, (read, _) in enumerate(pipes):
        fd = other.fds.popleft()
        os.write(fd, str(number).encode())
        os.close(fd)
        assert os.read(read, 10) == str(number).encode()
        assert os.read(read, 1) == b"", "the sender has kept its descriptor"
        os.close(read)


def test_descriptors_wait_with_their_message_for_room(pair):
    other = Connection(pair.raw)
    for _ in range(40):
        pair.connection.send(m.Publish("", bytes(50_000)))
    read, write = os.pipe()
    pair.connection.send(m.NewArena(), (write,))
    received = []
    while len(received) < 41:
        received += other.receive_with_fds()
        pair.connection.flush()
    os.close(other.fds.popleft())
    assert os.read(read, 1) == b""
    os.close(read)


def test_descriptors_that_nobody_took_are_closed(pair):
    other = Connection(pair.raw)
    read, write = os.pipe()
    pair.connection.send(m.NewArena(), (write,))
    other.receive_with_fds()
    other.close()
    assert os.read(read, 1) == b""
    os.close(read)
