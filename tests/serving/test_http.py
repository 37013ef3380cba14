"""A served policy over HTTP."""

import asyncio
import json
import socket
import threading
from concurrent.futures import Future

import httpx
import numpy as np
import pytest
from gymnasium import spaces

from shoal import runtime
from shoal.rl import Answer, Policy, ServerBusyError, ServerClosedError, serve
from shoal.rl.serving.http import HttpServer, is_loopback, make_app, parse_address
from shoal.runtime import InputError


@pytest.fixture
def served():
    runtime.init(engine="serial")
    policy = Policy(spaces.Box(-1.0, 1.0, (4,), np.float32), spaces.Discrete(3), seed=1)
    with serve(policy, max_batch_size=8) as made:
        yield made


def ask(served, method, path, **options):
    """Send one request to the application, without a server."""

    async def send():
        transport = httpx.ASGITransport(app=make_app(served), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://shoal") as client:
            return await client.request(method, path, **options)

    return asyncio.run(send())


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
        ("[1, 2]", "body is a JSON list, not an object"),
        ("{}", "body has no field 'observation'"),
        ('{"observations": [0, 0, 0, 0]}', "unknown field 'observations'. Did you mean 'observation'?"),
        ('{"observation": [0, 0, 0, 0], "deterministic": 1}', "deterministic is 1; want true or false"),
        (json.dumps({"observation": [[0, 0, 0, 0]] * 9}), "batch has 9 observations; want 1 to 8"),
        ('{"observation": []}', "of shape (0,)"),
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
    assert missing.json() == {"error": "Not Found: there are POST /act and GET /health"}
    assert ask(Stub(), "GET", "/act").status_code == 405


def test_a_body_without_end(monkeypatch):
    monkeypatch.setattr("shoal.rl.serving.http._LONGEST_BODY", 100)
    reply = ask(Stub(), "POST", "/act", content=b" " * 101)
    assert reply.status_code == 413
    assert "longer than 100 bytes" in reply.json()["error"]


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
        HttpServer(Stub(), f"127.0.0.1:{port}")


def test_answers_are_sent_without_delay():
    server = HttpServer(Stub(), "127.0.0.1:0")
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

    def start(stub):
        servers.append(HttpServer(stub, "127.0.0.1:0"))
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


def test_a_client_that_leaves_harms_nobody(listen):
    stub = Stub()
    url = listen(stub)
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        body = b'{"observation": 0}'
        client.sendall(b"POST /act HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
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
        parse_address(address)


def test_an_open_address_is_pointed_out(caplog):
    server = HttpServer(Stub(), "0.0.0.0:0")
    server.close()
    assert "without authentication" in caplog.text


def test_loopback():
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert is_loopback("localhost")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("example.org")
