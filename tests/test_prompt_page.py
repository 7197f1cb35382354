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
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from axe import AUDITED, axe_source, violations
from devtools import Page, browser, find_chromium
from PIL import Image

from uss_dagster.loopback import HOST
from uss_dagster.regions import rle
from uss_dagster.student import prompt_page
from uss_dagster.student.prompt_input import Prompt
from uss_dagster.student.prompt_page import Gallery, make_server

BAD_NAME = '<img src=x onerror="window.hacked=1">.png'


RADII = ((30, 0.9), (60, 0.8), (12, 0.4))


@dataclass(frozen=True)
class Answer:
    code: bytes
    quality: float


class Discs:
    """In the place of a student: discs of three sizes around a click, the middle one the best; counts how often it looked.

    A box, a previous mask and further points are part of every disc, what is near negative points of none.
    """

    def __init__(self) -> None:
        self.looks = 0

    def encode(self, image: np.ndarray, split: int = 1) -> EncodedDiscs:
        self.looks += 1
        return EncodedDiscs(image.shape[:2])


@dataclass(frozen=True)
class EncodedDiscs:
    shape: tuple[int, int]

    def ask(self, prompt: Prompt, granularity: float | None = None) -> list[Answer]:
        prompt.check(self.shape)
        rows, columns = np.ogrid[: self.shape[0], : self.shape[1]]
        near = [np.hypot(rows - y, columns - x) for x, y in prompt.points]
        always = np.zeros(self.shape, bool) if prompt.mask is None else prompt.mask.copy()
        if prompt.box:
            left, top, right, bottom = map(int, prompt.box)
            always[top : bottom + 1, left : right + 1] = True
        answers = []
        for radius, quality in RADII:
            mask = always.copy()
            for distance, label in zip(near, prompt.labels, strict=True):
                mask = mask | (distance <= radius) if label else mask & (distance > 10)
            answers.append(Answer(rle.encode(mask[None])[0], quality))
        return sorted(answers, key=lambda answer: -answer.quality)


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


def question(port: int, **parts: object) -> tuple[int, dict]:
    status, body, _ = ask(port, "/prompt", "POST", json.dumps({"number": 0, **parts}).encode(), Content_Type="application/json")
    return status, json.loads(body)


def png(height: int = 40, width: int = 50) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def test_masks_of_a_click_and_one_look_a_picture(tmp_path):
    with served([picture(tmp_path / "a.png"), picture(tmp_path / "b.png")]) as (port, gallery):
        answers = [question(port, points=[[100, y]], labels=[1])[1] for y in (70, 75)]
        found = [answer["masks"] for answer in answers]
        assert [answer["best"] for answer in answers] == [1, 1]
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
                     "/picture?number=1", "/picture?number=-1", "/picture", "/click", "/prompt", "/upload"):  # fmt: skip
            status, body, _ = ask(port, path)
            assert (status, b"secret" in body) == (404, False), path
        assert ask(port, "/prompt", "POST", b'{"number": 7, "points": [[1, 1]], "labels": [1]}')[0] == 404
        for body in (b"not json", b"[]", b"{}", b'{"number": null}', b'{"number": {}}'):
            assert ask(port, "/prompt", "POST", body)[0] == 404
        assert ask(port, "/prompt", "POST", b'{"number": 0}', Origin="http://evil.example")[0] == 403


