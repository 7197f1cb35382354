"""`uss data`: a dataset is here whole, with its licence accepted, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
from disks import mounted
from projects import BIN
from web import Site, serving

from uss_dagster import registry
from uss_dagster.artifacts.image_files import encode_png
from uss_dagster.datasets.base import Archive, DatasetSpec, Example, mirror_folder, need_mirror
from uss_dagster.downloads.get import Request, access, get_dataset, work_folder
from uss_dagster.errors import BadData, TryAgain, Unavailable, UsageError, from_os_error
from uss_dagster.regions import Regions


@dataclass(frozen=True)
class Params:
    split: Literal["val", "train"] = "val"


def examples(params: Params) -> Iterator[Example]:
    folder = need_mirror("zoo", "Ask the zoo.")
    for path in sorted((folder / params.split).glob("*.png")):
        yield Example(path.stem, path.read_bytes(), ".png", params.split, Regions.from_masks([np.ones((6, 8), bool)]))
    if not (folder / "labels.txt").exists():
        raise BadData("labels.txt is missing.")


def zoo(*archives: Archive, **fields) -> SimpleNamespace:
    spec = DatasetSpec("zoo", "The zoo", Params, "annotators", "CC BY 4.0", "A. Keeper, 2020.", "https://zoo.example", archives=archives)
    return SimpleNamespace(SPEC=replace(spec, **fields), examples=examples)


def picture(number: int) -> bytes:
    return encode_png(np.full((6, 8, 3), number, np.uint8))


def make_zip(path: Path, members: dict[str, bytes]) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path.read_bytes()


VAL = {"val/1.png": picture(1), "val/2.png": picture(2), "README": b"val"}
LABELS = {"labels.txt": b"all one", "README": b"labels"}


@pytest.fixture
def site(tmp_path) -> Iterator[Site]:
    files = {"/val.zip": make_zip(tmp_path / "val.zip", VAL), "/labels.zip": make_zip(tmp_path / "labels.zip", LABELS)}
    with serving(Site(files)) as running:
        yield running


@pytest.fixture
def mirror(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("USS_MIRROR", str(tmp_path / "mirror"))
    return tmp_path / "mirror"


def free(site: Site, **changes: str) -> SimpleNamespace:
    return zoo(
        *(
            Archive(
                name,
                (f"{site.url}/{name}",),
                len(site.files[f"/{name}"]),
                changes.get(name) or hashlib.md5(site.files[f"/{name}"]).hexdigest(),
            )
            for name in ("val.zip", "labels.zip")
        )
    )


def run(monkeypatch, module: SimpleNamespace, **request) -> list[str]:
    monkeypatch.setattr(registry, "load", lambda family, name: module)
    said: list[str] = []
    get_dataset(Request("zoo", **{"accept": lambda: "with --accept-licence", **request}), said.append)
    return said


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def nothing_registered(mirror: Path) -> bool:
    """No dataset, and nothing but downloads to go on with."""
    return not (mirror / "zoo").exists() and not any((mirror / ".zoo.get" / part).exists() for part in ("new", "unpacked", "trial"))


def test_fetched_verified_extracted_and_recorded(site, mirror, monkeypatch):
    said = run(monkeypatch, free(site))
    assert any("licence: CC BY 4.0" in line for line in said)
    assert "note: 'README' differs between two archives; the first one's is kept." in said
    found = tree(mirror)
    record = json.loads(found.pop("zoo/uss-source.json"))
    assert found == {"zoo/README": b"val", "zoo/labels.txt": b"all one", "zoo/val/1.png": picture(1), "zoo/val/2.png": picture(2)}
    assert (record["licence"], record["accepted"]) == ("CC BY 4.0", "with --accept-licence")
    assert [a["name"] for a in record["archives"]] == ["labels.zip", "val.zip"]
    assert record["archives"][1]["sha256"] == hashlib.sha256(site.files["/val.zip"]).hexdigest()
    before = len(site.requests)
    assert run(monkeypatch, free(site)) == [f"zoo: is in {mirror / 'zoo'}. Nothing to do."]
    assert len(site.requests) == before


def test_archives_are_added_one_by_one(site, mirror, monkeypatch):
    said = run(monkeypatch, free(site), only=["val.zip"])
    assert said[-1] == "not got: labels.zip. Splits that need them will say so."
    assert not (mirror / "zoo/labels.txt").exists()
    asked = []
    run(monkeypatch, free(site), accept=lambda: asked.append(1) or "")
    assert not asked, "the licence was accepted before"
    assert (mirror / "zoo/labels.txt").exists()
    assert (mirror / "zoo/val/1.png").exists()
    assert sorted(p.name for p in mirror.iterdir()) == ["zoo"]
    with pytest.raises(UsageError, match=r"has no archive 'vall\.zip'\. Did you mean 'val\.zip'"):
        run(monkeypatch, free(site), only=["vall.zip"])


def test_an_archive_that_a_dataset_beside_has_is_not_fetched_again(site, mirror, monkeypatch):
    run(monkeypatch, free(site), only=["val.zip"])
    (mirror / "zoo").rename(mirror / "menagerie")
    with pytest.raises(BadData, match="What was given is not 'zoo' as released"):  # an adapter that does not look there
        run(monkeypatch, free(site))
    looks_beside = free(site)
    looks_beside.examples = lambda params: map(Path.read_bytes, (need_mirror("menagerie", "") / "val").iterdir())
    said = run(monkeypatch, looks_beside)
    assert f"val.zip: is in {mirror / 'menagerie'} already." in said
    assert [path for path, _ in site.requests] == ["/val.zip", "/labels.zip"]
    assert tree(mirror / "zoo").keys() == {"README", "labels.txt", "uss-source.json"}


def test_without_a_mirror_it_goes_to_the_project(site, tmp_path, monkeypatch):
    project = tmp_path / "project"
    (project / "deeper").mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml"):
        (project / name).touch()
    monkeypatch.delenv("USS_MIRROR", raising=False)
    monkeypatch.chdir(project / "deeper")
    run(monkeypatch, free(site))
    assert mirror_folder("zoo") == project / "data/sources/zoo"
    assert (project / "data/sources/zoo/val/1.png").exists()
    monkeypatch.setenv("USS_MIRROR", str(tmp_path / "elsewhere"))
    assert mirror_folder("zoo") == project / "data/sources/zoo", "what a mirror lacks is looked for here too"
    (tmp_path / "elsewhere/zoo").mkdir(parents=True)
    assert mirror_folder("zoo") == tmp_path / "elsewhere/zoo"


def test_without_consent_nothing_is_fetched(site, mirror, monkeypatch):
    with pytest.raises(UsageError, match=r"licence of 'zoo' was not accepted.*add --accept-licence"):
        run(monkeypatch, free(site), accept=lambda: "")
    assert not site.requests
    assert not mirror.exists()


def test_a_gated_dataset_says_how_and_takes_what_one_has(site, mirror, monkeypatch, tmp_path):
    gated = zoo(Archive("val.zip"), Archive("labels.zip", (f"{site.url}/labels.zip",)), instructions="Write to the zoo.")
    with pytest.raises(Unavailable, match=r"Write to the zoo\. It consists of val\.zip\. Then run `uss data get zoo --from PATH`"):
        run(monkeypatch, gated)
    assert not site.requests
    said = run(monkeypatch, gated, source=tmp_path / "val.zip")
    assert said[-1] == "not got: labels.zip. Splits that need them will say so."
    assert not site.requests, "with --from nothing is fetched"
    run(monkeypatch, gated)
    assert tree(mirror / "zoo").keys() == {"README", "labels.txt", "uss-source.json", "val/1.png", "val/2.png"}
    assert access(gated.SPEC) == "partly behind a login"


def test_a_folder_of_archives_and_an_extracted_tree(site, mirror, monkeypatch, tmp_path):
    run(monkeypatch, free(site), source=tmp_path)  # holds both archives, among other things
    assert (mirror / "zoo/labels.txt").exists()
    monkeypatch.setenv("USS_MIRROR", str(tmp_path / "second"))
    (mirror / "zoo/uss-source.json").unlink()
    run(monkeypatch, free(site), source=mirror / "zoo")
    assert (tmp_path / "second/zoo/val/1.png").samefile(mirror / "zoo/val/1.png"), "linked, not copied"
    assert run(monkeypatch, free(site)) == [f"zoo: is in {tmp_path / 'second/zoo'}. Nothing to do."]
    with pytest.raises(UsageError, match="an extracted tree is taken as a whole"):
        run(monkeypatch, free(site), source=mirror / "zoo")
    with pytest.raises(UsageError, match=r"is no archive of 'zoo': expected val.zip, labels.zip, or a folder"):
        run(monkeypatch, free(site), source=mirror / "zoo/README")
    with pytest.raises(UsageError, match="does not exist"):
        run(monkeypatch, free(site), source=tmp_path / "nowhere")


def test_a_tree_that_is_something_else_or_leads_elsewhere(site, mirror, monkeypatch, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "cat.txt").write_text("a cat")
    with pytest.raises(BadData, match=r"What was given is not 'zoo' as released: labels.txt is missing"):
        run(monkeypatch, free(site), source=other)
    (other / "link").symlink_to("/etc/passwd")
    with pytest.raises(BadData, match="is a link or a special file"):
        run(monkeypatch, free(site), source=other)
    assert nothing_registered(mirror)


def test_what_came_by_other_means_is_left_alone(site, mirror, monkeypatch, tmp_path):
    (mirror / "zoo").mkdir(parents=True)
    assert "by other means" in run(monkeypatch, free(site))[-1]
    with pytest.raises(UsageError, match=r"was not made by `uss data get`. Move it away first"):
        run(monkeypatch, free(site), source=tmp_path / "val.zip")
    assert not list((mirror / "zoo").iterdir())


HOSTILE = {
    "path traversal": ({"val/1.png": picture(1), "../../evil": b"x"}, "points outside"),
    "a bomb": ({"val/1.png": bytes(3_000_000)}, "only an archive bomb needs"),
    "nothing in it": ({}, "holds no files"),
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("by", ["fetched", "given"])
def test_a_hostile_archive_registers_nothing(site, mirror, monkeypatch, tmp_path, what, by):
    members, said = HOSTILE[what]
    with zipfile.ZipFile(tmp_path / "val.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    site.files["/val.zip"] = (tmp_path / "val.zip").read_bytes()
    from uss_dagster.downloads import archives as _archives

    monkeypatch.setattr(_archives.extract, "__defaults__", (_archives.Limits(free=100_000), None))
    with pytest.raises(BadData, match=said):
        run(monkeypatch, free(site), **({"source": tmp_path / "val.zip"} if by == "given" else {}))
    assert nothing_registered(mirror)
    assert not (mirror / ".zoo.get/downloads/val.zip").exists(), "fetched again next time"
    assert (tmp_path / "val.zip").exists()
    assert not (tmp_path / "evil").exists()
    assert not (mirror / "evil").exists()


def test_a_wrong_checksum_registers_nothing(site, mirror, monkeypatch, tmp_path):
    for given in (None, tmp_path / "labels.zip"):
        with pytest.raises(BadData, match=r"labels\.zip has md5"):
            run(monkeypatch, free(site, **{"labels.zip": "0" * 32}), source=given)
        assert nothing_registered(mirror)


def test_a_disk_that_fills_up_while_extracting(site, tmp_path, monkeypatch):
    members = {**VAL, **{f"val/more{n}.bin": bytes(100_000) for n in range(10)}}
    path = tmp_path / "big" / "val.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with mounted(tmp_path / "disk", "size=600k") as disk:
        monkeypatch.setenv("USS_MIRROR", str(disk))
        with pytest.raises(TryAgain, match=r"takes 1,000,\d+ bytes extracted"):
            run(monkeypatch, zoo(Archive("val.zip")), source=path)
        from uss_dagster.downloads import archives as _archives

        monkeypatch.setattr(_archives._Writer, "need", lambda self, size: None)  # as for a tar, which does not tell
        with pytest.raises(OSError) as error:
            run(monkeypatch, zoo(Archive("val.zip")), source=path)
        assert isinstance(from_os_error(error.value), TryAgain)
        assert nothing_registered(disk)
        subprocess.run(["mount", "-o", "remount,size=3m", str(disk)], check=True)
        run(monkeypatch, zoo(Archive("val.zip"), Archive("labels.zip")), source=path)
        assert len(list((disk / "zoo" / "val").iterdir())) == 12


def test_two_at_a_time(site, mirror, monkeypatch):
    mirror.mkdir()
    with work_folder(mirror / "zoo"), pytest.raises(TryAgain, match="Another process is getting 'zoo'"):
        run(monkeypatch, free(site))


# -- the command itself -------------------------------------------------------------------------------------------


def uss(*words: str, code: int, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [BIN / "uss", "data", *words], env={**os.environ, **env}, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_list_names_every_dataset_with_its_licence(tmp_path):
    said = uss("list", code=0, USS_MIRROR=str(tmp_path)).stdout
    for name in registry.names("dataset"):
        spec = registry.load("dataset", name).SPEC
        assert f"\n{name} " in f"\n{said}"
        assert f"licence: {spec.licence}\n" in said
    licences = uss("licences", code=0, USS_MIRROR=str(tmp_path)).stdout
    assert all(f"{name}: " in licences for name in registry.names("dataset"))


def test_exit_codes(tmp_path):
    env = {"USS_MIRROR": str(tmp_path)}
    assert "Did you mean 'cityscapes'" in uss("get", "cityscape", code=64, **env).stderr
    assert "cannot be fetched without a person" in uss("get", "cityscapes", code=69, **env).stderr
    assert "add --accept-licence" in uss("get", "coco", code=64, **env).stderr
    (tmp_path / "annotations_trainval2017.zip").write_text("<html>log in</html>")
    said = uss("get", "coco", "--from", str(tmp_path / "annotations_trainval2017.zip"), "--accept-licence", code=65, **env)
    assert said.stderr == (
        "error: annotations_trainval2017.zip is a web page, not an archive: the source perhaps asks for a login. "
        "Download it again, from the official source.\n"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["annotations_trainval2017.zip"]


def test_help_is_light():
    program = (
        "import sys, uss_dagster.cli as cli; sys.argv = ['uss', 'data', '--help']\ntry: cli.main()\nexcept SystemExit: print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert not {"numpy", "pyarrow", "uss_dagster.registry"} & set(loaded.split())
    assert "..." not in loaded.split("Commands:")[1].split("sys")[0]
