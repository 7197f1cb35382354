"""The page of `uss annotate`: what the server answers and refuses, the page itself in a browser, and the command."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from annotation_cases import HEIGHT, WIDTH, code_of, fields, make_bench, make_photos, make_run, runs_of, served
from axe import AUDITED, axe_source, violations
from devtools import Page, browser, find_chromium
from PIL import Image
from projects import SOURCE

from uss_dagster.annotation import page as page_module
from uss_dagster.annotation import workbench as workbench_module
from uss_dagster.annotation.document import Document
from uss_dagster.annotation.page import UsageError, listen
from uss_dagster.annotation.workbench import Workbench, packed
from uss_dagster.loopback import HOST
from uss_dagster.regions import rle

BAD_NAME = '<img src=x onerror="window.hacked=1">'
HOUSE, TREE = np.isin(fields(), (2, 3)), fields() == 4


def ask(port: int, path: str, method: str = "GET", value: object = None, **headers: str) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection(HOST, port, timeout=20)
    body = None if value is None else value if isinstance(value, bytes) else json.dumps(value).encode()
    if method == "PUT":
        headers = {"Content_Type": "application/json"} | headers
    try:
        connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


def change(revision: int = 0, instances: list[object] | None = None, **more: object) -> dict[str, object]:
    return {"revision": revision, "done": False, "instances": instances or [], "draft": None} | more


@pytest.fixture
def bench(tmp_path) -> Workbench:
    return make_bench(tmp_path, ["a", "b"], classes=("house",))


def test_a_change_is_in_the_file_when_it_is_answered(tmp_path, bench):
    with served(bench) as port:
        images = json.loads(ask(port, "/images")[1])
        assert sorted(image["name"] for image in images["images"]) == ["a.png", "b.png"]
        assert images["names"] == ["house"]
        number = next(image["number"] for image in images["images"] if image["name"] == "a.png")
        rows = [{"id": None, "name": "house", "runs": runs_of(HOUSE)}, {"name": " tree ", "runs": runs_of(TREE)}]
        status, body, _ = ask(port, f"/sheet?number={number}", "PUT", change(0, rows, draft={"instance": None, "runs": runs_of(TREE)}))
        assert status == 200, body
        answer = json.loads(body)
        assert (answer["revision"], [row["id"] for row in answer["instances"]], answer["names"]) == (1, [1, 2], ["house", "tree"])
        content = json.loads((tmp_path / "annotations.json").read_text())
        assert [a["segmentation"]["counts"].encode() for a in content["annotations"]] == [code_of(HOUSE), code_of(TREE)]
        sheet = json.loads(ask(port, f"/sheet?number={number}")[1])
        assert sheet["instances"][1] == {"id": 2, "name": "tree", "mask": answer["instances"][1]["mask"], "runs": runs_of(TREE)}
        assert sheet["draft"]["runs"] == runs_of(TREE)
        named = [{"id": 2, "name": "oak", "mask": answer["instances"][1]["mask"]}]
        assert ask(port, f"/sheet?number={number}", "PUT", change(1, named, done=True))[0] == 200
        status, body, _ = ask(port, f"/sheet?number={number}", "PUT", change(1))
        assert (status, "another window" in json.loads(body)["error"]) == (409, True)
        assert json.loads(ask(port, "/ranking")[1])["now"]["images"] == 1


@pytest.mark.parametrize(
    "value",
    [
        b"{", b"[]", b"[" * 100_000, change(revision=None), change(done=1), change(instances=[1]), change(instances=3),
        change(instances=[{"name": "a"}]), change(instances=[{"name": "a", "runs": [1, 2]}]), change(instances=[{"runs": runs_of(TREE)}]),
        change(instances=[{"name": "", "runs": runs_of(TREE)}]), change(instances=[{"name": "a\n", "runs": [HEIGHT * WIDTH, 0]}]),
        change(instances=[{"name": "a", "runs": [HEIGHT * WIDTH]}]), change(instances=[{"name": "a", "runs": [-1, HEIGHT * WIDTH + 1]}]),
        change(instances=[{"name": "a", "runs": [True, HEIGHT * WIDTH - 1]}]), change(instances=[{"name": "a", "mask": "0" * 16}]),
        change(instances=[{"name": "a", "id": "1", "runs": runs_of(TREE)}]), change(draft=3), change(draft={"runs": []}),
        change(instances=[{"name": "a", "runs": runs_of(TREE)}] * 2001),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_a_change_that_is_none_changes_nothing(tmp_path, bench, value):
    with served(bench) as port:
        status, body, _ = ask(port, "/sheet?number=0", "PUT", value)
        assert status == 400, body
        assert json.loads(body)["error"]
    assert not (tmp_path / "annotations.json").exists()


def test_only_this_machine_under_its_own_name(bench, monkeypatch):
    with served(bench) as port:
        assert ask(port, "/images", Host=f"localhost:{port}")[0] == 200
        for host in ("evil.example", f"evil.example:{port}", f"{HOST}:1", HOST, ""):
            status, body, headers = ask(port, "/images", Host=host)
            assert (status, b"a.png" in body) == (403, False), host
            assert "Content-Security-Policy" in headers
        assert ask(port, "/sheet?number=0", "PUT", change(), Origin="http://evil.example")[0] == 403
        assert ask(port, "/images", Origin="null")[0] == 403
        assert ask(port, "/images", Origin=f"http://{HOST}:{port}")[0] == 200
        assert ask(port, "/sheet?number=0", "PUT", change(), Content_Type="text/plain")[0] == 415
        headers = ask(port, "/")[2]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Frame-Options"] == "DENY"
        for path in ("/secret", "/../photos/a.png", "/%2e%2e/photos/a.png", "/annotate.css/../../page.py", "/picture?number=2", "/picture?number=-1",
                     "/picture", "/picture?number=a", "/pool?number=9", "/sheet?number=99999999999", "/picture?number=0&side=x"):  # fmt: skip
            assert ask(port, path)[0] == 404, path
        assert ask(port, "/sheet?number=7", "PUT", change())[0] == 404
        assert ask(port, "/images", "POST")[0] == 405
        monkeypatch.setattr(page_module, "BODY_BYTES", 100)
        assert ask(port, "/sheet?number=0", "PUT", b"[" + b" " * 200 + b"]")[0] == 413
        assert ask(port, "/images")[0] == 200
        with pytest.raises(UsageError, match=f"^Port {port} cannot be used"):
            listen(port)


def test_a_body_that_drips_is_given_up(bench, monkeypatch):
    monkeypatch.setattr(page_module, "READ_SECONDS", 0.3)
    with served(bench) as port, socket.create_connection((HOST, port), timeout=20) as connection:
        head = f"PUT /sheet?number=0 HTTP/1.1\r\nHost: {HOST}:{port}\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n["
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_a_full_disk_is_said_and_nothing_is_lost(bench, monkeypatch):
    def full(path: Path, data: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    with served(bench) as port:
        assert ask(port, "/sheet?number=0", "PUT", change(0, [{"name": "a", "runs": runs_of(TREE)}]))[0] == 200
        before = bench.document.path.read_bytes()
        monkeypatch.setattr("uss_dagster.annotation.document.write_whole", full)
        status, body, _ = ask(port, "/sheet?number=0", "PUT", change(1))
        assert (status, "disk is full" in json.loads(body)["error"]) == (507, True)
        assert bench.document.path.read_bytes() == before
        monkeypatch.undo()
        assert ask(port, "/sheet?number=0", "PUT", change(1))[0] == 200


def test_large_images_are_worked_on_smaller_and_unchanged_masks_keep_their_pixels(bench, monkeypatch):
    monkeypatch.setattr(workbench_module, "LONGEST", WIDTH // 2)
    number = next(number for number, picture in enumerate(bench.pictures) if picture.image_id == "a")
    fine = np.zeros((HEIGHT, WIDTH), bool)
    fine[20:31, 11:34] = True
    bench.document.change("a", 0, [(None, "thing", code_of(fine))])
    sheet = bench.sheet(number)
    assert (sheet["width"], sheet["height"]) == (WIDTH // 2, HEIGHT // 2)
    row = sheet["instances"][0]
    assert sum(row["runs"]) == WIDTH * HEIGHT // 4
    small = np.zeros((HEIGHT // 2, WIDTH // 2), bool)
    small[30:40, 5:50] = True
    bench.change(number, change(1, [{"id": row["id"], "name": "other", "mask": row["mask"]}, {"name": "new", "runs": runs_of(small)}]))
    first, second = bench.document.sheets["a"].instances
    assert (first.name, first.code) == ("other", code_of(fine))
    np.testing.assert_array_equal(rle.decode(second.code, HEIGHT, WIDTH), np.kron(small, np.ones((2, 2), bool)))
    words = np.frombuffer(bench.pool(number), "<i4")
    assert words[:2].tolist() == [WIDTH // 2, HEIGHT // 2]


def test_what_the_page_gets_of_the_candidates(bench):
    data = bench.pool(0)
    assert data == packed(bench._pools[0])
    words = np.frombuffer(data, "<i4")
    width, height, atoms, count, places = words[:5].tolist()
    pixels, rest = words[5 : 5 + width * height].reshape(height, width), words[5 + width * height :]
    starts, chains, first = rest[: atoms + 1], rest[atoms + 1 : atoms + 1 + places], rest[atoms + 1 + places : atoms * 2 + 1 + places]
    assert len(rest) == atoms * 2 + 1 + places + count
    pool = bench._pools[0]
    for x, y in ((47, 80), (120, 50), (3, 3)):
        chain, start = pool.at(x, y)
        atom = pixels[y, x]
        np.testing.assert_array_equal(chains[starts[atom] : starts[atom + 1]], chain)
        assert first[atom] == start


# -- in a browser -------------------------------------------------------------------------------------------------


class Hand:
    """A person at the page."""

    def __init__(self, page: Page, port: int) -> None:
        self.page, self.address = page, f"http://{HOST}:{port}/"

    def wait(self, condition: str) -> None:
        self.page.ask(
            "new Promise((done, fail) => { const end = Date.now() + 15000; (function look() { "
            f"if ({condition}) done(true); else if (Date.now() > end) fail(document.body.innerText); else setTimeout(look, 20); }})(); }})"
        )

    def saved(self) -> None:
        self.wait("document.getElementById('saved').textContent.startsWith('Saved in')")

    def text(self, name: str) -> str:
        return self.page.ask(f"document.getElementById('{name}').textContent")

    def place(self, x: float, y: float) -> tuple[float, float]:
        box = self.page.ask("(({left, top, width, height}) => [left, top, width, height])(canvas.getBoundingClientRect())")
        return box[0] + (x + 0.5) / WIDTH * box[2], box[1] + (y + 0.5) / HEIGHT * box[3]

    def mouse(self, kind: str, x: float, y: float, modifiers: int = 0, clicks: int = 1) -> None:
        left, top = self.place(x, y)
        button = "none" if kind == "mouseMoved" else "left"
        down = int(kind != "mouseReleased" and self.pressed)
        self.page.send(
            "Input.dispatchMouseEvent", type=kind, x=left, y=top, button=button, buttons=down, clickCount=clicks, modifiers=modifiers
        )

    pressed = False

    def click(self, x: float, y: float, modifiers: int = 0, clicks: int = 1) -> None:
        self.mouse("mouseMoved", x, y, modifiers)
        self.mouse("mousePressed", x, y, modifiers, clicks)
        self.mouse("mouseReleased", x, y, modifiers, clicks)

    def drag(self, *points: tuple[float, float]) -> None:
        self.mouse("mousePressed", *points[0])
        self.pressed = True
        for point in points[1:]:
            self.mouse("mouseMoved", *point)
        self.pressed = False
        self.mouse("mouseReleased", *points[-1])

    def wheel(self, x: float, y: float, delta: int) -> None:
        left, top = self.place(x, y)
        self.page.send("Input.dispatchMouseEvent", type="mouseWheel", x=left, y=top, deltaX=0, deltaY=delta)

    def key(self, key: str, modifiers: int = 0) -> None:
        text = key if len(key) == 1 and not modifiers & 2 else "\r" if key == "Enter" else ""
        for kind in ("keyDown", "keyUp"):
            self.page.send("Input.dispatchKeyEvent", type=kind, key=key, modifiers=modifiers, text=text if kind == "keyDown" else "")

    def touch(self, *points: tuple[float, float]) -> None:
        for number, point in enumerate(points):
            left, top = self.place(*point)
            self.page.send("Input.dispatchTouchEvent", type="touchMove" if number else "touchStart", touchPoints=[{"x": left, "y": top}])
        self.page.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def fit(self, size: int) -> None:
        """Move the slider to the region of this size."""
        place = f"[...state.work.selection.chain].findIndex((region) => state.work.pool.area[region] === {size})"
        self.page.ask(f"(at('which').value = {place}, at('which').dispatchEvent(new Event('input')))")

    def selected(self) -> int:
        return self.page.ask("state.work.selection ? areaOf(state.work.selection.bits) : 0")


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium here: the page is not tested in a browser")
def test_in_a_browser(tmp_path):
    bench = make_bench(tmp_path, ["a", "b"], classes=("house", BAD_NAME))
    number = next(number for number, picture in enumerate(bench.pictures) if picture.image_id == "a")
    with served(bench) as port, browser(str(find_chromium())) as page:
        hand = Hand(page, port)
        page.open(hand.address)
        hand.wait("state.work")
        page.ask(f"opened({number})")
        hand.wait(f"state.work.number === {number} && document.getElementById('status').textContent === 'Click on a thing.'")
        clicks_and_steps(hand)
        names_undo_and_edits(hand, bench)
        brush_and_keys(hand)
        done_and_ranking(hand, bench, number)
        other_widths(hand)
        assert page.ask("window.hacked") is None
        assert not page.complaints


def clicks_and_steps(hand: Hand) -> None:
    hand.click(120, 50)
    hand.fit(TREE.sum())
    hand.click(47, 80)
    sizes = [hand.selected()]
    while sizes[-1] < HOUSE.sum():
        hand.wheel(47, 80, -120)
        hand.wait(f"areaOf(state.work.selection.bits) > {sizes[-1]} || document.getElementById('status').textContent.includes('no larger')")
        sizes.append(hand.selected())
    hand.key("-")
    assert hand.selected() < sizes[-1]
    hand.key(">")
    assert hand.selected() >= sizes[0]
    hand.fit(HOUSE.sum())
    hand.click(120, 50, modifiers=8)  # Shift adds
    hand.fit(TREE.sum())
    assert hand.selected() == HOUSE.sum() + TREE.sum()
    hand.click(120, 50, modifiers=1)  # Alt takes away
    hand.fit(TREE.sum())
    assert hand.selected() == HOUSE.sum()


def names_undo_and_edits(hand: Hand, bench: Workbench) -> None:
    hand.page.ask("document.querySelectorAll('#chips button')[0].click()")
    hand.saved()
    assert [(i.name, i.code) for i in bench.document.sheets["a"].instances] == [("house", code_of(HOUSE))]
    hand.click(120, 50)
    hand.fit(TREE.sum())
    hand.page.ask(f"document.getElementById('class').value = {json.dumps(BAD_NAME)}")
    hand.key("Enter")
    hand.saved()
    assert hand.page.ask("document.querySelectorAll('#instances li').length") == 2
    assert hand.page.ask("document.querySelectorAll('#instances span')[1].textContent") == BAD_NAME
    hand.key("z", modifiers=2)
    hand.saved()
    assert len(bench.document.sheets["a"].instances) == 1
    assert hand.selected() == TREE.sum(), "undo brings the selection back"
    hand.key("z", modifiers=2 | 8)
    hand.saved()
    assert [i.id for i in bench.document.sheets["a"].instances] == [1, 2]
    hand.click(120, 50, clicks=2)
    assert hand.page.ask("state.work.editing") == 2
    hand.page.ask("document.getElementById('class').value = 'tree'")
    hand.key("Enter")
    hand.saved()
    assert [(i.id, i.name) for i in bench.document.sheets["a"].instances] == [(1, "house"), (2, "tree")]
    hand.page.ask("document.querySelectorAll('#instances li')[0].lastChild.click()")
    hand.saved()
    assert [i.id for i in bench.document.sheets["a"].instances] == [2]
    hand.key("z", modifiers=2)
    hand.saved()
    assert bench.document.sheets["a"].instances[0].code == code_of(HOUSE)


def brush_and_keys(hand: Hand) -> None:
    hand.key("b")
    hand.drag((10, 10), (40, 10))
    painted = hand.selected()
    assert painted > 0
    hand.key("e")
    hand.drag((5, 10), (20, 10))
    assert 0 < hand.selected() < painted
    hand.key("]")
    assert hand.page.ask("Number(document.getElementById('radius').value)") > 8
    hand.page.ask("canvas.focus()")
    hand.key("n")
    before = hand.page.ask("state.point[0]")
    hand.page.press("ArrowRight")
    assert hand.page.ask("state.point[0]") > before
    hand.page.press(" ")
    assert hand.page.ask("state.work.selection.chain.length") > 0
    hand.key("Escape")
    assert hand.selected() == 0
    hand.key("?")
    assert hand.page.ask("document.getElementById('panel').open")
    hand.page.ask("document.getElementById('panel').close()")


def done_and_ranking(hand: Hand, bench: Workbench, number: int) -> None:
    hand.saved()
    hand.key("d")
    hand.wait(f"state.work.number !== {number}")
    hand.wait("document.querySelectorAll('#standings tbody tr').length === 2")
    assert hand.text("advice") == "good leads, but 1 image says little. Label at least 5."
    assert hand.text("count") == "1 of 2 images done"
    assert bench.document.done == ["a"]
    hand.click(60, 50)
    hand.saved()
    hand.page.open(hand.address)
    hand.wait("state.work && state.work.selection")
    assert hand.text("status") == "There is a selection that is not accepted yet."
    hand.key("Escape")
    hand.saved()


def other_widths(hand: Hand) -> None:
    hand.page.send("Emulation.setTouchEmulationEnabled", enabled=True)
    for width, scheme in ((390, "light"), (768, "dark"), (1400, "light")):
        hand.page.open(hand.address, width, 844, scheme)
        hand.wait("state.work && !document.getElementById('ranking').hasAttribute('aria-busy')")
        assert hand.page.ask("document.documentElement.scrollWidth <= innerWidth"), width
        if width == 390:
            small = "[...document.querySelectorAll('.stage button')].filter((b) => b.offsetHeight && b.offsetHeight < 34).length"
            assert hand.page.ask(small) == 0, "a thumb hits every button"
            hand.touch((50, 80))
            hand.wait("state.work.selection")
            size = hand.selected()
            hand.touch((30, 80), (60, 80), (100, 80))
            hand.wait(f"areaOf(state.work.selection.bits) > {size}")
            hand.saved()
        if folder := os.environ.get("USS_SCREENSHOTS"):
            hand.page.screenshot(Path(folder) / f"annotate-{width}-{scheme}.png")


# -- the command --------------------------------------------------------------------------------------------------


def start(folder: Path, *words: str) -> tuple[subprocess.Popen[str], str]:
    """The command, once it serves, and the address of the page."""
    process = subprocess.Popen(
        [sys.executable, "-m", "uss_dagster.cli", "annotate", "photos", "--port", "0", *words],
        stdout=subprocess.PIPE, text=True, cwd=folder, env=os.environ | {"PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith("http://"):
            return process, line.split()[0]
    raise AssertionError(f"the command ended with {process.wait()}")


@pytest.mark.slow
def test_the_command_goes_on_after_kill_nine(tmp_path):
    make_photos(tmp_path / "photos", ["a", "b"])
    make_run(tmp_path / "run", ["a", "b"])
    process, address = start(tmp_path, "--from", "run", "--classes", "house,tree")
    body = json.dumps(change(0, [{"name": "tree", "runs": runs_of(TREE)}], done=True)).encode()
    request = urllib.request.Request(f"{address}sheet?number=0", body, {"Content-Type": "application/json"}, method="PUT")
    assert json.load(urllib.request.urlopen(request))["revision"] == 1
    process.kill()
    process.wait()
    process, address = start(tmp_path, "--from", "run")
    images = json.load(urllib.request.urlopen(f"{address}images"))
    assert images["names"] == ["house", "tree"]
    assert [(image["done"], image["instances"]) for image in images["images"]] == [(True, 1), (False, 0)]
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130


@pytest.mark.slow
def test_the_command_segments_and_its_file_is_scored_and_curated(tmp_path):
    photos = make_photos(tmp_path / "photos", ["a", "b", "c"])
    process, address = start(tmp_path, "--method", "felzenszwalb", "--method", "kmeans")
    images = json.load(urllib.request.urlopen(f"{address}images"))
    for image in images["images"]:
        body = json.dumps(
            change(0, [{"name": "tree", "runs": runs_of(np.roll(TREE, 3 * "abc".index(image["name"][0]), axis=1))}], done=True)
        )
        request = urllib.request.Request(
            f"{address}sheet?number={image['number']}", body.encode(), {"Content-Type": "application/json"}, method="PUT"
        )
        urllib.request.urlopen(request)
    ranking = json.load(urllib.request.urlopen(f"{address}ranking"))
    assert ranking["now"]["images"] == 3
    process.send_signal(signal.SIGINT)
    process.wait(60)
    run = lambda *words: subprocess.run(  # noqa: E731
        [sys.executable, "-m", "uss_dagster.cli", *words],
        capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(SOURCE)}, check=True,
    ).stdout  # fmt: skip
    leader = ranking["now"]["standings"][0]
    pred = f".annotations.regions/entries/{leader['entry']}/regions.parquet"
    covering = run("score", "--pred", pred, "--gt", "annotations.json", "--truth", "annotators", "--metrics", "covering")
    assert f"{leader['value']:.4f}" in covering
    assert "ar1000" in run("score", "--pred", pred, "--gt", "annotations.json", "--metrics", "proposals")
    run("curate", "photos", "--labels", "annotations.json", "--out", "set", "--set", "min_area=20")
    assert "human" in (tmp_path / "set" / "labels.json").read_text() or (tmp_path / "set" / "masks.parquet").exists()
    assert Image.open(next(photos.iterdir())).size == (WIDTH, HEIGHT)


@pytest.mark.slow
def test_the_command_refuses_what_it_did_not_write(tmp_path):
    make_photos(tmp_path / "photos", ["a"])
    (tmp_path / "labels.json").write_text("{}")
    words = [sys.executable, "-m", "uss_dagster.cli", "annotate", "photos", "--out", "labels.json"]
    refused = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(SOURCE)}, check=False)
    assert (refused.returncode, "did not write it" in refused.stderr) == (64, True), refused.stderr
    assert (tmp_path / "labels.json").read_text() == "{}"
    assert Document(tmp_path / "new.json", []).done == []


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium here: the page is not tested in a browser")
def test_axe_finds_nothing(tmp_path):
    bench = make_bench(tmp_path, ["a", "b"], classes=("house", "tree"))
    with served(bench) as port, browser(str(find_chromium())) as page:
        hand = Hand(page, port)
        for width, scheme in AUDITED:
            page.open(hand.address, width, 900, scheme, touch=width < 500)
            hand.wait("state.work && document.getElementById('status').textContent")
            hand.click(120, 50)
            page.ask("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
            assert violations(page, axe_source()) == [], (width, scheme)
