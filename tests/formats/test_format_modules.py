"""Every format: what it says that it keeps comes back exactly, and what it says that it loses does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from format_cases import aspects_kept, example_images, example_set
from projects import SOURCE

from uss_dagster.errors import BadData, UsageError
from uss_dagster.formats import catalogue
from uss_dagster.formats.base import ASPECTS, Classes, inside, labels_of_names

FORMATS = catalogue.names()


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> dict[str, dict[str, bool]]:
    """Format → aspect → whether it came back."""
    answers = {}
    for name in FORMATS:
        folder = tmp_path_factory.mktemp(name)
        module = catalogue.load(name)
        module.write(example_set(), folder)
        again = module.read(folder)
        answers[name] = aspects_kept(example_images(), list(again.images()), dict(again.categories))
    return answers


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_declared_is_what_comes_back(kept, name):
    spec = catalogue.load(name).SPEC
    assert spec.name == name
    assert {*spec.loses, *spec.changes} <= set(ASPECTS)
    assert kept[name] == {aspect: spec.keeps(aspect) == "yes" for aspect in ASPECTS}


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_set_gives_the_same_bytes(tmp_path, name):
    def bytes_of(folder: Path) -> dict[str, bytes]:
        folder = folder / "set"
        folder.mkdir(parents=True)
        catalogue.load(name).write(example_set(), folder)
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}

    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


def test_a_format_that_is_not_there_is_named():
    with pytest.raises(UsageError, match="Did you mean 'datumaro'"):
        catalogue.load("datumar")


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "a/../../b.png", "..\\a.png", "C:\\a.png", "", "a\0.png"])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    with pytest.raises(BadData, match="leads out of its folder"):
        inside(tmp_path, name, "the picture")


def test_links_that_lead_out_of_the_folder_are_refused(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "link").symlink_to(tmp_path)
    with pytest.raises(BadData, match="by a link"):
        inside(tmp_path / "inner", "link/a.png", "the picture")
    assert inside(tmp_path, "inner/a.png", "the picture") == tmp_path / "inner" / "a.png"


def test_numbers_and_names_of_classes():
    classes = Classes({2: "dog", 0: "cat"})
    assert classes.numbered == {0: "cat", 2: "dog", 3: "region"}
    assert [classes.number(label) for label in (-1, 0, 2)] == [3, 0, 2]
    assert [classes.place(label) for label in (-1, 0, 2)] == [2, 0, 1]
    assert labels_of_names(["region", "dog", "class_2", "class_1", "cat"]) == {"region": -1, "dog": 3, "class_2": 2, "class_1": 1, "cat": 4}


def test_the_documented_table_is_what_the_modules_declare():
    page = (SOURCE / "docs" / "formats.md").read_text(encoding="utf-8")
    assert "\n".join(catalogue.table(catalogue.specs())) in page
    for spec in catalogue.specs():
        for remark in catalogue.remarks(spec):
            assert f"- `{spec.name}`: {remark}" in page
        assert f"| `{spec.name}` | {spec.title} |" in page
