"""A small web server on this machine that misbehaves as told, for tests of downloads."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What the server has and how it fails. files: path → bytes. ranges: it sends parts. drops: how many answers it breaks off in the
    middle. errors: status codes of the first answers. page, moved: what it sends in place of a file. requests: (path, range) so far."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    validator: bool = True
    drops: int = 0
    errors: list[int] = field(default_factory=list)
    page: str = ""
    moved: dict[str, str] = field(default_factory=dict)
    length: bool = True
    requests: list[tuple[str, str]] = field(default_factory=list)
    sent: int = 0
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, name: str) -> bool:
        """Whether one more of these failures is due."""
        with self.lock:
            left = getattr(self, name)
            setattr(self, name, max(0, left - 1))
            return left > 0


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """The server, on a free port of the loopback interface, while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            with site.lock:
                site.requests.append((self.path, wanted))
                error = site.errors.pop(0) if site.errors else 0
            if error:
                self.send_error(error)
            elif self.path in site.moved:
                self.send_response(302)
                self.send_header("Location", site.moved[self.path])
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif site.page:
                self.answer(200, site.page.encode(), {"Content-Type": "text/html; charset=utf-8"})
            elif self.path not in site.files:
                self.send_error(404)
            else:
                self.file(site.files[self.path], wanted)

        def file(self, data: bytes, wanted: str) -> None:
            tag = f'"{hashlib.md5(data).hexdigest()}"'
            headers = {"ETag": tag} if site.validator else {}
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
            if not site.ranges or not asked or self.headers.get("If-Range", tag) != tag:
                self.answer(200, data, headers)
                return
            first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
            if first >= len(data):
                self.send_error(416)
                return
            self.answer(206, data[first : last + 1], {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"})

        def answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": "application/octet-stream", **headers}.items():
                self.send_header(name, value)
            if site.length:
                self.send_header("Content-Length", str(len(data)))
            else:
                self.send_header("Connection", "close")
                self.close_connection = True
            self.end_headers()
            if site.take("drops"):
                data = data[: len(data) // 2]
                self.close_connection = True
            with site.lock:
                site.sent += len(data)
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
