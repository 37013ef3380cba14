"""A served policy over HTTP."""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from conftest import wait_until
from gymnasium import spaces

from shoal import runtime
from shoal.envs import is_loopback, parse_address
from shoal.rl import Answer, Policy, ServerBusyError, ServerClosedError, serve
from shoal.rl.serving.connections import Limits
from shoal.rl.serving.http import listen_for_observations
from shoal.rl.serving.http_app import make_app
from shoal.rl.serving.http_guard import Access
from shoal.runtime import InputError


@pytest.fixture
def served():
    runtime.init(engine="serial")
    policy = Policy(spaces.Box(-1.0, 1.0, (4,), np.float32), spaces.Discrete(3), seed=1)
    with serve(policy, max_batch_size=8) as made:
        yield made


def ask(served, method, path, *, access=None, most_numbers=100, bodies_in_all=1 << 20, **options):
    """Send one request to the application, without a server."""
    app = make_app(served, access=access, most_numbers=most_numbers, bodies_in_all=bodies_in_all)

    async def send():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shoal") as client:
            return await client.request(method, path, **options)

    return asyncio.run(send())


def observing(text):
    return f'{{"observation": {text}}}'


def nested(depth):
    return "[" * depth + "1" + "]" * depth


def test_one_observation_and_a_batch(served):
    one = ask(served, "POST", "/act", json={"observation": [0, 0, 0, 0]})
    assert one.status_code == 200
    assert one.headers["content-type"] == "application/json"
    assert one.json()["action"] in (0, 1, 2)
    assert one.json()["version"] == 0
    batch = ask(served, "POST", "/act", json={"observation": [[0, 0, 0, 0]] * 3, "deterministic": True})
    assert batch.json()["action"] == [one.json()["action"]] * 3


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            '{"observation": [0, 0, 0]}',
            "float32 in [-1, 1] wants (4,), or (batch, 4)",
        ),
        ('{"observation": [[0, 0, 0, 0], [0]]}', "ragged"),
        ('{"observation": "left"}', "holds text"),
        ('{"observation": null}', "wants numbers"),
        ('{"observation": [0, 0, 0', "body is no JSON"),
        ("", "body is no JSON"),
        ("[1, 2]", "body is no JSON object: Expected `object`, got `array`"),
        ("{}", "body has no field 'observation'"),
        ('{"observations": [0, 0, 0, 0]}', "unknown field 'observations'. Did you mean 'observation'?"),
        ('{"observation": [0, 0, 0, 0], "deterministic": 1}', "deterministic is 1; want true or false"),
        (json.dumps({"observation": [[0, 0, 0, 0]] * 9}), "batch has 9 observations; want 1 to 8"),
        ('{"observation": []}', "of shape (0,)"),
        ('{"observation": [1e39, 0, 0, 0]}', "observation[0] = 1e+39; observation_space Box(4,) float32"),
        ('{"observation": [[0, 0, 0, 0], [0, 0, -3.5e38, 0]]}', "observation[1, 2] = -3.5e+38"),
        ('{"observation": [1e400, 0, 0, 0]}', "Number out of range"),
        ('{"observation": [NaN, 0, 0, 0]}', "body is no JSON"),
        ('{"observation": [Infinity, 0, 0, 0]}', "body is no JSON"),
        (observing(f"[{'9' * 300}, 0, 0, 0]"), "want"),
        (observing("[" * 4000), "nested too deeply"),
        (observing(nested(4000)), "nested too deeply"),
        (observing(f'0, "deterministic": {nested(4000)}'), "nested too deeply"),
        (observing(nested(70)), "ragged"),
        (observing('["' + "a" * 3000 + '","",""]'), "holds text"),
        ('{"observation": {"a": 1}}', "holds values of type object"),
        (b'{"observation": "\xff"}', "holds text"),
        (b'{"\xff": 0}', "no JSON"),
    ],
)
def test_what_cannot_be_an_observation(served, body, message):
    reply = ask(served, "POST", "/act", content=body)
    assert reply.status_code == 422
    assert message in reply.json()["error"]
    assert ask(served, "POST", "/act", json={"observation": [0, 0, 0, 0]}).status_code == 200, "the server goes on"


def test_health(served):
    health = ask(served, "GET", "/health")
    assert health.status_code == 200
    assert health.json()["status"] == "ok"
    assert health.json()["replicas"] == 1


def test_what_is_not_there():
    missing = ask(Stub(), "GET", "/acts")
    assert missing.status_code == 404
    assert missing.json() == {"error": "Not Found: there are POST /act, DELETE /sessions/NAME and GET /health"}
    assert ask(Stub(), "GET", "/act").status_code == 405


def test_a_body_without_end():
    reply = ask(Stub(), "POST", "/act", content=b" " * 100_000)
    assert reply.status_code == 413
    assert "the body is longer than 71936 bytes" in reply.json()["error"]


def test_a_long_name_is_cut(served):
    reply = ask(served, "POST", "/act", content=json.dumps({"x" * 9000: 1}))
    assert reply.status_code == 422
    assert len(reply.text) < 300
    longer = ask(served, "POST", "/act", content=json.dumps({"observation": 0, "deterministic": "x" * 9000}))
    assert longer.status_code == 422
    assert len(longer.text) < 300


def test_long_messages_of_others_are_cut():
    reply = ask(Stub(RuntimeError("x" * 100_000)), "POST", "/act", json={"observation": 0})
    assert reply.status_code == 500
    assert len(reply.text) < 1100


