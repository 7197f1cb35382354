"""Folders outside DVC's sight: the plan notes what they hold."""

from projects import make_project

from uss_dagster.planning.plan import read_plan, write_plan

PROFILE = """\
title: A folder
settings: {shard_images: 2, bootstrap: 5, samples: 1}
datasets: {mine: {kind: folder, path: pictures}}
metrics: [covering]
entries: {felzenszwalb: {params: {scales: 2}}}
"""


def content(root) -> str:
    return read_plan(root).cell("datasets/mine").content


def test_a_changed_picture_makes_its_dataset_stale_and_a_missing_folder_does_not(tmp_path):
    root = make_project(tmp_path / "project", profile=PROFILE).root
    (root / "pictures").mkdir()
    (root / "pictures/a.png").write_bytes(b"one")
    assert write_plan(root) == ["datasets/mine: content"]
    first = content(root)
    assert write_plan(root) == []
    (root / "pictures/a.png").write_bytes(b"another")
    assert write_plan(root) == ["datasets/mine: content"]
    assert content(root) != first
    (root / "pictures").rename(tmp_path / "elsewhere")
    assert write_plan(root) == [], "on a machine without the folder, what was noted stays"
    assert content(root) not in ("", first)
    assert write_plan(root, check=True) == []
