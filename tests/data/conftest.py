"""A server of archives, with every fault that one can have."""
from __future__ import annotations

import http.client
import http.server
import threading

import pytest

from adlib.data import mvtec

BLOCK = 1 << 16


class Server(http.server.ThreadingHTTPServer):
    """Serves `body` at every path. Its faults are attributes; `requests` keeps the headers of each
    request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.requests, self.paths = b"", [], []
        # after so many bytes of the first, second, ... answer the connection is cut
        self.breaks = []
        self.declared = []  # false lengths of the first, second, ... answer
        self.ranges, self.content_range, self.silent = True, None, False
        self.stall = self.redirect = None
        self.statuses = []  # of the first, second, ... answer, instead of the file
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"

    def handle_error(self, request, client_address):
        pass  # a client that hangs up is part of the tests


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.requests.append(dict(self.headers))
        server.paths.append(self.path)
        if server.statuses and (status := server.statuses.pop(0)) != 200:
            return self.send_error(status)
        if server.redirect and server.redirect != server.url + self.path[1:]:
            self.send_response(302)
            self.send_header("Location", server.redirect)
            return self.end_headers()
        body, asked = server.body, self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if asked and server.ranges:
            if start >= len(body):
                return self.send_error(416)
            self.send_response(206)
            whole = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self.send_header("Content-Range", server.content_range or whole)
            body = body[start:]
        else:
            self.send_response(200)
        if not server.silent:
            self.send_header("Content-Length",
                             str(server.declared.pop(0) if server.declared else len(body)))
        self.end_headers()
        if server.stall and not server.stall.is_set():
            self.wfile.write(body[:BLOCK])
            server.stall.wait(20)
        else:
            self.wfile.write(body[:server.breaks.pop(0)] if server.breaks else body)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(mvtec, "PAUSES", (0.0, 0.01, 0.01))
    monkeypatch.setenv("no_proxy", "*")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01, ), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
