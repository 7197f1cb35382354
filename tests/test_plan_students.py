"""What the plan makes of the section 'students' and of entries that run a student."""

from __future__ import annotations

from pathlib import Path

import pytest

from uss_dagster.errors import UsageError
from uss_dagster.planning import plan
from uss_dagster.planning.cells import entry_cell, expected_code
from uss_dagster.planning.profiles import Profile, read_profile
from uss_dagster.planning.training_cells import may_be_passed_on, student_cells

BASE = """\
datasets: {scenes: {images: 4}, own: {kind: folder, path: pictures}}
backbones: {patches: {}}
entries:
  felzenszwalb: {}
  learnt: {method: student, params: {model: second}, datasets: [scenes]}
  divided: {method: unsam, backbone: patches, params: {divide: student, model: first}, datasets: [scenes]}
curated:
  masks: {dataset: scenes, entry: felzenszwalb}
  ours: {dataset: own, entry: felzenszwalb}
"""
STUDENTS = """\
students:
  first: {curated: masks, params: {steps: 7}}
  second: {curated: masks, self_train: first, title: Round two}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "params.yaml").write_text("profile: small\n")
    return tmp_path


def profile(root: Path, text: str = STUDENTS, base: str = BASE) -> Profile:
    (root / "profiles" / "small.yaml").write_text(base + text)
    return read_profile(root)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The grid of everything above, for tests of what is looked at after it."""
    folder = tmp_path_factory.mktemp("planned")
    (folder / "profiles").mkdir()
    (folder / "params.yaml").write_text("profile: small\n")
    return grid(folder)


def grid(root: Path, text: str = STUDENTS, base: str = BASE) -> dict:
    return plan.make_grid(profile(root, text, base))


def test_cells_of_students_and_of_those_who_run_them(planned):
    made = planned
    first, second = made["models"]["first"], made["models"]["second"]
    assert (first["reads"], first["self_train"]) == ("data/datasets/scenes/images/images.parquet", "")
    assert (second["reads"], second["self_train"], second["title"]) == ("data/models/first", "first", "Round two")
    assert (first["params"]["steps"], first["params"]["size"], first["params"]["batch"]) == (7, "tiny", 8)
    assert first["pool"] == "gpu"
    learnt, divided = made["segments"]["learnt__scenes"], made["segments"]["divided__scenes"]
    assert learnt["model"] == learnt["reads_model"] == "data/models/second"
    assert divided["reads_model"] == "data/models/first"
    assert divided["reads"] == "data/features/patches/scenes"
    assert learnt["pool"] == ""
    plain = made["segments"]["felzenszwalb__scenes"]
    assert (plain["model"], plain["reads_model"]) == ("", "data/datasets/scenes/images/shard-00000.tar")
    for stage, _, cell in plan.iterate_cells(made):
        assert cell["code"] == expected_code(stage, cell)


def test_steps_change_the_student_and_no_other_cell(root, planned):
    before, after = planned, grid(root, STUDENTS.replace("steps: 7", "steps: 8"))
    assert plan.changed_cells(before, after) == ["models first: params"]


def test_the_code_of_a_student_counts_only_where_it_runs(root):
    made = grid(root, STUDENTS, BASE.replace("divided:", "cut: {method: unsam, backbone: patches, datasets: [scenes]}\n  divided:"))
    assert made["segments"]["cut__scenes"]["code"] != made["segments"]["divided__scenes"]["code"]
    assert not any(name.startswith("uss_dagster.student") for name in closure("uss_dagster.methods.unsam"))
    of_method = {name for name in closure("uss_dagster.methods.student") if name.startswith("uss_dagster.student.")}
    assert "uss_dagster.student.model" in of_method
    assert not of_method & {"uss_dagster.student.training", "uss_dagster.student.losses", "uss_dagster.student.data"}


def closure(module: str) -> set[str]:
    from uss_dagster.planning.fingerprints import closure as all_of

    return all_of([module])


def test_what_is_learnt_from_others_pictures_is_not_pushed(root):
    made = grid(
        root, STUDENTS + "  theirs: {curated: ours}\n  shared: {curated: ours, push: true}\n  kept: {curated: masks, push: false}\n"
    )
    assert set(made["models"]) == {"first", "second", "shared"}
    assert set(made["private_models"]) == {"theirs", "kept"}
    assert made["private_models"]["kept"]["code"] != made["models"]["first"]["code"]


@pytest.mark.parametrize(
    ("licence", "open_"),
    [
        ("MIT (drawn by this package)", True),
        ("CC BY 4.0", True),
        ("CC BY-SA 4.0", True),
        ("CC0 1.0", True),
        ("CC BY-NC 4.0", False),
        ("CC BY-NC-SA 3.0 (KITTI)", False),
        ("that of your images", False),
        ("annotations: CC BY 4.0; images: flickr terms", False),
        ("MIT, research use only", False),
    ],
)
def test_which_licences_let_a_model_be_passed_on(licence, open_):
    assert may_be_passed_on(licence) is open_


