"""What the plan makes of the section 'students' and of entries that run a student."""

from __future__ import annotations

from pathlib import Path

import pytest

from uss_dagster.errors import UsageError
from uss_dagster.planning.entries import may_be_passed_on
from uss_dagster.planning.fingerprints import closure
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import Plan, Planner, changed_cells, make_plan, read_plan, write_plan
from uss_dagster.planning.profiles import Profile, read_profile
from uss_dagster.stages.curated import CuratedSet
from uss_dagster.stages.leaderboard import Leaderboard
from uss_dagster.stages.models import Models
from uss_dagster.stages.prompted import Prompted
from uss_dagster.stages.scores import Scores
from uss_dagster.stages.segments import Segments
from uss_dagster.weights.catalogue import CATALOGUE

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
def planned(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """The plan of everything above."""
    folder = tmp_path_factory.mktemp("planned")
    (folder / "profiles").mkdir()
    (folder / "params.yaml").write_text("profile: small\n")
    return plan_of(folder)


def plan_of(root: Path, text: str = STUDENTS, base: str = BASE) -> Plan:
    return make_plan(profile(root, text, base), root)


def inputs(plan: Plan, name: str) -> list[str]:
    """What a cell reads, from the project folder."""
    layout, cell = Layout(Path()), plan.cell(name)
    assert cell is not None
    return [path.as_posix() for path in cell.inputs(layout)]


def test_only_entries_that_can_be_asked_are_prompted(root):
    """And only where the profile names the family; `prompts` costs the others nothing."""
    assert not plan_of(root).of(Prompted)
    plan = plan_of(root, base="metrics: [covering, prompts]\n" + BASE)
    assert [cell.name for cell in plan.of(Prompted)] == ["prompted/learnt/scenes"]
    assert inputs(plan, "prompted/learnt/scenes") == ["data/datasets/scenes", "data/models/second"]
    metrics = {cell.name: cell.metrics for cell in plan.of(Scores)}
    assert metrics["scores/learnt/scenes"] == ["covering", "prompts"]
    assert {tuple(of_cell) for name, of_cell in metrics.items() if "learnt" not in name} == {("covering",)}
    assert "data/prompted/learnt/scenes" in inputs(plan, "scores/learnt/scenes")


def test_cells_of_students_and_of_those_who_run_them(planned):
    first, second = planned.of(Models)
    assert (first.name, second.name) == ("models/first", "models/second")
    assert first.address == "pipelines/scenes/dvc.yaml:models-first"
    images = "data/datasets/scenes/images"
    assert inputs(planned, "models/first") == ["data/curated/masks", images]
    assert inputs(planned, "models/second") == ["data/curated/masks", images, "data/models/first"]
    assert (first.self_train, second.self_train, second.title) == (None, "first", "Round two")
    assert (first.params["steps"], first.params["size"], first.params["batch"]) == (7, "tiny", 8)
    assert first.pool == "gpu"
    segments = {cell.name: cell for cell in planned.of(Segments)}
    learnt, divided, plain = (segments[f"segments/{entry}/scenes"] for entry in ("learnt", "divided", "felzenszwalb"))
    assert (learnt.model, learnt.model_is_planned, learnt.pool) == ("data/models/second", True, "")
    assert inputs(planned, learnt.name) == [images, "data/models/second"]
    assert inputs(planned, divided.name) == [images, "data/features/patches/scenes", "data/models/first"]
    assert (plain.model, plain.model_is_planned, plain.content) == ("", False, "")
    assert inputs(planned, plain.name) == [images]
    assert all(cell.code == cell.expected_code() for cell in planned.cells)


def test_a_student_comes_after_its_teacher_and_before_those_who_run_it(planned):
    names = [cell.name for cell in planned.cells]
    order = ["curated/masks", "models/first", "models/second", "segments/learnt/scenes", "scores/learnt/scenes", "leaderboard"]
    assert [name for name in names if name in order] == order
    assert names.index("models/first") < names.index("segments/divided/scenes")


def test_steps_change_the_student_and_no_other_cell(root, planned):
    before = {cell.file: cell.to_plain() for cell in planned.cells}
    after = {cell.file: cell for cell in plan_of(root, STUDENTS.replace("steps: 7", "steps: 8")).cells}
    assert changed_cells(before, after) == ["models/first: params"]


def test_the_code_of_a_student_counts_only_where_it_runs(root):
    cut = "cut: {method: unsam, backbone: patches, datasets: [scenes]}\n  divided:"
    plan = plan_of(root, STUDENTS, BASE.replace("divided:", cut))
    assert plan.cell("segments/cut/scenes").code != plan.cell("segments/divided/scenes").code
    assert not any(name.startswith("uss_dagster.student") for name in closure(["uss_dagster.methods.unsam"]))
    assert "uss_dagster.methods.student" in plan.cell("segments/divided/scenes").modules()
    assert "uss_dagster.methods.student" not in plan.cell("segments/cut/scenes").modules()
    of_method = {name for name in closure(["uss_dagster.methods.student"]) if name.startswith("uss_dagster.student.")}
    assert "uss_dagster.student.model" in of_method
    assert not of_method & {"uss_dagster.student.training", "uss_dagster.student.losses", "uss_dagster.student.data"}


def test_what_is_learnt_from_others_pictures_is_not_pushed(root):
    plan = plan_of(
        root, STUDENTS + "  theirs: {curated: ours}\n  shared: {curated: ours, push: true}\n  kept: {curated: masks, push: false}\n"
    )
    pushed = {cell.student: cell.outputs(Layout(root))[0].push for cell in plan.of(Models)}
    assert pushed == {"first": True, "second": True, "shared": True, "theirs": False, "kept": False}
    assert all(not cell.outputs(Layout(root))[0].push for cell in plan.of(CuratedSet)), "pictures of a training set are never pushed"


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


def test_the_leaderboard_marks_students_that_saw_labels(root, planned):
    labelled = BASE.replace("entry: felzenszwalb}\n  ours", "entry: felzenszwalb, labels: truth}\n  ours")
    (board,) = plan_of(root, STUDENTS, labelled).of(Leaderboard)
    supervised = {name: entry["supervised"] for name, entry in board.entries.items()}
    assert supervised == {"felzenszwalb": False, "learnt": True, "divided": True}
    (board,) = planned.of(Leaderboard)
    assert not any(entry["supervised"] for entry in board.entries.values())


def test_the_plan_knows_the_weights_of_an_encoder(root, monkeypatch):
    """By their hash, without their file; and the leaderboard marks those who saw labels, also in a second round."""
    monkeypatch.setenv("USS_WEIGHTS", str(root / "none"))
    text = STUDENTS.replace("{steps: 7}", "{encoder: dinov2_vits14_saliency, tune: frozen}")
    plan = plan_of(root, text)
    assert {cell.name: cell.content for cell in plan.of(Models)} == {
        "models/first": CATALOGUE["dinov2_vits14_saliency"].identity,
        "models/second": "",
    }
    (board,) = plan.of(Leaderboard)
    assert board.entries["learnt"]["title"].endswith(" [weights have seen labels of saliency]")
    assert board.entries["divided"]["weights_labels"] == "labels of saliency"
    assert not board.entries["felzenszwalb"]["weights_labels"]


def test_labels_behind_the_masks_mark_all_that_learns_from_them(root, monkeypatch):
    """The student's own weights are random; those of the backbone that made its masks have seen labels."""
    monkeypatch.setenv("USS_WEIGHTS", str(root / "none"))
    base = BASE.replace("patches: {}}", "patches: {}, saliency: {kind: vit, model: dinov2_vits14_saliency}}")
    base = base.replace("  felzenszwalb: {}\n", "  felzenszwalb: {}\n  deep: {method: kmeans, backbone: saliency, datasets: [scenes]}\n")
    (board,) = plan_of(
        root, base=base.replace("masks: {dataset: scenes, entry: felzenszwalb}", "masks: {dataset: scenes, entry: deep}")
    ).of(Leaderboard)
    marked = {name for name, entry in board.entries.items() if entry["weights_labels"] == "labels of saliency"}
    assert marked == {"deep", "learnt", "divided"}


def test_a_folder_counts_by_its_content(root):
    folder = root / "trained"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"one")
    base = BASE.replace("model: second", "model: ./trained")

    def content() -> str:
        (root / "profiles" / "small.yaml").write_text(base + STUDENTS)
        write_plan(root)
        cell = read_plan(root).cell("segments/learnt/scenes")
        assert isinstance(cell, Segments)
        assert (cell.model, cell.model_is_planned) == ("./trained", False)
        assert cell.inputs(Layout(root)) == [Layout(root).images("scenes")], "DVC does not watch the folder: its content is in the cell"
        return cell.content

    first = content()
    (folder / "model.safetensors").write_bytes(b"another")
    second = content()
    assert first
    assert first != second
    (folder / "model.safetensors").unlink()
    folder.rmdir()
    assert content() == second, "not on this machine: what was noted stays"