def test_a_question_has_points_a_box_and_a_previous_mask(tmp_path):
    with served([picture(tmp_path / "a.png")]) as (port, _):
        first = question(port, points=[[100, 75]], labels=[1])[1]["masks"][2]
        again = question(port, points=[[100, 75], [104, 75]], labels=[1, 0], box=[150, 20, 160, 40], mask=first["runs"])[1]["masks"]
        rows, columns = np.mgrid[:150, :200]
        expected = np.hypot(rows - 75, columns - 100) <= 12
        expected |= (rows >= 20) & (rows <= 40) & (columns >= 150) & (columns <= 160)
        expected &= np.hypot(rows - 75, columns - 104) > 10
        drawn = np.repeat(np.arange(len(again[2]["runs"])) % 2 == 1, again[2]["runs"]).reshape(200, 150).T
        np.testing.assert_array_equal(drawn, expected)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({}, "Nothing says where the object is"),
        ({"points": [[200, 0]], "labels": [1]}, "The point 200,0 is not in the image"),
        ({"points": [[1, 0]], "labels": [3]}, "expected 1 for a positive"),
        ({"points": [[1, 0]], "labels": []}, "1 points and 0 labels"),
        ({"points": [["a", {}]], "labels": [1]}, "This is no question about the picture"),
        ({"points": [[1, 2, 3]], "labels": [1]}, "This is no question about the picture"),
        ({"box": [1, 2, 3]}, "The box has 3 numbers"),
        ({"points": [[1, 1]], "labels": [1], "mask": [10, 20]}, "This is no question about the picture"),
        ({"points": [[1, 1]], "labels": [1], "mask": [30_010, -10]}, "This is no question about the picture"),
    ],
)
def test_questions_that_are_none(tmp_path, parts, said):
    with served([picture(tmp_path / "a.png")]) as (port, _):
        status, answer = question(port, **parts)
        assert status == 400
        assert said in answer["error"]


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
    first = gallery.ask(0, {"points": [[100, 75]], "labels": [1]})["masks"]
    encoded = time.perf_counter()
    second = gallery.ask(0, {"points": [[100, 75]], "labels": [1]})["masks"]
    assert first == second
    assert 1 <= len(first) <= 3
    assert gallery.ask(0, {"box": [20, 20, 90, 90], "mask": first[0]["runs"]})["masks"]
    assert time.perf_counter() - encoded < max(1.0, encoded - started)
    for mask in first:
        assert sum(mask["runs"]) == 150 * 200
        assert sum(mask["runs"][1::2]) == pytest.approx(mask["share"] * 30_000, abs=1)


class Hand:
    """A person at the page: mouse, keys and finger, in pixels of the picture."""

    def __init__(self, page: Page, port: int) -> None:
        self.page, self.address = page, f"http://{HOST}:{port}/"

    def wait(self, condition: str) -> None:
        self.page.ask(
            "new Promise((done, fail) => { const end = Date.now() + 10000; (function look() { "
            f"if ({condition}) done(true); else if (Date.now() > end) fail(document.body.innerText); else setTimeout(look, 20); }})(); }})"
        )

    def place(self, x: float, y: float) -> tuple[float, float]:
        box = self.page.ask("(({left, top, width, height}) => [left, top, width, height])(canvas.getBoundingClientRect())")
        size = self.page.ask("[canvas.width, canvas.height]")
        return box[0] + (x + 0.5) / size[0] * box[2], box[1] + (y + 0.5) / size[1] * box[3]

    def mouse(self, kind: str, x: float, y: float, button: str = "left", modifiers: int = 0) -> None:
        left, top = self.place(x, y)
        buttons = 0 if kind == "mouseReleased" else {"left": 1, "right": 2}[button]
        self.page.send(
            "Input.dispatchMouseEvent", type=kind, x=left, y=top, button=button, buttons=buttons, clickCount=1, modifiers=modifiers
        )

    def click(self, x: float, y: float, **options: Any) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, **options)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        for kind, point in (("mousePressed", start), ("mouseMoved", middle), ("mouseMoved", end), ("mouseReleased", end)):
            self.mouse(kind, *point)

    def key(self, key: str, modifiers: int = 0) -> None:
        text = key if len(key) == 1 and not modifiers else "\r" if key == "Enter" else ""
        for kind in ("keyDown", "keyUp"):
            self.page.send("Input.dispatchKeyEvent", type=kind, key=key, modifiers=modifiers, text=text if kind == "keyDown" else "")

    def touch(self, *points: tuple[float, float], seconds: float = 0.0) -> None:
        for number, point in enumerate(points):
            left, top = self.place(*point)
            self.page.send("Input.dispatchTouchEvent", type="touchMove" if number else "touchStart", touchPoints=[{"x": left, "y": top}])
        time.sleep(seconds)
        self.page.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def objects(self) -> list[tuple[list[list[int]], list[int], list[int] | None]]:
        return [tuple(o) for o in self.page.ask("state.objects.map((o) => [o.points, o.labels, o.box])")]

    def pixels(self) -> int:
        """Of the mask that is shown."""
        return self.page.ask("current().drawn.length ? current().drawn[current().shown].reduce((a, b) => a + b, 0) : 0")

    def status(self, text: str) -> None:
        self.wait(f"document.getElementById('status').textContent.startsWith({json.dumps(text)})")


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium here: the page is not tested in a browser")
def test_in_a_browser(tmp_path):
    files = [picture(tmp_path / "a.png"), picture(tmp_path / "b.png", 100, 100, seed=1)]
    with served(files, [BAD_NAME, "b.png"]) as (port, gallery), browser(str(find_chromium())) as page:
        hand = Hand(page, port)
        page.open(hand.address)
        hand.status("Click on something.")
        assert page.ask("document.querySelector('#pictures span').textContent") == BAD_NAME
        assert page.ask("window.hacked") is None
        assert page.ask("document.querySelectorAll('#pictures img').length") == 2
        granularity(hand)
        points_and_boxes(hand)
        several_objects(hand)
        keys(hand)
        page.ask("document.querySelectorAll('#pictures button')[1].click()")
        hand.wait("document.getElementById('status').textContent === 'Click on something.' && canvas.width === 100")
        assert hand.objects() == [([], [], None)]
        assert gallery.student.looks == 2
        a_finger(hand)
        for width, scheme in ((390, "light"), (1400, "dark")):
            page.open(hand.address, width, 800, scheme)
            hand.status("Click on something.")
            page.ask("asked(70, 60)")
            assert page.ask("document.documentElement.scrollWidth <= innerWidth")
            if folder := os.environ.get("USS_SCREENSHOTS"):
                page.screenshot(Path(folder) / f"prompt-{width}-{scheme}.png")
        assert not page.complaints


