"""What people edit is checked, with the line; what follows from it is always the same text."""

import pytest
import yaml
from projects import Project

from uss_dagster.errors import UsageError
from uss_dagster.planning import plan
from uss_dagster.planning.cells import expected_code
from uss_dagster.planning.profiles import read_profile

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


def test_cells(root):
    grid = plan.make_grid(read_profile(root))
    assert list(grid["segments"]) == ["felzenszwalb__scenes", "fine_slic__scenes"]
    assert list(grid["features"]) == ["patches__scenes"]
    assert grid["segments"]["fine_slic__scenes"]["params"]["superpixels"] == 60
    assert grid["leaderboard"]["entries"]["fine_slic"]["params"] == {"superpixels": 60}
    assert grid["segments"]["felzenszwalb__scenes"]["reads"] == "data/datasets/scenes/images/images.parquet"
    for stage, _, cell in plan.iterate_cells(grid):
        assert cell["code"] == expected_code(stage, cell)


def test_writing_is_deterministic_and_says_what_changed(root):
    assert "segments fine_slic__scenes: new" in plan.write_plan(root)
    text = (root / "grid.yaml").read_text()
    assert plan.write_plan(root) == []
    set_profile(root, "superpixels: 60", "superpixels: 61")
    assert plan.write_plan(root, check=True) == ["segments fine_slic__scenes: params", "leaderboard: entries"]
    assert (root / "grid.yaml").read_text() == text
    plan.write_plan(root)
    set_profile(root, "superpixels: 60", "superpixels: 60")
    plan.write_plan(root)
    assert (root / "grid.yaml").read_text() == text


def test_a_hand_edited_grid_is_written_anew(root):
    plan.write_plan(root)
    text = (root / "grid.yaml").read_text()
    for broken in ("grid: [", "- a\n", text.replace("60", "70"), text + "\n# note\n"):
        (root / "grid.yaml").write_text(broken)
        assert plan.write_plan(root)
        assert (root / "grid.yaml").read_text() == text


def test_params_are_laid_over_the_profile(root):
    (root / "params.yaml").write_text(
        "profile: small\nsettings: {bootstrap: 9}\nentries:\n  felzenszwalb: false\n  fine_slic: {params: {compactness: 5}}\n"
        "datasets:\n  other: {kind: scenes, seed: 3}\n"
    )
    grid = plan.make_grid(read_profile(root))
    assert list(grid["segments"]) == ["fine_slic__other", "fine_slic__scenes"]
    params = grid["segments"]["fine_slic__other"]["params"]
    assert (params["superpixels"], params["compactness"]) == (60, 5.0)
    assert grid["datasets"]["other"]["params"]["seed"] == 3
    assert grid["scores"]["fine_slic__scenes"]["bootstrap"] == 9


def test_choosing_a_profile_edits_one_line(root):
    (root / "profiles" / "other.yaml").write_text(PROFILE.replace("images: 4", "images: 5"))
    (root / "params.yaml").write_text("# mine\nprofile: small # now\nsettings: {samples: 2}\n")
    plan.write_plan(root, "other")
    assert (root / "params.yaml").read_text() == "# mine\nprofile: other # now\nsettings: {samples: 2}\n"
    assert yaml.safe_load((root / "grid.yaml").read_text())["grid"]["profile"] == "other"


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
        ("patches: {}", "patches: {facets: [cls]}", "method 'slic_merge' needs facet 'tokens', but backbone 'patches' writes ['cls']."),
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
            "profiles/small.yaml:1: settings: shard_images and samples must be at least 1",
        ),
        ("metrics:", "metric:", "profiles/small.yaml:6: Unknown section 'metric'. Did you mean 'metrics'?"),
        ("entries:", "entries: [", "profiles/small.yaml:9: not valid YAML"),
    ],
)
def test_a_mistake_is_named_with_its_line(root, old, new, message):
    set_profile(root, old, new)
    with pytest.raises(UsageError) as caught:
        plan.make_grid(read_profile(root))
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
        plan.make_grid(read_profile(root))
    assert message in str(caught.value)


def test_the_committed_plan_is_up_to_date_and_every_profile_can_be_planned():
    from projects import SOURCE

    assert plan.write_plan(SOURCE, check=True) == []
    for path in sorted((SOURCE / "profiles").glob("*.yaml")):
        assert plan.make_grid(read_profile(SOURCE, path.stem))["segments"]


def test_outside_a_project(tmp_path):
    refused = Project(tmp_path).uss("plan", code=64)
    assert refused.stderr.startswith("error: No params.yaml and dvc.yaml in ")
