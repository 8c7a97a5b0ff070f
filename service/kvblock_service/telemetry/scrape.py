"""The HTTP endpoint at which Prometheus fetches the metrics.

Rules:
- The port is bound before the server says that it is ready, by this server only: neither
  SO_REUSEPORT nor a second listener behind the same address.
- It is served by threads of its own, so that a scrape does not hold up the event loop.
"""

import logging
import socket
import sys
from socketserver import ThreadingMixIn
from threading import Thread
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from kvblock_service.rpc.listeners import not_bound

_POLL_SECONDS = 0.1

_log = logging.getLogger(__name__)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    allow_reuse_port = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A scraper that goes away is no news; what else goes wrong belongs into the log."""
        if not isinstance(sys.exc_info()[1], OSError):
            _log.exception("a scrape failed", extra={"peer": str(client_address)})


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = 10

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are not logged."""


class ScrapeEndpoint:
    """Serves a registry's metrics until `close`; `address` is where, with the chosen port."""

    def __init__(self, address: str, registry: CollectorRegistry) -> None:
        """Bind `HOST:PORT` and serve; raises ListenError where that cannot be bound."""
        host, _, port = address.rpartition(":")
        self._server = _bound(host.strip("[]"), int(port), address, registry)
        self.address = f"{host}:{self._server.server_port}"
        self._thread = Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="scrape", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Give up the port; a scrape that is running is not waited for."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _bound(host: str, port: int, address: str, registry: CollectorRegistry) -> WSGIServer:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, where = found[0]
        kind = _Server6 if family == socket.AF_INET6 else _Server
        return make_server(str(where[0]), port, make_wsgi_app(registry), kind, _Handler)
    except OSError as error:
        raise not_bound(f"metrics at {address}", error) from error
