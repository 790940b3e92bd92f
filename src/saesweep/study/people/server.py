"""Serves each rater's page on this machine, and appends each answer to the rater's file.

Only 127.0.0.1 is bound, a page's address holds a random token, and requests that name another host or come from another
page are refused, so that no web page that the rater opens can read or write here.
"""
from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

from saesweep.study.people import answers, page
from saesweep.study.people.session import Session

HOST = "127.0.0.1"
LARGEST = 1 << 16  # bytes of an answer
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
           "X-Frame-Options": "DENY", "Cross-Origin-Resource-Policy": "same-origin"}


class RatingServer(ThreadingHTTPServer):
    """payloads: the content of each rater's page. port 0: any that is free."""

    daemon_threads = True

    def __init__(self, session: Session, payloads: Mapping[str, Mapping[str, Any]], port: int = 0) -> None:
        super().__init__((HOST, port), Handler)
        self.session, self.payloads, self.lock = session, payloads, Lock()
        self.tokens = {rater: secrets.token_urlsafe(16) for rater in payloads}

    def urls(self) -> dict[str, str]:
        return {rater: f"http://{HOST}:{self.server_port}/{token}/" for rater, token in self.tokens.items()}

    def rater_of(self, path: str) -> str | None:
        found = [rater for rater, token in self.tokens.items() if hmac.compare_digest(path.encode(), f"/{token}/".encode())]
        return found[0] if found else None

    def html(self, rater: str) -> str:
        payload = self.payloads[rater]
        items = {item["item"] for item in payload["items"]}
        file = self.session.answers / f"{rater}.jsonl"
        received = [entry for entry in answers.lines(file) if entry.get("item") in items] if file.is_file() else []
        return page.html(payload, list(answers.latest(received).values()))

    def receive(self, rater: str, body: bytes) -> None:
        """Raises ValueError for what is no answer to one of the rater's items."""
        entry = answers.checked(json.loads(body), {item["item"] for item in self.payloads[rater]["items"]})
        with self.lock:
            answers.append(self.session.answers / f"{rater}.jsonl", self.session.study, rater, entry)


class Handler(BaseHTTPRequestHandler):
    """GET gives a rater's page, POST takes an answer."""

    server: RatingServer
    server_version, sys_version = "saesweep", ""
    timeout = 30  # seconds without a byte

    def do_GET(self) -> None:
        if (rater := self._rater()) is not None:
            self._reply(HTTPStatus.OK, self.server.html(rater), "text/html; charset=utf-8")

    def do_POST(self) -> None:
        rater, length = self._rater(), self.headers.get("Content-Length", "")
        if rater is None:
            return
        if not length.isdecimal() or int(length) > LARGEST:
            return self._reply(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "an answer is shorter\n")
        if self.headers.get_content_type() != "application/json":
            return self._reply(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "an answer is JSON\n")
        try:
            self.server.receive(rater, self.rfile.read(int(length)))
        except ValueError as error:
            return self._reply(HTTPStatus.BAD_REQUEST, f"{error}\n")
        self._reply(HTTPStatus.NO_CONTENT)

    def _rater(self) -> str | None:
        """Whose page is asked for; None where the request is refused, which is answered here."""
        here = {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}
        origin = self.headers.get("Origin")
        if self.headers.get("Host") not in here or (origin and origin not in {f"http://{host}" for host in here}):
            return self._reply(HTTPStatus.FORBIDDEN, "this server answers its own pages on this machine alone\n")
        rater = self.server.rater_of(self.path)
        if rater is None:
            self._reply(HTTPStatus.NOT_FOUND, "there is no such page; its address is printed where the server was started\n")
        return rater

    def _reply(self, status: HTTPStatus, body: str = "", kind: str = "text/plain; charset=utf-8") -> None:
        content = body.encode()
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if body:
            self.send_header("Content-Type", kind)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the addresses hold tokens."""
