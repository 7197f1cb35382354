"""Downloads from a real server that fails in every way: resumed, started again, or refused in one sentence."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from disks import fill, mounted
from web import Site, serving

from uss_dagster.datasets.base import Archive
from uss_dagster.downloads import fetch as _fetch
from uss_dagster.downloads.fetch import fetch, verify
from uss_dagster.errors import BadData, TryAgain, Unavailable, UsageError, from_os_error

DATA = np.random.default_rng(0).integers(0, 256, 1_000_003, np.uint8).tobytes()
MD5 = hashlib.md5(DATA).hexdigest()
PIECE = 300_000


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site({"/a.tar": DATA})) as running:
        yield running


def archive(*urls: str, size: int = len(DATA), md5: str = MD5) -> Archive:
    return Archive("a.tar", urls, size=size, md5=md5)


def get(folder: Path, wanted: Archive, told: list[int] | None = None) -> _fetch.Fetched:
    return fetch(wanted, folder, (told if told is not None else []).append, piece=PIECE, pause=0.001)


def whole(folder: Path) -> None:
    """The file is there, right, and alone."""
    assert (folder / "a.tar").read_bytes() == DATA
    assert [p.name for p in folder.iterdir()] == ["a.tar"]


def test_pieces_over_several_connections(site, tmp_path):
    told: list[int] = []
    found = get(tmp_path, archive(f"{site.url}/a.tar"), told)
    whole(tmp_path)
    assert sum(told) == len(DATA)
    assert sorted(r for _, r in site.requests) == [
        "bytes=0-299999",
        "bytes=300000-599999",
        "bytes=600000-899999",
        "bytes=900000-1000002",
    ]
    assert (found.size, found.md5, found.sha256) == (len(DATA), MD5, hashlib.sha256(DATA).hexdigest())
    before = len(site.requests)
    assert get(tmp_path, archive(f"{site.url}/a.tar")) == found
    assert len(site.requests) == before, "what is there is verified, not fetched again"


@pytest.mark.parametrize("drops", [1, 4])
def test_a_server_that_drops_in_the_middle_is_resumed(site, tmp_path, drops):
    site.drops = drops
    get(tmp_path, archive(f"{site.url}/a.tar"))
    whole(tmp_path)
    assert site.sent == len(DATA), "no byte was fetched twice"


def test_a_later_run_resumes_where_an_earlier_one_stopped(site, tmp_path, monkeypatch):
    monkeypatch.setattr(_fetch, "TRIES", 1)
    monkeypatch.setattr(_fetch, "CONNECTIONS", 1)
    site.drops = 1
    with pytest.raises(Unavailable, match=r"a\.tar could not be fetched.*the connection broke.*it goes on where it stopped"):
        get(tmp_path, archive(f"{site.url}/a.tar"))
    state = json.loads((tmp_path / "a.tar.part.json").read_text())
    assert state["done"] == [150_000, 0, 0, 0]
    with pytest.raises(Unavailable):  # another mirror, which does not answer, costs nothing
        get(tmp_path, archive("http://127.0.0.1:9/a.tar"))
    told: list[int] = []
    get(tmp_path, archive(f"{site.url}/a.tar"), told)
    whole(tmp_path)
    assert site.sent == len(DATA)
    assert told[0] == 150_000


def test_another_version_is_not_glued_to_the_first(site, tmp_path, monkeypatch):
    monkeypatch.setattr(_fetch, "TRIES", 1)
    site.drops = 1
    site.files["/a.tar"] = bytes(len(DATA))
    with pytest.raises(Unavailable):
        get(tmp_path, archive(f"{site.url}/a.tar"))
    site.files["/a.tar"] = DATA
    get(tmp_path, archive(f"{site.url}/a.tar"))
    whole(tmp_path)


@pytest.mark.parametrize("length", [True, False], ids=["size told", "size not told"])
def test_a_server_without_ranges_starts_again(site, tmp_path, length):
    site.ranges, site.drops, site.length = False, 2 if length else 0, length
    told: list[int] = []
    get(tmp_path, archive(f"{site.url}/a.tar"), told)
    whole(tmp_path)
    assert len(site.requests) == (3 if length else 1)
    assert sum(told) == len(DATA)


def test_without_a_validator_nothing_is_resumed_later(site, tmp_path, monkeypatch):
    monkeypatch.setattr(_fetch, "TRIES", 1)
    site.validator, site.drops = False, 1
    with pytest.raises(Unavailable):
        get(tmp_path, archive(f"{site.url}/a.tar"))
    assert not (tmp_path / "a.tar.part.json").exists()
    get(tmp_path, archive(f"{site.url}/a.tar"))
    whole(tmp_path)


def test_passing_errors_are_waited_out(site, tmp_path):
    site.errors = [503, 429]
    get(tmp_path, archive(f"{site.url}/a.tar"))
    whole(tmp_path)


def test_mirrors_are_tried_in_order(site, tmp_path):
    with serving(Site(page="<html>log in</html>")) as login, serving(Site({"/a.tar": DATA[:-1]})) as short:
        urls = ("http://127.0.0.1:9/a.tar", f"{site.url}/gone.tar", f"{login.url}/a.tar", f"{short.url}/a.tar", f"{site.url}/a.tar")
        found = get(tmp_path, archive(*urls))
        whole(tmp_path)
        assert found.url == urls[-1]
        with pytest.raises(Unavailable) as error:
            get(tmp_path / "none", archive(*urls[:-1]))
    for said in ("cannot be reached", "answers 404", "a web page, not with the file", "offers 1,000,002 bytes, expected 1,000,003"):
        assert said in str(error.value)


def test_a_wrong_checksum_is_bad_data_and_leaves_nothing(site, tmp_path):
    with pytest.raises(BadData, match=f"has md5 {MD5}, expected {'0' * 32}: it is damaged, or another release"):
        get(tmp_path, archive(f"{site.url}/a.tar", md5="0" * 32))
    assert not list(tmp_path.iterdir())


def test_a_web_page_that_calls_itself_an_archive(site, tmp_path):
    site.files["/a.tar"] = b"<!DOCTYPE html><html>quota exceeded</html>"
    with pytest.raises(BadData, match="a web page, not an archive"):
        get(tmp_path, archive(f"{site.url}/a.tar", size=0, md5=""))
    assert not list(tmp_path.iterdir())


def test_redirects_stay_on_the_web(site, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("mine")
    site.moved = {"/1": "/a.tar", "/2": f"file://{secret}", "/3": "ftp://127.0.0.1/a.tar", "/4": "/4"}
    get(tmp_path / "in", archive(f"{site.url}/1"))
    whole(tmp_path / "in")
    for path in ("/2", "/3", "/4"):
        with pytest.raises(Unavailable):
            get(tmp_path / "out", archive(f"{site.url}{path}", size=0, md5=""))
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(UsageError, match="is no http or https address"):
        get(tmp_path, archive(f"file://{secret}"))


def test_a_full_disk(site, tmp_path):
    with mounted(tmp_path / "disk", "size=1600k") as disk:
        (disk / "other").write_bytes(bytes(900_000))
        with pytest.raises(TryAgain, match=r"has 1,000,003 bytes, .* free\. Free some space"):
            get(disk / "in", archive(f"{site.url}/a.tar"))
        site.length, site.ranges = False, False  # its size is not told: the disk fills up on the way
        with pytest.raises(OSError) as error:
            get(disk / "in", archive(f"{site.url}/a.tar"))
        assert isinstance(from_os_error(error.value), TryAgain)
        assert not (disk / "in" / "a.tar").exists()
        (disk / "other").unlink()
        get(disk / "in", archive(f"{site.url}/a.tar"))
        assert (disk / "in" / "a.tar").read_bytes() == DATA
        fill(disk).unlink()


def test_verifying_a_file_one_has(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(DATA)
    assert verify(archive(), path).sha256 == hashlib.sha256(DATA).hexdigest()
    path.write_bytes(DATA[:-5])
    with pytest.raises(BadData, match="has 999,998 bytes, expected 1,000,003: it is cut short"):
        verify(archive(), path)
    path.write_bytes(DATA[:-1] + b"?")
    with pytest.raises(BadData, match="has md5"):
        verify(archive(), path)
    path.write_bytes(b"")
    with pytest.raises(BadData, match="is empty"):
        verify(archive(), path)
