"""The contract of metrics: `util.metrics` and the text for Prometheus, on every engine; the endpoint of the native."""

import contextlib
import os
import re
import socket
import urllib.error
import urllib.request

import pytest
from conftest import WORKERS_NEED

from shoal import runtime
from shoal.runtime.util import metrics

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = rf'{_NAME}="(?:[^"\\\n]|\\["\\n])*"'
_SAMPLE = re.compile(rf"({_NAME})(?:\{{({_LABEL}(?:,{_LABEL})*)\}})? (\S+)")


def samples(text):
    """Return the samples of a text in Prometheus' format, having checked that it is one."""
    assert text.endswith("\n")
    found, kinds = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert kind in ("counter", "gauge", "histogram")
            assert name not in kinds, "a family comes once"
            kinds[name] = kind
        elif not line.startswith("# HELP "):
            match = _SAMPLE.fullmatch(line)
            assert match, f"{line!r} is no sample"
            name, labels, value = match.groups()
            family = next(kind for kind in (name, re.sub("_(bucket|sum|count)$", "", name)) if kind in kinds)
            assert list(kinds)[-1] == family, "samples follow their family's type"
            assert (name, labels) not in found
            found[name, labels] = float(value)
    return found


def test_counters_gauges_and_histograms_of_all_processes_are_told(engine):
    @runtime.remote
    def work(i):
        metrics.Counter("jobs_done", "Jobs.", tag_keys=("kind",)).inc(2, tags={"kind": 'a "b"\n\\'})
        metrics.Histogram("job_seconds", "Time.", boundaries=[0.1, 1, 10]).observe(i)
        return i

    runtime.get([work.remote(i) for i in range(5)])
    metrics.Gauge("level", "Level.").set(-1.5)
    text = metrics.scrape()
    found = samples(text)
    assert found["jobs_done_total", r'kind="a \"b\"\n\\"'] == 10
    buckets = [found["job_seconds_bucket", f'le="{limit}"'] for limit in ("0.1", "1.0", "10.0", "+Inf")]
    assert buckets == [1, 2, 5, 5]
    assert (found["job_seconds_count", None], found["job_seconds_sum", None]) == (5, 10)
    assert found["level", f'pid="{os.getpid()}"'] == -1.5
    node = runtime.nodes()[0].node_id
    assert found["shoal_resources", f'kind="total",name="CPU",node="{node}"'] == 2
    assert ("shoal_objects", None) in found
    assert "# HELP jobs_done_total Jobs." in text


def test_default_tags_fill_what_a_call_leaves_out(engine):
    counter = metrics.Counter("tagged", tag_keys=("a", "b")).set_default_tags({"a": "1"})
    counter.inc(tags={"b": "2"})
    assert samples(metrics.scrape())["tagged_total", 'a="1",b="2"'] == 1
    assert counter.info["tag_keys"] == ("a", "b")


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: metrics.Counter("1st"), "'1st' is no name"),
        (lambda: metrics.Counter("shoal_tasks"), "'shoal_tasks' is no name"),
        (lambda: metrics.Counter("good", tag_keys=("a-b",)), "'a-b' is no name"),
        (lambda: metrics.Counter("good", tag_keys=("pid",)), "'pid' and 'le' are taken"),
        (lambda: metrics.Counter("good").inc(0), "a counter only grows"),
        (lambda: metrics.Counter("good", tag_keys=("kind",)).inc(), "no value for the tag 'kind'"),
        (lambda: metrics.Counter("good", tag_keys=("kind",)).inc(tags={"kin": "x"}), "Did you mean 'kind'"),
        (lambda: metrics.Gauge("good").set(1, tags={"kind": "x"}), "It has none"),
        (lambda: metrics.Histogram("good", boundaries=[2, 1]), "want growing numbers"),
        (lambda: metrics.Gauge("twice").set(1) or metrics.Counter("twice").inc(), "is a gauge with the tags"),
    ],
)
def test_bad_metrics_are_refused(engine, use, message):
    with pytest.raises(runtime.InputError, match=re.escape(message)):
        use()


