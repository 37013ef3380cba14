"""What two ends of a line say to each other. Run by `test_transport` in a process of its own: gRPC keeps threads and
descriptors as long as its process lives.
"""

import contextlib
import json
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import grpc
import pytest

from shoal import runtime
from shoal.runtime.native.node import transport
from shoal.runtime.native.node.transport import Secrets, connect, serve
from shoal.runtime.native.protocol.local_sockets import SocketNames, accept, listen


@contextlib.contextmanager
def head() -> Iterator:
    """Yield the address of a head whose token is "right", and the local socket to which it connects nodes."""
    names = SocketNames.new("test-transport")
    with listen(names.node) as listener:
        address, server = serve("127.0.0.1:0", Secrets("right"), names.node)
        yield address, listener
        server.stop(None).wait()


@contextlib.contextmanager
def impostor(answer: Callable) -> Iterator[str]:
    """Yield the address of a server that answers each challenge so."""
    server = grpc.server(ThreadPoolExecutor(1))
    methods = {"Challenge": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shoal.Node", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def bytes_pass_in_both_directions():
    with head() as (address, listener), connect(address, Secrets("right")) as ours:
        listener.setblocking(True)
        with accept(listener) as theirs:
            ours.sendall(b"ping")
            assert theirs.recv(4) == b"ping"
            theirs.sendall(b"pong")
            assert ours.recv(4) == b"pong"


def a_node_without_the_token_is_not_let_in():
    with head() as (address, listener):
        with pytest.raises(runtime.InputError, match="the token is not that of the cluster"):
            connect(address, Secrets("guessed"))
        main, compare = threading.get_ident(), transport.hmac.compare_digest

        def careless(ours, theirs):
            return threading.get_ident() == main or compare(ours, theirs)

        with (
            mock.patch.object(transport.hmac, "compare_digest", careless),
            pytest.raises(runtime.InputError, match="refuses this node: the token is not that of this cluster"),
        ):
            connect(address, Secrets("guessed"))
        assert accept(listener) is None


def a_head_that_does_not_know_the_token_hears_nothing_of_it():
    for answer in (lambda nonce, context: b"", lambda nonce, context: nonce + bytes(48)):
        with (
            impostor(answer) as address,
            pytest.raises(runtime.InputError, match="the token is not that of the cluster"),
        ):
            connect(address, Secrets("right"))


def an_answer_that_the_head_gave_somebody_else_proves_nothing():
    with head() as (address, _):
        with grpc.insecure_channel(address) as channel:
            overheard = channel.unary_unary("/shoal.Node/Challenge")(b"n" * 16)
        with (
            impostor(lambda nonce, context: overheard) as elsewhere,
            pytest.raises(runtime.InputError, match="the token is not that of the cluster"),
        ):
            connect(elsewhere, Secrets("right"))


def a_proof_is_taken_once():
    with head() as (address, _), grpc.insecure_channel(address) as channel:
        nonces = channel.unary_unary("/shoal.Node/Challenge")(b"n" * 16)[:32]
        metadata = (("nonces-bin", nonces), ("proof-bin", transport._proof("right", "node", nonces)))
        join = channel.stream_stream("/shoal.Node/Join")
        codes = [join(iter(()), metadata=metadata).code() for _ in range(2)]
        # Let in without a version, which is looked at after the token; and not let in.
        assert codes == [grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAUTHENTICATED]


SCENARIOS = [
    bytes_pass_in_both_directions,
    a_node_without_the_token_is_not_let_in,
    a_head_that_does_not_know_the_token_hears_nothing_of_it,
    an_answer_that_the_head_gave_somebody_else_proves_nothing,
    a_proof_is_taken_once,
]


def main() -> None:
    """Run all; print what went wrong with each, "" for nothing, as JSON."""
    outcomes = {}
    for scenario in SCENARIOS:
        try:
            scenario()
            outcomes[scenario.__name__] = ""
        except BaseException:
            outcomes[scenario.__name__] = traceback.format_exc()
    json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    main()
