"""A real HTTP server on the loopback interface that can be told to misbehave.

Serves the files below a directory, with Range as in RFC 9110; each fault is used up by the number
of requests that it was given for. Every request is kept for the test to look at.
"""

from __future__ import annotations

import contextlib
import re
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

POUR_LIMIT = 256 << 20


@dataclass
class Fault:
    """What happens to requests whose path ends with `suffix`, for the next `times` of them.

    `gate`: the second half of the body waits for it.
    """

    suffix: str
    times: int = 1
    status: int = 0
    cut_after: int | None = None
    no_range: bool = False
    no_length: bool = False
    content_range: str = ""
    stall: float = 0
    gate: threading.Event | None = None
    endless: bool = False
    location: str = ""


@dataclass(frozen=True)
class Request:
    path: str
    range: str | None
    sent: int


class Mirror(ThreadingHTTPServer):
    """`url` is its address; `requests` what was asked for; `faults` what goes wrong next."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.poured = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no error here."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def fault_for(self, path: str) -> Fault:
        with self._lock:
            for fault in self.faults:
                if path.endswith(fault.suffix) and fault.times > 0:
                    fault.times -= 1
                    return fault
        return Fault("")

    def note(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)

    def asked(self, suffix: str) -> list[Request]:
        return [r for r in self.requests if r.path.endswith(suffix)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Mirror

    def do_GET(self) -> None:
        fault = self.server.fault_for(self.path)
        if fault.endless:
            self._pour()
            return
        if fault.location:
            self._answer(302, b"", {"Location": fault.location})
            return
        file = self.server.root / unquote(self.path).lstrip("/")
        if fault.status or not file.is_file():
            self._answer(fault.status or 404, b"", {})
            return
        data = file.read_bytes()
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match is None or fault.no_range:
            self._answer(200, data, {}, fault)
        elif (start := int(match[1])) >= len(data):
            self._answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        else:
            where = fault.content_range or f"bytes {start}-{len(data) - 1}/{len(data)}"
            self._answer(206, data[start:], {"Content-Range": where}, fault)

    def _pour(self) -> None:
        """A body without an end, until the client goes away (or a test would run for ever)."""
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            while self.server.poured < POUR_LIMIT:
                self.server.poured += self.wfile.write(bytes(1 << 20))

    def _answer(
        self, status: int, body: bytes, headers: dict[str, str], fault: Fault | None = None
    ) -> None:
        fault = fault or Fault("")
        sent = body if fault.cut_after is None else body[: fault.cut_after]
        self.server.note(Request(self.path, self.headers.get("Range"), len(sent)))
        time.sleep(fault.stall)
        self.send_response(status)
        length = {} if fault.no_length else {"Content-Length": str(len(body))}
        for key, value in (headers | length).items():
            self.send_header(key, value)
        self.end_headers()
        try:
            half = len(sent) // 2
            self.wfile.write(sent[:half])
            if fault.gate is not None:
                fault.gate.wait(timeout=60)
            self.wfile.write(sent[half:])
        except OSError:  # the client has had enough
            self.close_connection = True
        if fault.no_length or len(sent) < len(body):
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass
