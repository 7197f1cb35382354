"""``uss prompt --serve``: a small page on this machine: click on a picture, and see the nested masks that lie there.

Belongs here: the server and what it answers; the page itself is ``report/assets/prompt.html`` with its script and style. Does not belong here:
finding masks.

The server listens on 127.0.0.1 only and answers only requests that name it so: a page elsewhere that had its own name resolved to
this address is refused by its Host header. Pictures go by number, never by path; what a person uploads stays in memory.
"""

from __future__ import annotations

import io
import json
import socket
import threading
import urllib.parse
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from uss_dagster.artifacts.image_files import decode
from uss_dagster.commands.prompt import SPLIT, ask, load
from uss_dagster.drawing import shrunk
from uss_dagster.errors import UsageError, UssError
from uss_dagster.own_images.files import common_folder, pictures, relative_name
from uss_dagster.regions import rle

HOST = "127.0.0.1"
LONGEST = 1024
"""Pictures are shown, and asked, with at most so many pixels on their longer side."""
UPLOAD_BYTES = 25 * 1024**2
UPLOADS, LOOKED = 16, 8
"""How many uploaded pictures, and how many encoded ones, are kept in memory."""
FILES = {"/": ("prompt.html", "text/html"), "/prompt.js": ("prompt.js", "text/javascript"), "/prompt.css": ("prompt.css", "text/css")}
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'"


