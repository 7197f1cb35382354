"""What people edit is checked, with the line; what follows from it is always the same text."""

import pytest
from projects import Project

from uss_dagster.errors import UsageError
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import HEADER, Plan, make_plan, read_plan, write_plan
from uss_dagster.planning.profiles import profile_names, read_profile
from uss_dagster.stages.features import Features
from uss_dagster.stages.leaderboard import Leaderboard
from uss_dagster.stages.scores import Scores
from uss_dagster.stages.segments import Segments

PROFILE = """\
settings: {shard_images: 2}
datasets:
  scenes: {images: 4}
backbones:
  patches: {}
metrics: [covering, matching]
entries:
  felzenszwalb: {}
  fine_slic:
    method: slic_merge
    backbone: patches
    params:
      superpixels: 60
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "small.yaml").write_text(PROFILE)
    (tmp_path / "params.yaml").write_text("profile: small\n")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    return tmp_path


def set_profile(root, old, new):
    assert old in PROFILE
    (root / "profiles" / "small.yaml").write_text(PROFILE.replace(old, new, 1))


def planned(root) -> Plan:
    return make_plan(read_profile(root), root)


def texts(root) -> dict[str, str]:
    """Every planned file of a project."""
    files = [root / "dvc.yaml", *sorted((root / "pipelines").rglob("*.yaml"))]
    return {path.relative_to(root).as_posix(): path.read_text() for path in files}


def test_cells(root):
    plan = planned(root)
    assert [cell.name for cell in plan.of(Segments)] == ["segments/felzenszwalb/scenes", "segments/fine_slic/scenes"]
    assert [cell.name for cell in plan.of(Features)] == ["features/patches/scenes"]
    (board,) = plan.of(Leaderboard)
    assert board.entries["fine_slic"]["params"] == {"superpixels": 60}
    fine = plan.cell("segments/fine_slic/scenes")
    assert fine.method.params["superpixels"] == 60
    assert fine.address == "pipelines/scenes/fine_slic/dvc.yaml:segments"
    assert plan.cell("features/patches/scenes").address == "pipelines/scenes/dvc.yaml:features-patches"
    assert board.address == "leaderboard"
    assert all(cell.code == cell.expected_code() for cell in plan.cells)
    with pytest.raises(ValueError, match="frozen"):
        fine.title = "other"


def test_facets_that_a_method_reads_are_asked_of_its_backbone(root):
    set_profile(root, "patches: {}", "patches: {facets: [cls]}")
    assert planned(root).cell("features/patches/scenes").encoder.params["facets"] == ["cls", "tokens"]
    text = (root / "profiles/small.yaml").read_text().replace("superpixels: 60", "facet: keys").replace("slic_merge", "token_kmeans")
    (root / "profiles/small.yaml").write_text(text)
    assert planned(root).cell("features/patches/scenes").encoder.params["facets"] == ["cls", "keys"]


def test_weights_that_have_seen_labels_are_named_on_every_row(root):
    set_profile(root, "patches: {}", "patches: {kind: vit, model: dinov2_vits14_saliency}")
    (board,) = planned(root).of(Leaderboard)
    assert board.entries["fine_slic"]["title"] == "SLIC + merging [weights have seen labels of saliency]"
    assert board.entries["felzenszwalb"]["title"] == "Felzenszwalb–Huttenlocher"


def test_inputs_are_what_a_stage_reads_and_nothing_else(root):
    plan, layout = planned(root), Layout(root)
    read = {cell.name: [layout.relative(path) for path in cell.inputs(layout)] for cell in plan.cells}
    assert read["plan"] == ["params.yaml", "profiles"]
    assert read["datasets/scenes"] == ["data/plan"]
    assert read["segments/felzenszwalb/scenes"] == ["data/datasets/scenes/images"]
    assert read["segments/fine_slic/scenes"] == ["data/datasets/scenes/images", "data/features/patches/scenes"]
    assert read["scores/fine_slic/scenes"] == ["data/segments/fine_slic/scenes", "data/datasets/scenes"]
    assert read["leaderboard"] == ["data/scores/felzenszwalb/scenes", "data/scores/fine_slic/scenes"]


def test_every_input_is_an_output_and_every_cell_comes_after_what_it_reads(root):
    plan, layout = planned(root), Layout(root)
    written: list[str] = []
    for cell in plan.cells:
        for path in cell.inputs(layout):
            name = layout.relative(path)
            parts = name.startswith(("pipelines/", "params.yaml", "profiles")) or any(
                name == out or name.startswith(f"{out}/") for out in written
            )
            assert parts, f"{cell.name} reads {name}, which no earlier cell writes"
        written += [layout.relative(output.path) for output in cell.outputs(layout)]
    assert len(written) == len(set(written))


def test_a_cell_is_the_same_after_it_was_written_and_read(root):
    write_plan(root)
    plan = planned(root)
    assert {cell.name: cell for cell in read_plan(root).cells} == {cell.name: cell for cell in plan.cells}


def test_writing_is_deterministic_and_says_what_changed(root):
    assert "segments/fine_slic/scenes: new" in write_plan(root)
    before = texts(root)
    assert write_plan(root) == []
    set_profile(root, "superpixels: 60", "superpixels: 61")
    assert write_plan(root, check=True) == ["leaderboard: entries", "segments/fine_slic/scenes: method"]
    assert texts(root) == before
    write_plan(root)
    changed = {path for path, text in texts(root).items() if text != before[path]}
    assert changed == {"pipelines/leaderboard.yaml", "pipelines/scenes/fine_slic/segments.yaml"}, "no other stage sees the edit"
    set_profile(root, "superpixels: 60", "superpixels: 60")
    write_plan(root)
    assert texts(root) == before


@pytest.mark.parametrize("path", ["dvc.yaml", "pipelines/scenes/fine_slic/dvc.yaml", "pipelines/scenes/fine_slic/segments.yaml"])
def test_a_hand_edited_plan_is_written_anew(root, path):
    write_plan(root)
    before = texts(root)
    for broken in (f"{HEADER}stages: [", f"{HEADER}- a\n", before[path].replace("scenes", "other"), before[path] + "\n# note\n"):
        (root / path).write_text(broken)
        assert write_plan(root)
        assert texts(root) == before


def test_peoples_own_stages_are_never_touched(root):
    own = root / "pipelines" / "mine" / "dvc.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("stages: {count: {cmd: wc -l params.yaml > n.txt, outs: [n.txt]}}\n")
    write_plan(root)
    assert own.read_text().startswith("stages: {count:")


def test_what_is_no_longer_planned_is_removed_but_for_its_lock(root):
    write_plan(root)
    lock = root / "pipelines/scenes/felzenszwalb/dvc.lock"
    lock.write_text("schema: '2.0'\nstages: {}\n")
    set_profile(root, "  felzenszwalb: {}\n", "")
    assert "pipelines/scenes/felzenszwalb/segments.yaml: gone" in write_plan(root)
    assert [path.name for path in lock.parent.iterdir()] == ["dvc.lock"]


def test_params_are_laid_over_the_profile(root):
    (root / "params.yaml").write_text(
        "profile: small\nsettings: {bootstrap: 9}\nentries:\n  felzenszwalb: false\n  fine_slic: {params: {compactness: 5}}\n"
        "datasets:\n  other: {kind: scenes, seed: 3}\n"
    )
    plan = planned(root)
    assert [cell.name for cell in plan.of(Segments)] == ["segments/fine_slic/other", "segments/fine_slic/scenes"]
    params = plan.cell("segments/fine_slic/other").method.params
    assert (params["superpixels"], params["compactness"]) == (60, 5.0)
    assert plan.cell("datasets/other").adapter.params["seed"] == 3
    assert plan.cell("scores/fine_slic/scenes").bootstrap == 9


def test_choosing_a_profile_edits_one_line(root):
    (root / "profiles" / "other.yaml").write_text(PROFILE.replace("images: 4", "images: 5"))
    (root / "params.yaml").write_text("# mine\nprofile: small # now\nsettings: {samples: 2}\n")
    write_plan(root, "other")
    assert (root / "params.yaml").read_text() == "# mine\nprofile: other # now\nsettings: {samples: 2}\n"
    assert read_plan(root).cell("datasets/scenes").adapter.params["images"] == 5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("felzenszwalb: {}", "felzenswalb: {}", "profiles/small.yaml:8: Unknown method 'felzenswalb'. Did you mean 'felzenszwalb'?"),
        ("method: slic_merge", "method: slick_merge", "profiles/small.yaml:10: Unknown method 'slick_merge'. Did you mean 'slic_merge'?"),
        ("backbone: patches", "backbone: patch", "profiles/small.yaml:11: Unknown backbone 'patch'. Did you mean 'patches'?"),
        ("scenes: {images", "scene: {images", "profiles/small.yaml:3: Unknown dataset 'scene'. Did you mean 'scenes'?"),
        ("covering, matching", "covring", "profiles/small.yaml:6: Unknown metric 'covring'. Did you mean 'covering'?"),
        (
            "superpixels: 60",
            "superpixel: 60",
            "profiles/small.yaml:13: method 'slic_merge' has no parameter 'superpixel'. Did you mean 'superpixels'?",
        ),
        (
            "superpixels: 60",
            "superpixels: many",
            "profiles/small.yaml:13: method 'slic_merge': parameter 'superpixels' is 'many', expected int.",
        ),
        ("images: 4", "images: 4.5", "profiles/small.yaml:3: dataset 'scenes': parameter 'images' is 4.5, expected int."),
        ("    backbone: patches\n", "", "method 'slic_merge' needs tokens of a backbone. Give entry 'fine_slic' a line 'backbone: …'."),
        ("felzenszwalb: {}", "felzenszwalb: {backbone: patches}", "profiles/small.yaml:8: method 'felzenszwalb' looks at pixels only."),
        (
            "    method: slic_merge\n    backbone: patches\n    params:\n      superpixels: 60\n",
            "    method: tokencut\n    backbone: cnn\n",
            "profiles/small.yaml:11: method 'tokencut' needs facet 'keys', which backbone 'cnn' cannot give (it has: tokens, cls).",
        ),
        (
            "fine_slic:",
            "Fine-Slic:",
            "profiles/small.yaml:9: 'Fine-Slic' cannot be a name. Use a-z, 0-9 and single underscores, such as 'fine_slic'.",
        ),
        ("fine_slic:", "fine__slic:", "profiles/small.yaml:9: 'fine__slic' cannot be a name."),
        ("felzenszwalb: {}", "felzenszwalb: {datasets: [scene]}", "profiles/small.yaml:8: Unknown dataset 'scene'. Did you mean 'scenes'?"),
        (
            "felzenszwalb: {}",
            "felzenszwalb: {param: {}}",
            "profiles/small.yaml:8: entry 'felzenszwalb' has no setting 'param'. Did you mean 'params'?",
        ),
        ("felzenszwalb: {}", "fine_slic: {}", "profiles/small.yaml:9: 'fine_slic' stands twice (first in line 8)."),
        (
            "settings: {shard_images: 2}",
            "settings: {shard_images: 0}",
            "profiles/small.yaml:1: 'shard_images' of settings: input should be greater than or equal to 1, got 0.",
        ),
        ("metrics:", "metric:", "profiles/small.yaml:6: Unknown section 'metric'. Did you mean 'metrics'?"),
        ("entries:", "entries: [", "profiles/small.yaml:9: not valid YAML"),
    ],
)
def test_a_mistake_is_named_with_its_line(root, old, new, message):
    set_profile(root, old, new)
    with pytest.raises(UsageError) as caught:
        planned(root)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "params.yaml names no profile. Add a line such as 'profile: demo'; known: small."),
        ("profile: smal\n", "params.yaml:1: Unknown profile 'smal'. Did you mean 'small'?"),
        ("profile: small\nentries: {a: {b: }\n", "params.yaml:3: not valid YAML"),
        ("profile: small\nentries:\n  nothing: false\n", "params.yaml:3: 'nothing' is switched off, but"),
        ("- a\n", "params.yaml:1: expected a mapping (name: value), got list."),
        ("profile: small\nentries: 3\n", "params.yaml:2: 'entries' must be a mapping (name: value), got 3."),
    ],
)
def test_broken_params_are_named_with_their_line(root, text, message):
    (root / "params.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        planned(root)
    assert message in str(caught.value)


def test_the_committed_plan_is_up_to_date_and_every_profile_can_be_planned():
    from projects import SOURCE

    assert write_plan(SOURCE, check=True) == []
    for name in profile_names(SOURCE):
        assert make_plan(read_profile(SOURCE, name)).of(Segments)


def test_outside_a_project(tmp_path):
    refused = Project(tmp_path).uss("plan", code=64)
    assert refused.stderr.startswith("error: No params.yaml and dvc.yaml in ")


def test_the_own_segmentation_is_scored_of_methods_that_have_one(root):
    more = """
  walk: {method: diffuse_walk_cut, backbone: patches}
  full: {method: diffuse_walk_cut, backbone: patches, params: {tree: full}}
"""
    set_profile(root, "[covering, matching]", "[covering, own, oracle]")
    (root / "profiles/small.yaml").write_text((root / "profiles/small.yaml").read_text() + more.lstrip("\n"))
    plan = planned(root)
    metrics = {cell.entry: cell.metrics for cell in plan.of(Scores)}
    assert metrics["walk"] == ["covering", "own", "oracle"]
    assert metrics["full"] == metrics["fine_slic"] == ["covering", "oracle"]
    (board,) = plan.of(Leaderboard)
    assert list(board.metrics).index("own_diffseg_miou") < list(board.metrics).index("oracle_diffseg_miou"), "shown first"