@pytest.fixture
def address():
    runtime.shutdown()
    runtime.init(engine="native", num_cpus=1, metrics_port=0, preload=WORKERS_NEED)
    yield runtime.nodes()[0].metrics_address
    runtime.shutdown()


def test_prometheus_scrapes_the_endpoint(address):
    with urllib.request.urlopen(address) as reply:
        assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        found = samples(reply.read().decode())
    assert found["shoal_worker_deaths_total", f'node="{runtime.nodes()[0].node_id}"'] == 0
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(address.replace("/metrics", "/other"))


_GARBAGE = [b"", b"\x00\xff" * 10_000, b"GET\r\n\r\n", b"POST /metrics HTTP/1.1\r\n\r\n", b"\n\n"]


def test_the_endpoint_bears_garbage(address):
    host, port = address.removeprefix("http://").removesuffix("/metrics").split(":")
    for said in _GARBAGE:
        with socket.create_connection((host, int(port))) as sock:
            with contextlib.suppress(OSError):  # it may have hung up already
                sock.sendall(said)
                sock.shutdown(socket.SHUT_WR)
            answer = b""
            while chunk := receive(sock):
                answer += chunk
        # Who says no version of HTTP gets an answer without a status line, as in its first version.
        assert answer == b"" or answer.startswith(b"HTTP/1.0 40") or b"Error code: 40" in answer, said
    with urllib.request.urlopen(address) as reply:
        assert samples(reply.read().decode())


def connection(address):
    host, port = address.removeprefix("http://").removesuffix("/metrics").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def test_slow_callers_shut_nobody_out(address):
    with contextlib.ExitStack() as stack:
        for said in [b"", b"GET /metrics HTTP/1.0\r\nHo"] * 20:
            stack.enter_context(connection(address)).sendall(said)
        with urllib.request.urlopen(address, timeout=10) as reply:
            assert samples(reply.read().decode())


def test_a_caller_that_has_said_all_still_gets_its_answer(address):
    with connection(address) as sock:
        sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        assert sock.makefile("rb").read().startswith(b"HTTP/1.0 200 OK")


def test_only_names_of_this_machine_are_answered(address):
    own = ["localhost:9", "LOCALHOST", "127.0.0.1", "[::1]:80"]
    others = ["evil.example", "127.0.0.1.evil.example:80", "localhost.evil", ""]
    for host, status in [(host, 200) for host in own] + [(host, 403) for host in others]:
        with connection(address) as sock:
            sock.sendall(f"GET /metrics HTTP/1.1\r\nAccept: */*\r\nHost: {host}\r\n\r\n".encode())
            assert sock.makefile("rb").read().startswith(f"HTTP/1.0 {status} ".encode()), host


def receive(sock):
    try:
        return sock.recv(4096)
    except ConnectionResetError:  # it did not read all that we said
        return b""


def test_what_dead_processes_had_counted_still_counts(address):
    @runtime.remote
    class Worker:
        def work(self):
            metrics.Counter("work_done").inc(3)

    worker = Worker.remote()
    runtime.get(worker.work.remote())
    assert samples(metrics.scrape())["work_done_total", None] == 3
    runtime.kill(worker)
    again = Worker.remote()
    runtime.get(again.work.remote())
    assert samples(metrics.scrape())["work_done_total", None] == 6


@pytest.mark.parametrize("port", [-1, 65536, True, "80"])
def test_bad_ports_are_refused(shared_engine, port):
    runtime.shutdown()
    with pytest.raises(runtime.InputError, match="metrics_port="):
        runtime.init(engine=shared_engine, metrics_port=port)


def test_a_taken_port_is_told(shared_engine):
    runtime.shutdown()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        expected = (
            (runtime.InputError, "engine='native'")
            if shared_engine == "serial"
            else (runtime.exceptions.NodeDiedError, f"metrics_port={port}: cannot listen there")
        )
        with pytest.raises(expected[0], match=expected[1]):
            runtime.init(engine=shared_engine, metrics_port=port)
