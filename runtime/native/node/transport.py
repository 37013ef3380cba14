"""The line between two nodes: a gRPC stream that carries the bytes of a socket.

A node's loop sees a socket and nothing else: gRPC's threads only move bytes between that and the stream, so framing,
buffering and the end of a connection are those of every other connection. A full socket holds its stream up, and
HTTP/2 the other end. gRPC's pings find a machine that has vanished.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import os
import socket
import sys
import threading
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from ...exceptions import InputError, NodeDiedError
from ..protocol import local_sockets
from .cluster import MOST_NODES

_SERVICE, _CHALLENGE, _JOIN = "shoal.Node", "Challenge", "Join"
_NONCE_BYTES = 16
_CHUNK = 1 << 18
# Threads besides those of nodes that are there: one that is refused is to hear it.
_SPARE_THREADS = 8
_CONNECT_SECONDS = 20
# gRPC ignores options that it does not know, so a test looks each of them up in the library.
OPTIONS = [
    # A ping after 5 s of silence and 10 s to answer it: a machine that has vanished is missed after 15 s. Both time
    # limits are needed: gRPC 1.85 waits for the answer to a ping as long as the second one says, by default 60 s.
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Or else the head hangs up on a node that pings more often than every five minutes without sending anything.
    ("grpc.http2.min_ping_interval_without_data_ms", 2_000),
    ("grpc.so_reuseport", 0),
]


class Secrets(msgspec.Struct):
    """What lets a node in: the session's token, and for mutual TLS the paths of three files in PEM format.

    Attributes:
        token: random text that both sides know.
        ca: certificates of who may sign the other side's certificate.
        certificate, key: this side's own.
    """

    token: str
    ca: str = ""
    certificate: str = ""
    key: str = ""

    @classmethod
    def from_environment(cls, token: str) -> Secrets:
        """Return the token with the files that SHOAL_TLS_CA, SHOAL_TLS_CERTIFICATE and SHOAL_TLS_KEY name.

        Raises:
            InputError: some but not all of them are given.
        """
        names = ("SHOAL_TLS_CA", "SHOAL_TLS_CERTIFICATE", "SHOAL_TLS_KEY")
        files = [os.environ.get(name, "") for name in names]
        if any(files) and not all(files):
            missing = ", ".join(name for name, path in zip(names, files, strict=True) if not path)
            raise InputError(f"TLS between nodes needs {', '.join(names)}: missing is {missing}")
        return cls(token, *files)

    def read_files(self) -> tuple[bytes, bytes, bytes]:
        """Return the contents of ca, key and certificate."""
        contents = []
        for path in (self.ca, self.key, self.certificate):
            with open(path, "rb") as file:
                contents.append(file.read())
        return contents[0], contents[1], contents[2]


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of "HOST:PORT".

    Raises:
        InputError: it is not of that form.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65_535:
        raise InputError(f"{text!r} is no address: want HOST:PORT, such as 127.0.0.1:6379 (port 0: any free one)")
    return host, int(port)


def warn_if_readable(what: str, address: str, secrets: Secrets) -> None:
    """Warn if what nodes say at an address can be read, and changed, by others on the network."""
    host = parse_address(address)[0].strip("[]")
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    if host != "localhost" and not secrets.key:
        warnings.warn(
            f"{what}={address!r} without TLS: whoever can read or change what passes on that network can run code as "
            "this user. Use it in a network of your own, or set SHOAL_TLS_CA, SHOAL_TLS_CERTIFICATE and SHOAL_TLS_KEY "
            "on all nodes",
            RuntimeWarning,
            stacklevel=2,
        )


def _proof(token: str, who: str, nonces: bytes) -> bytes:
    """Return a proof over these numbers that needs the token, without the token itself on the line."""
    return hmac.digest(token.encode(), who.encode() + nonces, "sha256")


def _version() -> str:
    from importlib import metadata  # slow to import, as gRPC is, and only needed by several nodes

    return f"shoal {metadata.version('shoal')}, Python {sys.version_info.major}.{sys.version_info.minor}"


def serve(listen: str, secrets: Secrets, target: str) -> tuple[str, Any]:
    """Accept nodes: each stream becomes a connection to the local socket `target`.

    Returns:
        (the address listened on, the server: it serves as long as that is held).

    Raises:
        InputError: the address cannot be listened on.
    """
    import grpc

    asked: deque[bytes] = deque(maxlen=MOST_NODES)

    def challenge(theirs: bytes, context: Any) -> bytes:
        nonces = theirs[:_NONCE_BYTES] + os.urandom(_NONCE_BYTES)
        asked.append(nonces)
        return nonces + _proof(secrets.token, "head", nonces)

    def join(chunks: Iterable[bytes], context: Any) -> Iterator[bytes]:
        given = dict(context.invocation_metadata())
        # Before anything that the caller sent is looked at, and in constant time.
        nonces = given.get("nonces-bin", b"")
        proven = hmac.compare_digest(given.get("proof-bin", b""), _proof(secrets.token, "node", nonces))
        try:
            asked.remove(nonces)
        except ValueError:
            proven = False
        if not proven:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is not that of this cluster")
        if given.get("version") != _version():
            wrong = f"this node runs {given.get('version')}, the head {_version()}: they must be the same"
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, wrong)
        context.send_initial_metadata(())
        with local_sockets.connect(target) as sock:
            mover = threading.Thread(target=_into_socket, args=(chunks, sock), daemon=True)
            mover.start()
            yield from _out_of_socket(sock)
            context.cancel()
            mover.join()

    server = grpc.server(ThreadPoolExecutor(MOST_NODES + _SPARE_THREADS, "shoal-nodes"), options=OPTIONS)
    methods = {
        _CHALLENGE: grpc.unary_unary_rpc_method_handler(challenge),
        _JOIN: grpc.stream_stream_rpc_method_handler(join),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, methods),))
    host, _ = parse_address(listen)
    try:
        if secrets.key:
            ca, key, certificate = secrets.read_files()
            credentials = grpc.ssl_server_credentials([(key, certificate)], ca, require_client_auth=True)
            port = server.add_secure_port(listen, credentials)
        else:
            port = server.add_insecure_port(listen)
    except (RuntimeError, OSError) as error:
        raise InputError(f"cannot listen for nodes on {listen}: {error}") from None
    server.start()
    return f"{host}:{port}", server


def connect(address: str, secrets: Secrets) -> socket.socket:
    """Return a socket whose other end is the head's.

    Both sides prove that they know the token before anything else is said: who listens there may have taken the port
    of a head that has ended.

    Raises:
        InputError: the head refuses this node, or it is none.
        NodeDiedError: nobody answers there.
    """
    import grpc

    if secrets.key:
        credentials = grpc.ssl_channel_credentials(*secrets.read_files())
        channel = grpc.secure_channel(address, credentials, OPTIONS)
    else:
        channel = grpc.insecure_channel(address, OPTIONS)
    try:
        grpc.channel_ready_future(channel).result(_CONNECT_SECONDS)
    except grpc.FutureTimeoutError:
        why = "Is it running, and is the port open to this machine? With TLS: do both sides use it?"
        raise NodeDiedError(f"no head answers at {address} (waited {_CONNECT_SECONDS} s). {why}") from None
    nonce = os.urandom(_NONCE_BYTES)
    try:
        answer = channel.unary_unary(f"/{_SERVICE}/{_CHALLENGE}")(nonce, timeout=_CONNECT_SECONDS)
    except grpc.RpcError as error:
        raise InputError(f"who answers at {address} is no head of a cluster: {error.details()}") from None
    nonces, proof = answer[: 2 * _NONCE_BYTES], answer[2 * _NONCE_BYTES :]
    # With our own number in it, or else it might be the answer that a head, now gone, has given somebody else.
    if not nonces.startswith(nonce) or not hmac.compare_digest(proof, _proof(secrets.token, "head", nonces)):
        raise InputError(f"the token is not that of the cluster at {address}")
    metadata = (("nonces-bin", nonces), ("proof-bin", _proof(secrets.token, "node", nonces)), ("version", _version()))
    ours, theirs = socket.socketpair()
    call = channel.stream_stream(f"/{_SERVICE}/{_JOIN}")(_out_of_socket(theirs), metadata=metadata)
    call.initial_metadata()
    if not call.is_active():
        raise InputError(f"the head at {address} refuses this node: {call.details()}")
    # The channel lives as long as something holds it.
    threading.Thread(target=_into_socket, args=(call, theirs, channel), daemon=True).start()
    return ours


def _out_of_socket(sock: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(OSError):
        while chunk := sock.recv(_CHUNK):
            yield chunk


def _into_socket(chunks: Iterable[bytes], sock: socket.socket, channel: Any = None) -> None:
    import grpc

    try:
        for chunk in chunks:
            sock.sendall(chunk)
    except (grpc.RpcError, OSError):
        pass  # whoever reads the socket sees its end
    finally:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