@dataclass
class Gallery:
    """The pictures that can be asked, by number, and the student that answers. One thing at a time is computed."""

    student: Any
    files: list[Path]
    names: list[str]
    _uploads: OrderedDict[int, tuple[str, np.ndarray]] = field(default_factory=OrderedDict)
    _looked: OrderedDict[int, tuple[np.ndarray, Any]] = field(default_factory=OrderedDict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _next: int = 0

    def __post_init__(self) -> None:
        self._next = len(self.files)

    def listing(self) -> list[dict[str, Any]]:
        """Number and name of every picture."""
        with self._lock:
            own = [{"number": number, "name": name} for number, name in enumerate(self.names)]
            return [{"number": number, "name": name} for number, (name, _) in self._uploads.items()][::-1] + own

    def add(self, name: str, data: bytes) -> int:
        """An uploaded picture; its number. The oldest one is forgotten when there are too many."""
        image = shrunk(decode(data, name), LONGEST)
        with self._lock:
            number, self._next = self._next, self._next + 1
            self._uploads[number] = (name, image)
            while len(self._uploads) > UPLOADS:
                gone, _ = self._uploads.popitem(last=False)
                self._looked.pop(gone, None)
        return number

    def image(self, number: int) -> np.ndarray:
        """uint8 (H, W, 3) as it is shown; KeyError where there is none."""
        with self._lock:
            if number in self._uploads:
                return self._uploads[number][1]
            if number in self._looked:
                return self._looked[number][0]
        if not 0 <= number < len(self.files):
            raise KeyError(number)
        try:
            data = self.files[number].read_bytes()
        except OSError as error:
            raise UsageError(f"{self.names[number]} cannot be read ({error.strerror}).") from None
        return shrunk(decode(data, self.names[number]), LONGEST)

    def looked(self, number: int) -> tuple[np.ndarray, Any]:
        """The picture and what the student keeps of it."""
        with self._lock:
            if number not in self._looked:
                image = self.image(number)
                self._looked[number] = (image, self.student.encode(image, SPLIT))
                while len(self._looked) > LOOKED:
                    self._looked.popitem(last=False)
            self._looked.move_to_end(number)
            return self._looked[number]

    def click(self, number: int, x: int, y: int) -> list[dict[str, Any]]:
        """Masks at a pixel, largest first: quality, share of the picture, box, and the runs of its code (off, on, off, …, down the columns)."""
        with self._lock:
            image, looked = self.looked(number)
            height, width = image.shape[:2]
            if not (0 <= x < width and 0 <= y < height):
                raise UsageError(f"The point {x},{y} lies outside the picture of {width}×{height} pixels.")
            found = ask(looked, (x, y), (height, width))
        rows = zip(found.score.tolist(), found.area.tolist(), found.boxes.tolist(), found.rles(), strict=True)
        masks = [
            {"quality": round(quality, 4), "share": round(area / (height * width), 5), "box": box, "runs": rle.runs(code).tolist()}
            for quality, area, box, code in rows
        ]
        return sorted(masks, key=lambda mask: -mask["share"])


def serve_pictures(model: Path, paths: list[Path], port: int, device: str, tell: Callable[[str], None]) -> None:
    """Serve the page until interrupted. paths: pictures and folders of them, or none. port: 0 for any that is free."""
    files = pictures(paths) if paths else []
    folder = common_folder(files) if files else Path()
    server = make_server(Gallery(load(model, device), files, [relative_name(path, folder) for path in files]), port)
    tell(f"http://{HOST}:{server.server_address[1]}/  (Ctrl-C ends it)")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


def make_server(gallery: Gallery, port: int) -> ThreadingHTTPServer:
    """A server that is bound but does not serve yet."""
    handler = type("Handler", (_Handler,), {"gallery": gallery})
    try:
        return _Server((HOST, port), handler)
    except OSError as error:
        raise UsageError(f"Port {port} cannot be used ({error.strerror}). Choose another with --port, or 0 for any.") from None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    address_family = socket.AF_INET


class _Handler(BaseHTTPRequestHandler):
    gallery: Gallery
    server_version, sys_version = "uss", ""
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *values: Any) -> None:
        """Nothing: a person at the terminal sees what the page shows."""

    def _answer(self, method: Callable[[urllib.parse.SplitResult], None]) -> None:
        port = int(self.server.server_address[1])  # type: ignore[index, misc, call-overload, arg-type]
        own = {f"{name}:{port}" for name in (HOST, "localhost")}
        origin = self.headers.get("Origin")
        if self.headers.get("Host") not in own or (origin is not None and origin.removeprefix("http://") not in own):
            self.close_connection = True
            return self._send_json({"error": f"This page answers only to http://{HOST}:{port}/."}, HTTPStatus.FORBIDDEN)
        try:
            return method(urllib.parse.urlsplit(self.path))
        except (KeyError, ValueError):
            return self._send_json({"error": "There is nothing of that name here."}, HTTPStatus.NOT_FOUND)
        except UssError as error:
            return self._send_json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        except (BrokenPipeError, ConnectionResetError):
            return None

    def _get(self, url: urllib.parse.SplitResult) -> None:
        if url.path in FILES:
            name, kind = FILES[url.path]
            return self._send((resources.files("uss_dagster.report") / "assets" / name).read_bytes(), f"{kind}; charset=utf-8")
        if url.path == "/pictures":
            return self._send_json({"pictures": self.gallery.listing()})
        asked = {name: int(values[0]) for name, values in urllib.parse.parse_qs(url.query).items()}
        if url.path == "/picture":
            stream, side = io.BytesIO(), max(16, asked.get("side", LONGEST))
            Image.fromarray(shrunk(self.gallery.image(asked["number"]), side)).save(stream, "JPEG", quality=90)
            return self._send(stream.getvalue(), "image/jpeg")
        if url.path == "/look":
            image, _ = self.gallery.looked(asked["number"])
            return self._send_json({"width": image.shape[1], "height": image.shape[0]})
        if url.path == "/click":
            return self._send_json({"masks": self.gallery.click(asked["number"], asked["x"], asked["y"])})
        raise KeyError(url.path)

    def _post(self, url: urllib.parse.SplitResult) -> None:
        self.close_connection = True  # what was not read of a body must not be taken for the next request
        if url.path != "/upload":
            raise KeyError(url.path)
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > UPLOAD_BYTES:
            most = UPLOAD_BYTES // 1024**2
            return self._send_json({"error": f"A picture may have {most} MiB at most."}, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        if not self.headers.get("Content-Type", "").startswith("image/"):
            return self._send_json({"error": "That is no picture."}, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        name = urllib.parse.unquote(self.headers.get("X-Name", ""))[:200] or "picture"
        return self._send_json({"number": self.gallery.add(name, self.rfile.read(int(length)))})

    def _send_json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(value).encode(), "application/json", status)

    def _send(self, data: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(data)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": POLICY,
            "Cross-Origin-Resource-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
        }.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)