def granularity(hand: Hand) -> None:
    page = hand.page
    hand.click(100, 75)
    hand.status("3 masks at 100, 75 in ")
    assert page.ask("Number(canvas.dataset.milliseconds)") < 1000
    assert page.ask("document.getElementById('which').textContent") == "2 of 3"  # the best, of those sorted by size

    def yellow() -> int:
        return page.ask(
            "(() => { const d = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;"
            " let n = 0; for (let i = 0; i < d.length; i += 4) n += d[i] - d[i + 2] > 60; return n; })()"
        )

    sizes = [yellow()]
    page.ask("(() => { const s = document.getElementById('grain'); s.focus(); })()")
    page.press("ArrowRight")
    assert page.ask("document.getElementById('which').textContent") == "3 of 3"
    sizes.append(yellow())
    page.ask("canvas.focus()")
    for _ in range(2):
        hand.key("-")
    assert page.ask("document.getElementById('which').textContent") == "1 of 3"
    sizes.append(yellow())
    assert sizes[1] < sizes[0] < sizes[2]
    assert page.ask("document.querySelector('#masks button[aria-pressed=true]').textContent").startswith("38 % of the picture")
    hand.key("ArrowRight")
    hand.key("Enter")
    hand.status("3 masks at 104, 75 in ")


def points_and_boxes(hand: Hand) -> None:
    """What was shown is refined: the larger disc stays, and what negative points take away is gone."""
    before = hand.pixels()
    hand.click(60, 75, modifiers=8)  # Shift
    hand.status("3 masks at 60, 75 in ")
    hand.click(140, 75, button="right")
    hand.status("3 masks at 140, 75 in ")
    assert hand.objects() == [([[100, 75], [104, 75], [60, 75], [140, 75]], [1, 1, 0, 0], None)]
    assert before - 2 * 320 < hand.pixels() < before - 2 * 200
    hand.page.ask("document.querySelector('[data-mode=remove]').click()")
    hand.click(100, 40)
    hand.status("3 masks at 100, 40 in ")
    assert hand.objects()[0][1] == [1, 1, 0, 0, 0]
    for left in (4, 3):
        hand.page.ask("document.getElementById('undo').click()")
        assert len(hand.objects()[0][0]) == left
    assert hand.page.ask("document.getElementById('undo').disabled") is False
    hand.page.ask("document.querySelector('[data-mode=add]').click()")
    hand.drag((20, 30), (60, 90))
    hand.status("3 masks in the box in ")
    assert hand.objects()[0][2] == [20, 30, 60, 90]
    hand.page.ask("undone()")
    assert hand.objects()[0][2] is None


