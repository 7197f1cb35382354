"""The server of ``uss prompt --serve``: a page on which people point at objects of an image, and see and refine their nested masks.

The page is ``report/assets/prompt.html`` with its script and style.

The server listens on 127.0.0.1 only, and answers only requests that name it so (``loopback``). Images have numbers, never paths. Uploads stay in memory.
"""

from __future__ import annotations

import contextlib
import io
import json
import signal
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
from typing import TypedDict

import numpy as np
from PIL import Image

from uss_dagster.artifacts.image_files import decode, read_picture, shrunk
from uss_dagster.errors import UsageError, UssError
from uss_dagster.loopback import HOST, headers, is_own, port_in_use, refusal
from uss_dagster.regions import rle
from uss_dagster.student.model import EncodedImage, Student
from uss_dagster.student.prompt_input import Prompt
from uss_dagster.student.prompting import SPLIT, masks_of

LONGEST = 1024
"""Greatest number of pixels on the longer side of images, as shown and as segmented."""
UPLOAD_BYTES, UPLOAD_PIXELS = 25 * 1024**2, 50_000_000
PROMPT_BYTES = 8 * 1024**2
READ_SECONDS = 30.0
"""In which a request must have arrived."""
UPLOADS, ENCODED = 16, 8
"""How many uploaded images, and how many encoded ones, are in memory at most."""
FILES = {"/": ("prompt.html", "text/html"), "/prompt.js": ("prompt.js", "text/javascript"), "/prompt.css": ("prompt.css", "text/css")}
HEADERS = headers("'self' blob: data:")


class ListedImage(TypedDict):
    """An image in the list of the page."""

    number: int
    name: str


class ShownMask(TypedDict):
    """A mask of an object. share: of the image. box: x, y, width, height. runs: run lengths (off, on, off, …), down the columns."""

    quality: float
    share: float
    box: list[int]
    runs: list[int]


class Answers(TypedDict):
    """The masks of an object, largest first, and the index of the best."""

    masks: list[ShownMask]
    best: int