def test_an_announced_body_is_refused_before_it_is_sent(listen):
    url = listen(Stub(), most_numbers=100)
    with connection(url) as client:
        client.sendall(b"POST /act HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_more_numbers_than_a_batch_has_are_not_parsed():
    reply = ask(Stub(), "POST", "/act", content=observing("[" + "[]," * 2000 + "[]]"))
    assert reply.status_code == 422
    assert "holds more than 100 numbers" in reply.json()["error"]


def test_a_long_body_is_parsed_in_a_thread():
    stub = Stub()
    stub.future.set_result(Answer(np.int64(1), 0))
    body = observing("[" + "0," * 40_000 + "0]")
    reply = ask(stub, "POST", "/act", content=body, most_numbers=50_000)
    assert reply.json() == {"action": 1, "version": 0}
    reply = ask(Stub(ValueError("not that")), "POST", "/act", content=body, most_numbers=50_000)
    assert (reply.status_code, reply.json()) == (422, {"error": "not that"})


def test_bodies_that_take_too_much_together():
    reply = ask(Stub(), "POST", "/act", content=b" " * 101, bodies_in_all=100)
    assert reply.status_code == 503
    assert "too many long requests" in reply.json()["error"]


LOOPBACK = Access(hosts=frozenset({"localhost", "127.0.0.1", "::1"}))


@pytest.mark.parametrize("host", ["localhost:8000", "LOCALHOST", "127.0.0.1", "127.0.0.1:8000", "[::1]:8000", "[::1]"])
def test_hosts_of_this_machine(host):
    assert ask(Stub(), "GET", "/health", access=LOOPBACK, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost:80.evil", "", "[::2]", "x" * 9000],
)
def test_other_hosts(host):
    for method, path in (("GET", "/health"), ("POST", "/act"), ("GET", "/other")):
        reply = ask(Stub(), method, path, access=LOOPBACK, headers={"Host": host})
        assert reply.status_code == 403
        assert "which is no name of this server" in reply.json()["error"]
        assert len(reply.text) < 300


def test_a_token():
    access = Access(token="secret")
    assert ask(Stub(), "GET", "/health", access=access, headers={"Authorization": "Bearer secret"}).status_code == 200
    assert ask(Stub(), "GET", "/health", access=access, headers={"Authorization": "bearer  secret"}).status_code == 200
    for wrong in ("", "Bearer", "Bearer secre", "Bearer secret2", "Basic secret", "secret", "Bearer \xff"):
        headers = {"Authorization": wrong.encode("latin-1")}
        for method, path in (("GET", "/health"), ("POST", "/act"), ("GET", "/other")):
            reply = ask(Stub(), method, path, access=access, headers=headers)
            assert reply.status_code == 401, wrong
            assert reply.headers["www-authenticate"] == "Bearer"
            assert "secret" not in reply.text


@pytest.mark.parametrize("token", ["", "two words", "ünì", "a\n"])
def test_bad_tokens(token):
    with pytest.raises(InputError, match="all of them visible ASCII"):
        listen_for_observations(Stub(), "127.0.0.1:0", token=token)


def test_a_real_server_wants_its_token_and_host(served):
    url = served.listen("127.0.0.1:0", token="secret")
    assert httpx.get(f"{url}/health").status_code == 401
    known = {"Authorization": "Bearer secret"}
    assert httpx.get(f"{url}/health", headers=known).status_code == 200
    assert httpx.get(f"{url}/health", headers={**known, "Host": "evil.example"}).status_code == 403


def test_a_real_server(served):
    url = served.listen("127.0.0.1:0")
    assert served.http_address == url
    with httpx.Client(base_url=url) as client:
        assert client.post("/act", json={"observation": [0, 0, 0, 0]}).json()["version"] == 0
        assert client.post("/act", json={"observation": [0]}).status_code == 422
        assert client.get("/health").json()["requests"] == 1
    with pytest.raises(InputError, match="served over HTTP already"):
        served.listen("127.0.0.1:0")


def test_an_address_in_use(listen):
    port = listen(Stub()).rsplit(":", 1)[1]
    with pytest.raises(InputError, match=f"cannot listen at 127.0.0.1:{port}: Address already in use"):
        listen_for_observations(Stub(), f"127.0.0.1:{port}")


def test_answers_are_sent_without_delay():
    server = listen_for_observations(Stub(), "127.0.0.1:0")
    assert server._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    server.close()


class Stub:
    """A served policy whose next answer a test decides."""

    def __init__(self, error=None, status="ok"):
        self.error, self.status = error, status
        self.asked = threading.Event()
        self.future = Future()

    def submit(self, observations, *, deterministic=True):
        if self.error is not None:
            raise self.error
        self.asked.set()
        return self.future

    def health(self):
        return {"status": self.status}


@pytest.fixture
def listen():
    servers = []

    def start(stub, **options):
        servers.append(listen_for_observations(stub, "127.0.0.1:0", **options))
        return servers[-1].url

    yield start
    for server in servers:
        server.close()


def test_a_full_queue_is_503():
    reply = ask(Stub(ServerBusyError("9 wait")), "POST", "/act", json={"observation": 0})
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "1"
    assert reply.json() == {"error": "9 wait"}


def test_no_replica_is_503():
    stub = Stub(ServerClosedError("none is left"), status="down")
    assert ask(stub, "POST", "/act", json={"observation": 0}).status_code == 503
    assert ask(stub, "GET", "/health").status_code == 503


def test_our_own_bug_is_500_and_says_what():
    reply = ask(Stub(KeyError("key")), "POST", "/act", json={"observation": 0})
    assert reply.status_code == 500
    assert reply.json() == {"error": "KeyError: 'key'"}


def connection(url):
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def test_clients_that_leave_half_way_are_no_matter_for_the_log(listen, caplog):
    stub = Stub()
    url = listen(stub)
    for sent in (b"", b"POST /a", b"POST /act HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90\r\n\r\n{"):
        with connection(url) as client:
            client.sendall(sent)
    assert httpx.get(f"{url}/health").status_code == 200
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("sent", "late"),
    [
        (b"POST /act HTTP/1.1\r\nHost: loc", "head"),
        (b"POST /act HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90\r\n\r\n{", "body"),
    ],
)
def test_a_request_that_does_not_arrive_in_time(listen, sent, late, caplog):
    url = listen(Stub(), limits=Limits(head_seconds=0.1, body_seconds=0.1))
    with connection(url) as client:
        client.sendall(sent)
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert f"the request's {late} did not arrive in time".encode() in answer
    assert caplog.text == ""


