"""Profiles that include others, lie in folders, and set things for one dataset."""

from pathlib import Path

import pytest

from uss_dagster.errors import UsageError
from uss_dagster.planning.plan import make_plan, write_plan
from uss_dagster.planning.profiles import profile_names, read_profile
from uss_dagster.stages.scores import Scores
from uss_dagster.stages.segments import Segments

BASE = """\
settings: {shard_images: 2, grids: [full]}
datasets:
  scenes: {images: 4}
  more: {kind: scenes, images: 2}
entries:
  felzenszwalb: {params: {scales: 3}}
  slow: {method: felzenszwalb}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in {"_base": BASE, "small": "include: papers/_base\n", "sets/own": "settings: {bootstrap: 9}\n"}.items():
        path = tmp_path / "profiles" / "papers" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "params.yaml").write_text("profile: papers/small\n")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    return tmp_path


def rewrite(root: Path, text: str) -> None:
    (root / "profiles/papers/small.yaml").write_text(text)


def refusal(root: Path, name: str | None = None) -> str:
    with pytest.raises(UsageError) as refused:
        make_plan(read_profile(root, name))
    return str(refused.value)


def test_a_profile_is_laid_over_what_it_includes_later_over_earlier(root):
    rewrite(
        root,
        "title: Mine\ninclude: [papers/_base, papers/sets/own]\nsettings: {bootstrap: 11}\nentries:\n  slow: false\n"
        "  felzenszwalb: {params: {sigma: 1.0}}\n",
    )
    profile = read_profile(root)
    assert (profile.title, profile.settings.bootstrap, profile.settings.shard_images) == ("Mine", 11, 2)
    assert profile.entries.keys() == {"felzenszwalb"}
    assert profile.entries["felzenszwalb"].params == {"scales": 3, "sigma": 1.0}
    assert profile.at("entries", "felzenszwalb", "params", "sigma") == "profiles/papers/small.yaml:6"
    assert profile.at("datasets", "more") == "profiles/papers/_base.yaml:4"
    assert read_profile(root, "papers/small", alone=True).entries.keys() == {"felzenszwalb"}


def test_names_hold_folders_and_what_is_only_included_is_none(root):
    names, of_package = profile_names(root), profile_names(root / "elsewhere")
    assert names == sorted([*of_package, "papers/sets/own", "papers/small"])
    assert {"demo", "photos", "papers/has-table1"} <= set(of_package)
    (root / "profiles/other.yaml").write_text(BASE)
    write_plan(root, "papers/small")
    assert (root / "params.yaml").read_text() == "profile: papers/small\n"
    assert write_plan(root, "other") == write_plan(root, "papers/small", check=True) == []
    assert (root / "params.yaml").read_text() == "profile: other\n"
    assert refusal(root, "papers/smal") == "--profile: Unknown profile 'papers/smal'. Did you mean 'papers/small'?"
    (root / "params.yaml").write_text("# x\nprofile: papers/_base\n")
    assert refusal(root).startswith("params.yaml:2: Unknown profile 'papers/_base'.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: x\ninclude: papers/_bas\n", "profiles/papers/small.yaml:2: Unknown profile 'papers/_bas'. Did you mean 'papers/_base'?"),
        ("include: papers/small\n", "profiles/papers/small.yaml:1: 'papers/small' includes itself (papers/small → papers/small)."),
        ("include: {a: 1}\n", "profiles/papers/small.yaml:1: 'include' is the name of a profile or a list of names, got {'a': 1}."),
        ("include: papers/_base\nentries:\n  slow: {param: 1}\n", "profiles/papers/small.yaml:3: entry 'slow' has no setting 'param'."),
        ("include: papers/_base\nentries:\n  slow: {published: has-table1/our}\n", "small.yaml:3: Unknown published row 'has-table1/our'."),
        (
            "include: papers/_base\ndatasets:\n  more: {grids: [60]}\n",
            "small.yaml:3: 'grids' of dataset 'more': input should be a valid str",
        ),
        (
            "include: papers/_base\ndatasets:\n  more: {grids: [6x]}\n",
            "small.yaml:3: 'grids' of dataset 'more': an evaluation grid is 'full'",
        ),
        ("include: papers/_base\ndatasets:\n  more: {crop: 4}\n", "small.yaml:3: 'crop' of dataset 'more': input should be greater"),
        ("include: papers/_base\ntable:\n  paper: P\n", "profiles/papers/small.yaml:2: 'number' of table: field required"),
        (
            "include: papers/_base\ntable: {paper: P, number: 1a, notes: x}\n",
            "small.yaml:2: table has no setting 'notes'. Did you mean 'note'?",
        ),
    ],
)
def test_a_mistake_is_named_with_its_file_and_line(root, text, message):
    rewrite(root, text)
    assert message in refusal(root)


def test_a_longer_circle_is_refused_where_it_closes(root):
    (root / "profiles/papers/sets/own.yaml").write_text("settings: {bootstrap: 9}\ninclude: papers/small\n")
    rewrite(root, "include: papers/sets/own\n")
    circle = "(papers/small → papers/sets/own → papers/small)"
    assert refusal(root) == f"profiles/papers/sets/own.yaml:2: 'papers/small' includes itself {circle}."


def test_what_one_dataset_sets_changes_its_own_cells_only(root):
    before = {cell.name: cell.to_plain() for cell in make_plan(read_profile(root)).cells}
    rewrite(root, "include: papers/_base\ndatasets:\n  more: {grids: [8x8, full], crop: 64}\n")
    plan = make_plan(read_profile(root))
    changed = {cell.name for cell in plan.cells if cell.to_plain() != before[cell.name]}
    assert changed == {"datasets/more", "scores/felzenszwalb/more", "scores/slow/more"}
    assert {cell.dataset: cell.grids for cell in plan.of(Scores)} == {"more": ["8x8", "full"], "scenes": ["full"]}
    assert plan.cell("datasets/more").to_plain()["crop"] == 64
    assert "crop" not in plan.cell("datasets/scenes").to_plain()
    assert len(plan.of(Segments)) == 4