def several_objects(hand: Hand) -> None:
    hand.page.ask("document.getElementById('next').click()")
    hand.click(20, 20, modifiers=8)
    hand.status("Add a point of the object")
    hand.click(20, 20)
    hand.status("3 masks at 20, 20 in ")
    assert [len(o[0]) for o in hand.objects()] == [3, 1]
    listed = hand.page.ask("[...document.querySelectorAll('#objects li')].map((li) => li.textContent)")
    assert [text.split(",")[0] for text in listed] == ["Object 1 3 points", "Object 2 1 point"]
    colours = hand.page.ask("[...document.querySelectorAll('#objects i')].map((i) => i.style.background)")
    assert len(set(colours)) == 2
    hand.page.ask("document.querySelectorAll('#objects li button')[0].click()")
    assert hand.page.ask("state.current") == 0
    hand.page.ask("document.querySelectorAll('#objects li')[0].lastChild.click()")
    assert [len(o[0]) for o in hand.objects()] == [1]
    hand.page.ask("undone()")
    assert [len(o[0]) for o in hand.objects()] == [3, 1]


def keys(hand: Hand) -> None:
    hand.page.ask("canvas.focus()")
    hand.key("n")
    hand.key("ArrowLeft")
    hand.key("Enter")
    hand.status("3 masks at 96, 75 in ")
    hand.key("ArrowUp")
    hand.key("Enter", modifiers=8)
    hand.status("3 masks at 96, 71 in ")
    assert hand.objects()[2] == ([[96, 75], [96, 71]], [1, 0], None)
    hand.key("z")
    assert hand.objects()[2][1] == [1]
    hand.key("Delete")
    assert len(hand.objects()) == 2
    hand.key("n")
    hand.key("b")
    hand.key("Enter")
    for arrow in ("ArrowRight", "ArrowDown", "ArrowDown"):
        hand.key(arrow)
    hand.key("Enter")
    hand.status("3 masks in the box in ")
    assert hand.objects()[2] == ([], [], [96, 71, 100, 79])  # from where the cursor was
    hand.key("a")


def a_finger(hand: Hand) -> None:
    """On a phone: a tap adds, a long press removes, a drag scrolls unless a box is drawn; every button can be hit."""
    page = hand.page
    page.open(hand.address, 390, 844, touch=True)
    hand.status("Click on something.")
    hand.touch((100, 75))
    hand.status("3 masks at 100, 75 in ")
    before = hand.pixels()
    hand.touch((110, 75), seconds=0.7)
    hand.status("3 masks at 110, 75 in ")
    assert hand.objects() == [([[100, 75], [110, 75]], [1, 0], None)]
    assert hand.pixels() < before
    hand.touch((50, 120), (50, 100), (50, 60))
    rests = "(function look() { n = scrollY === last ? n + 1 : 0; last = scrollY; n > 10 ? done() : setTimeout(look, 20); })()"
    page.ask(f"new Promise((done) => {{ let last = -1, n = 0; {rests}; }})")
    assert len(hand.objects()[0][0]) == 2, "a finger that moves is no point"
    page.ask("document.getElementById('next').click(), document.querySelector('[data-mode=box]').click()")
    page.ask("scrollTo(0, 0)")
    hand.touch((20, 30), (40, 60), (60, 90))
    hand.status("3 masks in the box in ")
    left, top, right, bottom = hand.objects()[1][2] or (0, 0, 0, 0)
    assert np.abs(np.array([left, top, right, bottom]) - (20, 30, 60, 90)).max() <= 1
    assert page.ask("document.documentElement.scrollWidth <= innerWidth")
    heights = page.ask("[...document.querySelectorAll('.tools button, #objects button')].map((b) => b.getBoundingClientRect().height)")
    assert min(heights) >= 38


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


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium here: the page is not tested in a browser")
def test_axe_finds_nothing(tmp_path):
    with served([picture(tmp_path / "a.png"), picture(tmp_path / "b.png")]) as (port, _), browser(str(find_chromium())) as page:
        hand = Hand(page, port)
        for width, scheme in AUDITED:
            page.open(hand.address, width, 900, scheme, touch=width < 500)
            hand.status("Click on something.")
            page.ask("asked(70, 60)")
            assert violations(page, axe_source()) == [], (width, scheme)