def test_a_client_that_does_not_read_is_let_go(listen):
    stub = Stub()
    stub.future.set_result(Answer(np.zeros(3_000_000), 0))
    url = listen(stub, limits=Limits(head_seconds=0.1, write_seconds=0.1))
    with connection(url) as client:
        client.sendall(b'POST /act HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18\r\n\r\n{"observation": 0}')
        assert stub.asked.wait(10)
        wait_until(lambda: reset(client))


def reset(client):
    """Whether the other end is gone: what it had sent is not read."""
    try:
        client.send(b" ")
    except OSError:
        return True
    return False


def test_garbage_does_not_flood_the_log(listen, caplog):
    url = listen(Stub())
    for _ in range(30):
        with connection(url) as client:
            client.sendall(b"\0\xff\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 400 ")
    assert caplog.text.count("Invalid HTTP request") <= 5


def test_closing_does_not_wait_for_half_sent_requests(caplog):
    server = listen_for_observations(Stub(), "127.0.0.1:0")
    with connection(server.url) as client:
        client.sendall(b"POST /act HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90\r\n\r\n{")
        assert httpx.get(f"{server.url}/health").status_code == 200
        server.close()
        assert client.recv(100) == b""
    assert caplog.text == ""


@pytest.mark.slow
def test_closing_does_not_wait_without_end_for_an_answer(caplog):
    stub = Stub()
    server = listen_for_observations(stub, "127.0.0.1:0")
    with connection(server.url) as client:
        client.sendall(b'POST /act HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18\r\n\r\n{"observation": 0}')
        assert stub.asked.wait(10)
        server.close()
        assert client.recv(1000).startswith(b"HTTP/1.1 503 ")
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("descriptors", [64, pytest.param(1024, marks=pytest.mark.slow)])
def test_half_sent_requests_do_not_use_up_the_file_descriptors(descriptors):
    script = Path(__file__).with_name("few_descriptors.py")
    pipe = subprocess.PIPE
    with (
        subprocess.Popen([sys.executable, script, str(descriptors)], stdin=pipe, stdout=pipe, stderr=pipe) as server,
        contextlib.ExitStack() as clients,
    ):
        url = server.stdout.readline().decode().strip()
        for _ in range(descriptors * 2 if descriptors < 500 else 900):
            client = clients.enter_context(connection(url))
            client.sendall(b"POST /act HTTP/1.1\r\nHost: loc")
        assert httpx.post(f"{url}/act", json={"observation": 0}).json() == {"action": 0, "version": 0}
        assert psutil.Process(server.pid).num_fds() < descriptors / 2 + 16
        errors = server.communicate(timeout=30)[1].decode()
    assert errors == ""
    assert server.returncode == 0


def test_a_client_that_leaves_harms_nobody(listen):
    stub = Stub()
    url = listen(stub)
    with connection(url) as client:
        body = b'{"observation": 0}'
        client.sendall(b"POST /act HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        assert stub.asked.wait(10)
    stub.future.set_result(Answer(np.int64(1), 0))
    assert httpx.get(f"{url}/health").status_code == 200


def test_answers_while_another_waits(listen):
    stub = Stub()
    url = listen(stub)
    waiting = threading.Thread(target=httpx.post, args=(f"{url}/act",), kwargs={"json": {"observation": 0}})
    waiting.start()
    assert stub.asked.wait(10)
    assert httpx.get(f"{url}/health").status_code == 200
    stub.future.set_result(Answer(np.int64(1), 0))
    waiting.join(10)


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("8000", ("127.0.0.1", 8000)),
        (":0", ("127.0.0.1", 0)),
        ("[::1]:80", ("::1", 80)),
        ("host.example:9", ("host.example", 9)),
    ],
)
def test_addresses(address, parsed):
    assert parse_address(address) == parsed


@pytest.mark.parametrize("address", ["", "host", "host:", "host:x", "host:65536", "host:-1"])
def test_bad_addresses(address):
    with pytest.raises(InputError, match="want HOST:PORT"):
        parse_address(address, "http")


def test_an_open_address_is_pointed_out(caplog):
    server = listen_for_observations(Stub(), "0.0.0.0:0")
    server.close()
    assert "without authentication" in caplog.text


def test_loopback():
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert is_loopback("localhost")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("example.org")