@dataclass
class Gallery:
    """The images of the page by number, and the student that answers. Requests are computed one after the other.

    Parameters
    ----------
    student : Student
    files : list of Path
        Image files.
    names : list of str
        As the page shows them.
    """

    student: Student
    files: list[Path]
    names: list[str]
    _uploads: OrderedDict[int, tuple[str, np.ndarray]] = field(default_factory=OrderedDict)
    _encoded: OrderedDict[int, tuple[np.ndarray, EncodedImage]] = field(default_factory=OrderedDict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _decoding: threading.Lock = field(default_factory=threading.Lock)
    _next: int = 0

    def __post_init__(self) -> None:
        self._next = len(self.files)

    def listing(self) -> list[ListedImage]:
        """All images, the last upload first."""
        with self._lock:
            uploads = [(number, name) for number, (name, _) in self._uploads.items()][::-1]
        return [{"number": number, "name": name} for number, name in (*uploads, *enumerate(self.names))]

    def add(self, name: str, data: bytes) -> int:
        """Add an uploaded image, and return its number. If there are too many, the oldest upload is removed."""
        with self._decoding:  # one at a time: a large picture takes some hundred megabytes
            image = shrunk(decode(data, name, UPLOAD_PIXELS), LONGEST)
        with self._lock:
            number, self._next = self._next, self._next + 1
            self._uploads[number] = (name, image)
            while len(self._uploads) > UPLOADS:
                oldest, _ = self._uploads.popitem(last=False)
                self._encoded.pop(oldest, None)
        return number

    def image(self, number: int) -> np.ndarray:
        """The pixels of an image as it is shown, uint8 (H, W, 3).

        Raises
        ------
        KeyError
            If there is no image of that number.
        """
        with self._lock:
            if number in self._uploads:
                return self._uploads[number][1]
            if number in self._encoded:
                return self._encoded[number][0]
        if not 0 <= number < len(self.files):
            raise KeyError(number)
        return shrunk(read_picture(self.files[number], self.names[number]), LONGEST)

    def encoded(self, number: int) -> EncodedImage:
        """An image, encoded by the student."""
        with self._lock:
            if number not in self._encoded:
                image = self.image(number)
                self._encoded[number] = (image, self.student.encode(image, SPLIT))
                while len(self._encoded) > ENCODED:
                    self._encoded.popitem(last=False)
            self._encoded.move_to_end(number)
            return self._encoded[number][1]

    def ask(self, number: int, question: dict[str, object]) -> Answers:
        """The masks of one object of an image. question: see ``read_prompt``."""
        with self._lock:
            image = self.encoded(number)
            regions = masks_of(image, read_prompt(question, image.shape)).masks
        height, width = image.shape
        rows = zip(regions.score.tolist(), regions.area.tolist(), regions.boxes.tolist(), regions.rles(), strict=True)
        masks: list[ShownMask] = [
            {"quality": round(quality, 4), "share": round(area / (height * width), 5), "box": box, "runs": rle.runs(code).tolist()}
            for quality, area, box, code in rows
        ]
        order = sorted(range(len(masks)), key=lambda i: -masks[i]["share"])
        return {"masks": [masks[i] for i in order], "best": order.index(0) if order else 0}


def read_prompt(question: dict[str, object], shape: tuple[int, int]) -> Prompt:
    """The prompt that a page sends: ``points`` [[x, y], …], ``labels`` [1, 0, …], ``box`` [x, y, x, y], and ``mask``, the runs of a previous answer.

    Raises
    ------
    UsageError
        If it is no prompt, or not on an image of ``shape`` (height, width).
    """
    points, labels, box, runs = (question.get(name) or [] for name in ("points", "labels", "box", "mask"))
    try:
        places = np.array(points, np.float64).reshape(-1, 2)
        lengths = np.array(runs, np.int64).reshape(-1)
        mask = None
        if len(lengths):
            if lengths.min() < 0 or lengths.sum() != shape[0] * shape[1]:
                raise ValueError
            mask = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(shape[1], shape[0]).T
        corners = np.array(box, np.float64).tolist()
        kinds = np.array(labels, np.int64).reshape(-1).tolist()
    except (ValueError, TypeError):
        raise UsageError("This is no question about the picture: points, labels, box or mask are not numbers as they should be.") from None
    return Prompt.of([(x, y) for x, y in places.tolist()], kinds, corners or None, mask)


def serve(gallery: Gallery, port: int, tell: Callable[[str], None]) -> None:
    """Serve the page until interrupted.

    Parameters
    ----------
    gallery : Gallery
    port : int
        0 for any that is free.
    tell : callable
        Called with the address of the page.
    """
    server = make_server(gallery, port)
    tell(f"http://{HOST}:{server.server_address[1]}/  (Ctrl-C ends it)")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Ctrl-C is how it ends, and nothing is stopped short
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


def make_server(gallery: Gallery, port: int) -> ThreadingHTTPServer:
    """A server that is bound to its port and does not serve yet.

    Raises
    ------
    UsageError
        If the port cannot be used.
    """
    handler = type("Handler", (_Handler,), {"gallery": gallery})
    try:
        return _Server((HOST, port), handler)
    except OSError as error:
        raise UsageError(port_in_use(port, error)) from None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    address_family = socket.AF_INET


class _Handler(BaseHTTPRequestHandler):
    gallery: Gallery
    server_version, sys_version = "uss", ""
    protocol_version = "HTTP/1.1"
    timeout = READ_SECONDS  # between two pieces

    def handle_one_request(self) -> None:
        self._deadline = threading.Timer(READ_SECONDS, self._stop_reading)
        self._deadline.daemon = True
        self._deadline.start()
        try:
            super().handle_one_request()
        finally:
            self._deadline.cancel()

    def _stop_reading(self) -> None:
        """End a request that comes in too slowly: what waits for the rest of it gets none."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RD)

    def do_GET(self) -> None:
        self._deadline.cancel()
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *values: object) -> None:
        """Print nothing: the page shows all that matters."""

    def _answer(self, method: Callable[[urllib.parse.SplitResult], None]) -> None:
        port = int(self.server.server_address[1])  # type: ignore[index, misc, call-overload, arg-type]
        if not is_own(self.headers.get("Host"), self.headers.get("Origin"), port):
            self.close_connection = True
            return self._send_json(refusal(port), HTTPStatus.FORBIDDEN)
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
        query = {name: int(values[0]) for name, values in urllib.parse.parse_qs(url.query).items()}
        if url.path == "/picture":
            stream, side = io.BytesIO(), max(16, query.get("side", LONGEST))
            Image.fromarray(shrunk(self.gallery.image(query["number"]), side)).save(stream, "JPEG", quality=90)
            return self._send(stream.getvalue(), "image/jpeg")
        if url.path == "/look":
            height, width = self.gallery.encoded(query["number"]).shape
            return self._send_json({"width": width, "height": height})
        raise KeyError(url.path)

    def _post(self, url: urllib.parse.SplitResult) -> None:
        self.close_connection = True  # the rest of an unread body must not be read as the next request
        if url.path not in ("/upload", "/prompt"):
            raise KeyError(url.path)
        upload = url.path == "/upload"
        length, limit, what = self.headers.get("Content-Length", ""), *((UPLOAD_BYTES, "picture") if upload else (PROMPT_BYTES, "question"))
        if not length.isdecimal() or int(length) > limit:
            return self._send_json({"error": f"A {what} may have {limit // 1024**2} MiB at most."}, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        if upload and not self.headers.get("Content-Type", "").startswith("image/"):
            return self._send_json({"error": "That is no picture."}, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        data = self.rfile.read(int(length))
        self._deadline.cancel()
        if len(data) < int(length):
            error = f"The {what} did not arrive within {READ_SECONDS:g} seconds."
            return self._send_json({"error": error}, HTTPStatus.REQUEST_TIMEOUT)
        if upload:
            name = urllib.parse.unquote(self.headers.get("X-Name", ""))[:200] or "picture"
            return self._send_json({"number": self.gallery.add(name, data)})
        question = json.loads(data)
        if not isinstance(question, dict) or not isinstance(question.get("number"), int):
            raise KeyError("number")
        return self._send_json(self.gallery.ask(question["number"], question))

    def _send_json(self, value: object, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(value).encode(), "application/json", status)

    def _send(self, data: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **HEADERS}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)