@pytest.mark.parametrize(
    ("students", "line", "message"),
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
def test_what_people_write_is_checked_with_the_line(root, students, line, message):
    with pytest.raises(UsageError) as refused:
        Planner(profile(root, f"students:\n  {students}\n  second: {{curated: masks, self_train: first}}\n"), root).cells_of(Models)
    assert message in str(refused.value)
    assert f"profiles/small.yaml:{line}" in str(refused.value)


def test_a_circle_through_masks_that_a_student_made(root):
    base = BASE.replace("masks: {dataset: scenes, entry: felzenszwalb}", "masks: {dataset: scenes, entries: [felzenszwalb, learnt]}")
    with pytest.raises(UsageError, match=r"students learn in a circle: 'first' from 'second' from 'first'\."):
        plan_of(root, STUDENTS, base)


@pytest.mark.parametrize(
    ("entry", "message"),
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
def test_entries_that_cannot_be(root, entry, message):
    base = BASE.replace("  learnt: {method: student, params: {model: second}, datasets: [scenes]}", f"  learnt: {entry}")
    with pytest.raises(UsageError) as refused:
        Planner(profile(root, STUDENTS, base), root).cells_of(Segments)
    assert message in str(refused.value)
    assert "profiles/small.yaml:5" in str(refused.value)


def test_a_model_is_not_run_again_for_stability(root):
    with pytest.raises(UsageError, match="runs a trained model, which is not run again on other views"):
        plan_of(root, "  two: {dataset: scenes, entry: learnt, mask_pool: {views: [flip]}}\n" + STUDENTS)


def test_a_student_on_a_device_is_in_the_pool_of_the_gpu(root):
    plan = plan_of(root, STUDENTS, BASE.replace("{model: second}", "{model: second, device: auto}"))
    assert plan.cell("segments/learnt/scenes").pool == "gpu"
