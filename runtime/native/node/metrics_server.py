"""The node's endpoint for Prometheus: its client library's WSGI application, to this machine alone.

It runs in threads of its own and asks the node as any observer does, so the node's loop knows nothing of HTTP. A
browser that a foreign page leads to 127.0.0.1 under a name of its own (DNS rebinding) sends that name as Host, so only
this machine's names are answered.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from typing import Any

from ...core.reports.prometheus import RuntimeCollector
from ..protocol.observer import observe

_LOCAL = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d*)?", re.IGNORECASE)
_PATIENCE_SECONDS = 5.0
_MOST_THREADS = 100

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def serve_metrics(port: int, session: str) -> str:
    """Serve a session's metrics from now on, and return the address.

    Args:
        port: where to listen on 127.0.0.1; 0 takes any free port.
        session: name of the runtime's session.

    Raises:
        SystemExit: the port is taken; with a sentence that says so.
    """
    # Only if wished: they take as long to import as the runtime to start.
    from wsgiref.simple_server import WSGIRequestHandler, make_server

    from prometheus_client import CollectorRegistry, make_wsgi_app
    from prometheus_client.exposition import ThreadingWSGIServer

    class Server(ThreadingWSGIServer):
        request_queue_size = _MOST_THREADS

        def verify_request(self, request: object, client_address: object) -> bool:
            return threading.active_count() < _MOST_THREADS

    class Handler(WSGIRequestHandler):
        timeout = _PATIENCE_SECONDS  # who says nothing for so long is hung up on

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's name
            pass

    registry = CollectorRegistry()
    registry.register(RuntimeCollector(lambda: observe(session, ["metrics"], 1)))
    app = _for_this_machine(make_wsgi_app(registry))
    try:
        server = make_server("127.0.0.1", port, app, Server, Handler)
    except OSError as error:
        raise SystemExit(
            f"metrics_port={port}: cannot listen there: {error.strerror}. Use 0 for any free port"
        ) from None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/metrics"


def _for_this_machine(app: App) -> App:
    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        status = ""
        if "HTTP_HOST" in environ and not _LOCAL.fullmatch(environ["HTTP_HOST"].strip()):
            status, text = "403 Forbidden", b"Host is no name of this machine: use 127.0.0.1 or localhost\n"
        elif environ["PATH_INFO"] != "/metrics":
            status, text = "404 Not Found", b"there is only /metrics\n"
        if not status:
            return app(environ, start_response)
        start_response(status, [("Content-Type", "text/plain")])
        return [text]

    return answer
