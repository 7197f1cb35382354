"""Hostile and broken archives: each refused in one sentence, nothing outside the target."""

from __future__ import annotations

import gzip
import io
import shutil
import stat
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from uss_dagster.downloads.archives import Limits, extract, is_archive, plain
from uss_dagster.errors import BadData

GOOD = {"VOC/a.jpg": b"a" * 3000, "VOC/deep/er/b.txt": b"b", "README": b"read"}


def make_zip(path: Path, members: dict[str, bytes] | list[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, data)
    return path


def make_tar(path: Path, members: dict[str, bytes] | list[tarfile.TarInfo]) -> Path:
    mode = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as archive:
        if isinstance(members, dict):
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        else:
            for info in members:
                archive.addfile(info, io.BytesIO(bytes(info.size)))
    return path


def special(kind: bytes, name: str = "VOC/x", link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def everything(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(archive: Path, limits: Limits | None = None) -> str:
    """The sentence; outside the target, nothing may have changed."""
    home = archive.parent
    shutil.rmtree(home / "in", ignore_errors=True)
    before = everything(home)
    with pytest.raises(BadData) as error:
        extract(archive, home / "in" / "target", limits or Limits())
    assert {name: data for name, data in everything(home).items() if not name.startswith("in/target/")} == before
    said = str(error.value)
    assert archive.name in said
    assert said.isprintable()
    assert said.endswith("Download it again, from the official source.")
    return said


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"])
def test_a_good_archive_comes_out_whole(tmp_path, suffix):
    archive = tmp_path / f"good{suffix}"
    assert is_archive(archive.name)
    (make_zip if suffix == ".zip" else make_tar)(archive, {**GOOD, "__MACOSX/._a.jpg": b"x", "VOC/.DS_Store": b"x"})
    told = []
    assert extract(archive, tmp_path / "out", advance=told.append) == 3
    assert everything(tmp_path / "out") == GOOD
    assert sum(told) == 3005
    assert all(stat.S_IMODE(p.stat().st_mode) & 0o7000 == 0 for p in (tmp_path / "out").rglob("*"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../evil", "points outside"),
        ("VOC/../../evil", "points outside"),
        ("/tmp/uss_evil", "absolute"),
        ("//tmp/uss_evil", "absolute"),
        ("C:/evil", "absolute"),
        ("c:evil", "absolute"),
        ("..\\evil", "backslash"),
        ("VOC/\x1b[31mevil", "control character"),
        ("VOC/" + "n" * 300, "longer than file systems allow"),
        ("d/" * 1200 + "x", "longer than file systems allow"),
    ],
)
@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_names_that_lead_outside(tmp_path, name, said, suffix):
    archive = tmp_path / f"bad{suffix}"
    members = {"VOC/first.txt": b"1", name: b"evil"}
    if suffix == ".zip":
        make_zip(archive, members)
    else:
        make_tar(archive, members)
    assert said in refused(archive)
    assert not Path("/tmp/uss_evil").exists()


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (special(tarfile.SYMTYPE, link="/etc/passwd"), "is a link to '/etc/passwd'"),
        (special(tarfile.SYMTYPE, link=".."), "is a link to '..'"),
        (special(tarfile.LNKTYPE, link="../../outside"), "is a link to '../../outside'"),
        (special(tarfile.CHRTYPE), "is a device"),
        (special(tarfile.BLKTYPE), "is a device"),
        (special(tarfile.FIFOTYPE), "is a device or another special file"),
    ],
    ids=["symlink", "symlink up", "hard link", "character device", "block device", "pipe"],
)
def test_links_and_devices_in_a_tar(tmp_path, member, said):
    (tmp_path / "outside").write_text("mine")
    assert said in refused(make_tar(tmp_path / "bad.tar", [tarfile.TarInfo("ok"), member]))


def test_a_symlink_in_a_zip(tmp_path):
    info = zipfile.ZipInfo("VOC/x")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    assert "is a link or a device" in refused(tmp_path / "bad.zip")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a/x", "a/x"], "occurs twice"),
        (["a/x", "a/./x"], "occurs twice"),
        (["a", "a/x"], "needs a folder where another member is a file"),
        (["a/x", "a"], "occurs twice"),
    ],
)
def test_members_in_each_others_way(tmp_path, names, said):
    assert said in refused(make_zip(tmp_path / "bad.zip", [(name, b"1") for name in names]))
    members = [tarfile.TarInfo(name) for name in names]
    assert said in refused(make_tar(tmp_path / "bad.tar", members))


def test_bombs(tmp_path):
    limits = Limits(total=50_000_000, ratio=100, free=1_000_000)
    zeros = bytes(10_000_000)
    for archive in (make_zip(tmp_path / "bomb.zip", {"x": zeros}), make_tar(tmp_path / "bomb.tar.gz", {"x": zeros})):
        assert "only an archive bomb needs" in refused(archive, limits)
    assert sum(len(data) for data in everything(tmp_path / "in").values()) <= 3_000_000, "it stopped early"
    honest = make_zip(tmp_path / "honest.zip", {"x": bytes(900_000)})  # small things may shrink as they like
    assert extract(honest, tmp_path / "honest", limits) == 1
    assert "is one of more than 2" in refused(make_zip(tmp_path / "many.zip", dict.fromkeys("abc", b"")), Limits(members=2))
    assert "to 10,240 bytes" in refused(make_tar(tmp_path / "big.tar", {"x": bytes(300)}), Limits(total=200))


def test_a_zip_that_lies_about_its_size(tmp_path):
    """Every member's entry points to the same data (an overlapping bomb), or says another size than it has."""
    path = make_zip(tmp_path / "lies.zip", {"x": bytes(5000)})
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\x01\x02") + 24
    data[place : place + 4] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    refused(path)


def test_headers_cannot_fill_memory(tmp_path):
    """A tar header may announce a name of any length; it is read in blocks that count towards the limits."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 100_000_000
    with gzip.open(tmp_path / "long.tar.gz", "wb", compresslevel=1) as out:
        out.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(100):
            out.write(b"a" * 1_000_000)
    tracemalloc.start()
    refused(tmp_path / "long.tar.gz", Limits(free=10_000_000, ratio=10))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9])
def test_truncated_at_any_place(tmp_path, suffix, share):
    whole = tmp_path / f"whole{suffix}"
    noise = bytes((i * 7919 >> 3) & 255 for i in range(60_000))
    members = {f"VOC/{n}.jpg": noise[n:] for n in range(4)}
    (make_zip if suffix == ".zip" else make_tar)(whole, members)
    data = whole.read_bytes()
    whole.unlink()
    (tmp_path / f"cut{suffix}").write_bytes(data[: int(share * len(data))])
    said = refused(tmp_path / f"cut{suffix}")
    assert "truncated or damaged" in said or "holds no files" in said


def test_a_tar_cut_between_two_members(tmp_path):
    """Nothing in such a file is broken but its end."""
    path = make_tar(tmp_path / "cut.tar", {"a": bytes(512), "b": bytes(512)})
    path.write_bytes(path.read_bytes()[:1024])
    assert "where a member or the end should be" in refused(path)
    path = make_tar(tmp_path / "broken.tar", {"a": bytes(512), "b": bytes(512)})
    data = bytearray(path.read_bytes())
    data[1030] ^= 255  # in the name of the second member: its header's checksum is wrong
    path.write_bytes(data)
    assert "where a member or the end should be" in refused(path)


def test_a_flipped_byte_in_a_zip(tmp_path):
    path = make_zip(tmp_path / "bad.zip", {"a": bytes(range(256)) * 40})
    data = bytearray(path.read_bytes())
    data[60] ^= 255
    path.write_bytes(data)
    assert "truncated or damaged" in refused(path)


@pytest.mark.parametrize("text", ["<!DOCTYPE html><html>Sign in</html>", "\n  <html><body>404", '<?xml version="1.0"?><Error/>'])
@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_a_web_page_in_place_of_an_archive(tmp_path, suffix, text):
    path = tmp_path / f"data{suffix}"
    path.write_text(text)
    assert "is a web page, not an archive" in refused(path)


def test_an_encrypted_zip(tmp_path):
    path = make_zip(tmp_path / "locked.zip", {"a": b"x"})
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flag in the member's own header, and in the directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert "is encrypted" in refused(path)


def test_names_are_shown_plain():
    assert plain("a\x1b[31m\n\u202eb\udcff") == "a\\x1b[31m\\x0a\\u202eb\\udcff"
    assert len(plain("x" * 5000)) == 120
