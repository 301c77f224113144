"""A small issuer on loopback, over HTTP or HTTPS, that answers as the test says."""

import json
import ssl
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from support import peers

Answer = Callable[["Exchange"], None]


class Exchange(BaseHTTPRequestHandler):
    """One request, and the ways to answer it."""

    protocol_version = "HTTP/1.1"
    server: "Issuer"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(json.loads(body))
        self.server.bodies.append(body)
        self.server.answers[min(len(self.server.requests), len(self.server.answers)) - 1](self)

    def reply(self, status: int, body: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def json_of(status: int = 200, /, **fields: Any) -> Answer:
    """An answer of JSON."""
    return lambda exchange: exchange.reply(status, json.dumps(fields).encode())


def page(status: int = 200) -> Answer:
    """An answer that is a web page."""
    return lambda exchange: exchange.reply(status, b"\n<!doctype html><h1>Hello</h1>", "text/html")


class Issuer(ThreadingHTTPServer):
    """Gives its answers in turn, and the last one again and again."""

    daemon_threads = False
    block_on_close = True

    def __init__(self, *answers: Answer, certificate: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.answers = answers
        self.requests: list[Any] = []
        self.bodies: list[bytes] = []
        self.released = threading.Event()  # for answers that wait: set at the end
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.server_address[1]}/seed"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """A client that left, or did not trust us, is nothing to tell of."""


def certificate(path: Path, name: str = "IP:127.0.0.1") -> Path:
    """A certificate for a name, signed by itself, with its key; for use as SSL_CERT_FILE too."""
    key, signed = path.with_suffix(".key"), path.with_suffix(".crt")
    command = [peers.require("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=issuer", "-addext", f"subjectAltName={name}", "-keyout", key, "-out", signed]
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    path.write_bytes(key.read_bytes() + signed.read_bytes())
    return path
