"""The page of `uss prompt --serve`: what the server answers and refuses, and the page itself in a browser. A stand-in takes the student's place."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from devtools import browser, find_chromium
from PIL import Image

from uss_dagster.loopback import HOST
from uss_dagster.regions import rle
from uss_dagster.student import prompt_page
from uss_dagster.student.prompt_page import Gallery, make_server

BAD_NAME = '<img src=x onerror="window.hacked=1">.png'


RADII = ((30, 0.9), (60, 0.8), (12, 0.4))


@dataclass(frozen=True)
class Answer:
    code: bytes
    quality: float


class Discs:
    """In the place of a student: discs of three sizes around a click, the middle one the best; counts how often it looked."""

    def __init__(self) -> None:
        self.looks = 0

    def encode(self, image: np.ndarray, split: int = 1) -> EncodedDiscs:
        self.looks += 1
        return EncodedDiscs(image.shape[:2])


@dataclass(frozen=True)
class EncodedDiscs:
    shape: tuple[int, int]

    def click(self, x: float, y: float) -> list[Answer]:
        rows, columns = np.ogrid[: self.shape[0], : self.shape[1]]
        distance = np.hypot(rows - y, columns - x)
        return [Answer(rle.encode((distance <= radius)[None])[0], quality) for radius, quality in RADII]


def picture(path: Path, height: int = 150, width: int = 200, seed: int = 0) -> Path:
    noise = np.random.default_rng(seed).integers(60, 200, (height, width, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    return path


@contextmanager
def served(files: list[Path], names: list[str] | None = None) -> Iterator[tuple[int, Gallery]]:
    gallery = Gallery(Discs(), files, names or [path.name for path in files])
    server = make_server(gallery, 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1], gallery
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def ask(port: int, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection(HOST, port, timeout=20)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.headers)
    finally:
        connection.close()


def png(height: int = 40, width: int = 50) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def test_masks_of_a_click_and_one_look_a_picture(tmp_path):
    with served([picture(tmp_path / "a.png"), picture(tmp_path / "b.png")]) as (port, gallery):
        found = [json.loads(ask(port, f"/click?number=0&x=100&y={y}")[1])["masks"] for y in (70, 75)]
        assert gallery.student.looks == 1
        assert json.loads(ask(port, "/look?number=1")[1]) == {"width": 200, "height": 150}
        assert gallery.student.looks == 2
    assert [mask["quality"] for mask in found[0]] == [0.8, 0.9, 0.4]  # largest first
    rows, columns = np.mgrid[:150, :200]
    for mask, radius in zip(found[1], (60, 30, 12), strict=True):
        runs = mask["runs"]
        drawn = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(200, 150).T
        np.testing.assert_array_equal(drawn, np.hypot(rows - 75, columns - 100) <= radius)
        assert mask["share"] == pytest.approx(drawn.mean(), abs=1e-5)


def test_large_pictures_are_asked_as_they_are_shown(tmp_path):
    with served([picture(tmp_path / "a.png", 900, 3000)]) as (port, _):
        assert json.loads(ask(port, "/look?number=0")[1]) == {"width": 1024, "height": 307}
        shown = Image.open(io.BytesIO(ask(port, "/picture?number=0")[1]))
        assert shown.size == (1024, 307)
        assert Image.open(io.BytesIO(ask(port, "/picture?number=0&side=240")[1])).size == (240, 72)
        assert ask(port, "/picture?number=0&side=-5")[0] == 200


def test_only_this_machine_under_its_own_name(tmp_path):
    with served([picture(tmp_path / "a.png")]) as (port, gallery):
        assert gallery.listing() == [{"number": 0, "name": "a.png"}]
        assert ask(port, "/pictures", Host=f"localhost:{port}")[0] == 200
        for host in ("evil.example", f"evil.example:{port}", f"{HOST}:1", HOST, ""):
            status, body, _ = ask(port, "/pictures", Host=host)
            assert (status, b"a.png" in body) == (403, False), host
        assert ask(port, "/upload", "POST", png(), Content_Type="image/png", Origin="http://evil.example")[0] == 403
        assert ask(port, "/pictures", Origin="null")[0] == 403
        assert ask(port, "/pictures", Origin=f"http://{HOST}:{port}")[0] == 200
        headers = ask(port, "/")[2]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_nothing_but_pictures_by_number(tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    with served([picture(tmp_path / "a.png")]) as (port, _):
        for path in ("/secret.txt", "/../secret.txt", "/%2e%2e/secret.txt", "/prompt.js/../../secret.txt", "/picture?number=../secret.txt",
                     "/picture?number=1", "/picture?number=-1", "/picture", "/click?number=0&x=a&y=1", "/upload"):  # fmt: skip
            status, body, _ = ask(port, path)
            assert (status, b"secret" in body) == (404, False), path
        status, body, _ = ask(port, "/click?number=0&x=200&y=0")
        assert status == 400
        assert json.loads(body)["error"] == "The point 200,0 lies outside the picture of 200×150 pixels."


def test_uploads_are_pictures_of_limited_size_and_number(tmp_path, monkeypatch):
    monkeypatch.setattr(prompt_page, "UPLOADS", 2)
    with served([picture(tmp_path / "a.png")]) as (port, gallery):
        sent = {"Content_Type": "image/png", "X_Name": quote("über <b>.png")}
        number = json.loads(ask(port, "/upload", "POST", png(), **sent)[1])["number"]
        assert gallery.listing()[0] == {"number": number, "name": "über <b>.png"}
        assert json.loads(ask(port, f"/look?number={number}")[1]) == {"width": 50, "height": 40}
        assert ask(port, "/upload", "POST", b"not one", **sent)[0] == 400
        assert ask(port, "/upload", "POST", png(), Content_Type="text/html")[0] == 415
        monkeypatch.setattr(prompt_page, "UPLOAD_BYTES", 100)
        assert ask(port, "/upload", "POST", bytes(101), **sent)[0] == 413
        monkeypatch.setattr(prompt_page, "UPLOAD_BYTES", 10**6)
        for _ in range(2):
            ask(port, "/upload", "POST", png(), **sent)
        assert [entry["number"] for entry in gallery.listing()] == [number + 2, number + 1, 0]
        assert ask(port, f"/look?number={number}")[0] == 404


def test_a_port_in_use_is_said(tmp_path):
    with served([]) as (port, gallery), pytest.raises(prompt_page.UsageError, match=f"^Port {port} cannot be used"):
        make_server(gallery, port)


def test_with_a_student(tmp_path):
    from students import small_student

    from uss_dagster.student.model import Student

    gallery = Gallery(Student.load(small_student()), [picture(tmp_path / "a.png")], ["a.png"])
    started = time.perf_counter()
    first = gallery.click(0, 100, 75)
    encoded = time.perf_counter()
    second = gallery.click(0, 100, 75)
    assert first == second
    assert 1 <= len(first) <= 3
    assert time.perf_counter() - encoded < max(1.0, encoded - started)
    for mask in first:
        assert sum(mask["runs"]) == 150 * 200
        assert sum(mask["runs"][1::2]) == pytest.approx(mask["share"] * 30_000, abs=1)


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium here: the page is not tested in a browser")
def test_in_a_browser(tmp_path):
    files = [picture(tmp_path / "a.png"), picture(tmp_path / "b.png", 100, 100, seed=1)]
    with served(files, [BAD_NAME, "b.png"]) as (port, gallery), browser(str(find_chromium())) as page:
        page.open(f"http://{HOST}:{port}/")

        def wait(condition: str) -> None:
            expression = (
                "new Promise((done, fail) => { const end = Date.now() + 10000; (function look() { "
                f"if ({condition}) done(true); else if (Date.now() > end) fail(document.body.innerText); else setTimeout(look, 20); }})(); }})"
            )
            page.ask(expression)

        status = "document.getElementById('status').textContent"
        wait(f"{status} === 'Click on something.'")
        assert page.ask("document.querySelector('#pictures span').textContent") == BAD_NAME
        assert page.ask("window.hacked") is None
        assert page.ask("document.querySelectorAll('#pictures img').length") == 2
        box = page.ask(
            "(({left, top, width, height}) => [left, top, width, height])(document.getElementById('canvas').getBoundingClientRect())"
        )
        x, y = box[0] + 100.5 / 200 * box[2], box[1] + 75.5 / 150 * box[3]
        for kind in ("mousePressed", "mouseReleased"):
            page.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        wait(f"{status}.startsWith('3 masks at 100, 75 in ')")
        assert page.ask("Number(document.getElementById('canvas').dataset.milliseconds)") < 1000
        assert page.ask("document.getElementById('which').textContent") == "2 of 3"  # the best, of those sorted by size

        def yellow() -> int:
            return page.ask(
                "(() => { const c = document.getElementById('canvas'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
                " let n = 0; for (let i = 0; i < d.length; i += 4) n += d[i] - d[i + 2] > 60; return n; })()"
            )

        sizes = [yellow()]
        page.ask("(() => { const s = document.getElementById('grain'); s.focus(); })()")
        page.press("ArrowRight")
        assert page.ask("document.getElementById('which').textContent") == "3 of 3"
        sizes.append(yellow())
        page.ask("document.getElementById('canvas').focus()")
        for _ in range(2):
            for kind in ("keyDown", "keyUp"):
                page.send("Input.dispatchKeyEvent", type=kind, key="-", text="-" if kind == "keyDown" else "")
        assert page.ask("document.getElementById('which').textContent") == "1 of 3"
        sizes.append(yellow())
        assert sizes[1] < sizes[0] < sizes[2]
        assert page.ask("document.querySelector('#masks button[aria-pressed=true]').textContent").startswith("38 % of the picture")
        page.press("ArrowRight")
        page.press("Enter")
        wait(f"{status}.startsWith('3 masks at 104, 75 in ')")
        page.ask("document.querySelectorAll('#pictures button')[1].click()")
        wait(f"{status} === 'Click on something.' && document.getElementById('canvas').width === 100")
        assert gallery.student.looks == 2
        for width, scheme in ((360, "light"), (1280, "dark")):
            page.open(f"http://{HOST}:{port}/", width, 800, scheme)
            wait(f"{status} === 'Click on something.'")
            page.ask("asked(70, 60)")
            assert page.ask("document.documentElement.scrollWidth <= innerWidth")
            if folder := os.environ.get("USS_SCREENSHOTS"):
                page.screenshot(Path(folder) / f"prompt-{width}-{scheme}.png")
        assert not page.complaints


def test_uploads_of_too_many_pixels_are_refused_before_they_are_decoded(tmp_path):
    stream = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(stream, "PNG")
    with served([picture(tmp_path / "a.png")]) as (port, gallery):
        status, body, _ = ask(port, "/upload", "POST", stream.getvalue(), Content_Type="image/png", X_Name="b.png")
        assert (status, json.loads(body)["error"]) == (400, "b.png has 10000×10000 pixels, more than 50,000,000. Scale it down first.")
        assert len(gallery.listing()) == 1


def test_a_body_that_drips_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(prompt_page, "READ_SECONDS", 1.0)
    with served([picture(tmp_path / "a.png")]) as (port, _), socket.create_connection((HOST, port), timeout=20) as connection:
        host = f"Host: {HOST}:{port}\r\n"
        connection.sendall(f"POST /upload HTTP/1.1\r\n{host}Content-Type: image/png\r\nContent-Length: 1000\r\n\r\n".encode())
        started, answer = time.monotonic(), b""
        connection.settimeout(0.2)
        while b"408" not in answer and time.monotonic() - started < 10:
            with contextlib.suppress(OSError):
                connection.sendall(b"x")
                answer += connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - started < 5
        assert ask(port, "/pictures")[0] == 200, "others are served"