def test_a_student_that_saw_labels_is_said_to(root, planned):
    labelled = BASE.replace("entry: felzenszwalb}\n  ours", "entry: felzenszwalb, labels: truth}\n  ours")
    shown = grid(root, STUDENTS, labelled)["leaderboard"]["entries"]
    assert {name: entry["supervised"] for name, entry in shown.items()} == {"felzenszwalb": False, "learnt": True, "divided": True}
    assert not any(entry["supervised"] for entry in planned["leaderboard"]["entries"].values())


def test_a_folder_counts_by_its_content(root):
    folder = root / "trained"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"one")
    base = BASE.replace("model: second", "model: ./trained")

    def content() -> str:
        (root / "profiles" / "small.yaml").write_text(base + STUDENTS)
        plan.write_plan(root)
        cell = plan.read_grid(root)["segments"]["learnt__scenes"]
        assert cell["model"] == "./trained"
        assert cell["reads_model"] == "data/datasets/scenes/images/shard-00000.tar"
        return cell["content"]

    first = content()
    (folder / "model.safetensors").write_bytes(b"another")
    second = content()
    assert first != second
    (folder / "model.safetensors").unlink()
    folder.rmdir()
    assert content() == second, "not on this machine: what was noted stays"


@pytest.mark.parametrize(
    ("students", "line", "said"),
    [
        ("first: {curated: mask}", 11, "Unknown curated set 'mask'. Did you mean 'masks'"),
        ("first: {}", 11, "Unknown curated set 'None'"),
        ("first: {curated: masks, steps: 3}", 11, "student 'first' has no setting 'steps'"),
        ("first: {curated: masks, size: M}", 11, "parameter 'size' is 'M'"),
        ("first: {curated: masks, params: {stpes: 3}}", 11, "has no parameter 'stpes'. Did you mean 'steps'"),
        ("first: {curated: masks, params: 3}", 11, "must be a mapping"),
        ("first: {curated: masks, params: {input: 33}}", 11, "expected a multiple of"),
        ("first: {curated: masks, push: maybe}", 11, "'push' of student 'first' is true or false"),
        ("first: {curated: masks, self_train: first}", 11, "learns from 'first', expected another student. Known: second"),
        ("first: {curated: masks, self_train: thrid}", 11, "learns from 'thrid', expected another student"),
        ("first: {curated: masks, self_train: second}", 11, "learn in a circle: 'first' from 'second' from 'first'"),
    ],
)
def test_what_people_write_is_checked_with_the_line(root, planned, students, line, said):
    written = profile(root, f"students:\n  {students}\n  second: {{curated: masks, self_train: first}}\n")
    with pytest.raises(UsageError) as refused:
        student_cells(written, planned)
    assert said in str(refused.value)
    assert f"profiles/small.yaml:{line}" in str(refused.value)


def test_a_circle_through_masks_that_a_student_made(root):
    base = BASE.replace("masks: {dataset: scenes, entry: felzenszwalb}", "masks: {dataset: scenes, entries: [felzenszwalb, learnt]}")
    with pytest.raises(UsageError, match=r"students learn in a circle: 'first' from 'second' from 'first'\."):
        grid(root, STUDENTS, base)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{method: student}", "runs a trained student. Name it"),
        ("{method: student, params: {model: secnd}}", "Unknown student 'secnd'. Did you mean 'second'? A folder is written with a slash"),
        ("{method: unsam, backbone: patches, params: {divide: student}}", "a model goes with divide=student"),
        ("{method: unsam, backbone: patches, params: {model: first}}", "a model goes with divide=student"),
        ("{method: student, backbone: patches, params: {model: first}}", "looks at pixels only"),
        ("{method: student, params: {model: first, auto: all}}", "parameter 'auto' is 'all'"),
        ("{method: student, params: {model: first, split: 9}}", "split is 9, expected 1 to 8"),
    ],
)
def test_entries_that_cannot_be(root, entry, said):
    base = BASE.replace("  learnt: {method: student, params: {model: second}, datasets: [scenes]}", f"  learnt: {entry}")
    written = profile(root, STUDENTS, base)
    with pytest.raises(UsageError) as refused:
        entry_cell(written, "learnt")
    assert said in str(refused.value)
    assert "profiles/small.yaml:5" in str(refused.value)


def test_a_model_is_not_run_again_for_stability(root):
    with pytest.raises(UsageError, match="runs a trained model, which is not run again on other views"):
        grid(root, "  two: {dataset: scenes, entry: learnt, pool: {views: [flip]}}\n" + STUDENTS)


def test_a_student_on_a_device_is_in_the_pool_of_the_gpu(root):
    made = grid(root, STUDENTS, BASE.replace("{model: second}", "{model: second, device: auto}"))
    assert made["segments"]["learnt__scenes"]["pool"] == "gpu"
