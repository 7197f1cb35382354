"""Class trees beside the adapters: readable, complete, of the shapes that their papers' tables state; mistakes named with their line."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

import uss_dagster.datasets
from uss_dagster import registry
from uss_dagster.datasets import coco_stuff
from uss_dagster.datasets.base import LimitedParams, dataset_spec
from uss_dagster.datasets.formats.class_trees import classes_of, load_classes, read_classes, spec_of
from uss_dagster.errors import UsageError
from uss_dagster.planning.plan import Planner
from uss_dagster.planning.profiles import DatasetSection, Profile, Settings
from uss_dagster.regions.classes import BACKGROUND, FOREGROUND, IGNORE, INNER
from uss_dagster.stages.datasets import Datasets

FOLDER = Path(uss_dagster.datasets.__file__).parent
FILES = sorted(path for path in FOLDER.glob("*.yaml") if not path.stem.endswith("_about"))


def shape(tree) -> tuple[int, int, int, int]:
    """(foreground, background, ignore leaves, depth)."""
    return (*(tree.kind.count(kind) for kind in (FOREGROUND, BACKGROUND, IGNORE)), int(tree.depth.max()))


def test_every_dataset_has_a_file_of_facts_and_no_file_is_left_over():
    assert sorted(path.stem.removesuffix("_about") for path in FOLDER.glob("*_about.yaml")) == list(registry.names("dataset"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, r"farm_about\.yaml is missing: the title, licence and archives"),
        (
            "title: Farm\ntruth: none\nlicense: MIT\ncitation: ''\n",
            r"farm_about\.yaml has no parameter 'license'\. Did you mean 'licence'\?",
        ),
        ("title: Farm\ntruth: none\ncitation: ''\n", r"farm_about\.yaml: .* missing 1 required .* 'licence'"),
        ("title: 3\ntruth: none\nlicence: ''\ncitation: ''\n", r"farm_about\.yaml: parameter 'title' is 3, expected str"),
        ("archives: [{nam: a.zip}]\n", r"farm_about\.yaml: archive has no parameter 'nam'\. Did you mean 'name'\?"),
        ("archives: [{name: a.zip, size: big}]\n", r"farm_about\.yaml: archive: parameter 'size' is 'big', expected int"),
    ],
)
def test_a_mistake_in_the_facts_of_a_dataset_is_named(tmp_path, text, says):
    if text is not None:
        (tmp_path / "farm_about.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=says):
        dataset_spec(str(tmp_path / "farm.py"), LimitedParams)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_reads_and_its_labels_are_leaves(path):
    classes = load_classes(path.stem)
    assert classes is load_classes(path.stem), "read once"
    assert all(classes.tree.kind[node] != INNER for node in classes.node.values())
    assert len(path.read_text(encoding="utf-8").splitlines()) < 1300


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("voc2012", (20, 1, 1, 1)),
        ("voc2012_groups", (20, 1, 1, 2)),
        ("coco", (80, 0, 0, 2)),
        ("coco_semantic", (80, 1, 0, 2)),
        ("coco_stuff_27", (27, 0, 1, 3)),
        ("coco_stuff_171", (171, 0, 1, 4)),
        ("coco_stuff_182", (182, 0, 1, 4)),
        ("coco_panoptic", (133, 0, 1, 4)),
    ],
)
def test_shapes_are_those_of_the_tables(name, expected):
    classes = load_classes(name)
    assert shape(classes.tree) == expected
    leaves = {node for node, kind in enumerate(classes.tree.kind) if kind != INNER}
    assert set(classes.node.values()) == leaves, "every class has a label"


@pytest.mark.parametrize(("labels", "expected"), [("things", (91, 91, 1, 4)), ("stuff", (91, 91, 1, 4)), ("182", (182, 0, 1, 4))])
def test_things_and_stuff_of_coco_stuff_trade_places(labels, expected):
    tree = classes_of(coco_stuff, coco_stuff.Params(labels=labels))
    assert shape(tree) == expected
    kind = {tree.names[node]: tree.kind[node] for node in range(len(tree))}
    assert (kind["bicycle"], kind["wall-brick"]) == {
        "things": (FOREGROUND, BACKGROUND),
        "stuff": (BACKGROUND, FOREGROUND),
        "182": (FOREGROUND, FOREGROUND),
    }[labels]


def test_the_coarse_classes_of_coco_stuff_are_the_parents_of_the_fine_ones():
    fine, coarse = load_classes("coco_stuff_182"), load_classes("coco_stuff_27")
    assert fine.node.keys() == coarse.node.keys() == {*range(182), 255}
    for label in range(182):
        assert fine.tree.names[fine.tree.parent[fine.node[label]]] == coarse.tree.names[coarse.node[label]]
    present, absent = load_classes("coco_stuff_171"), fine.node.keys() - load_classes("coco_stuff_171").node.keys()
    assert {label + 1 for label in absent} == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}, "the things that COCO dropped"
    assert all(present.tree.names[node] == fine.tree.names[fine.node[label]] for label, node in present.node.items())


def test_the_groups_of_voc_hold_the_same_labels():
    flat, grouped = load_classes("voc2012"), load_classes("voc2012_groups")
    names = {label: flat.tree.names[node] for label, node in flat.node.items()}
    assert names == {label: grouped.tree.names[node] for label, node in grouped.node.items()}
    assert [n for n in grouped.tree.names if grouped.tree.kind[grouped.tree.names.index(n)] == INNER] == [
        "scene",
        "animal",
        "vehicle",
        "indoor",
    ]


@pytest.mark.parametrize(
    ("name", "file"),
    [("coco", "coco_val2017/annotations/instances_val2017.json"), ("coco_panoptic", "coco_panoptic/annotations/panoptic_val2017.json")],
)
def test_names_groups_and_ids_are_the_official_ones(name, file):
    path = Path(os.environ.get("USS_MIRROR", "")) / file
    if not os.environ.get("USS_MIRROR") or not path.is_file():
        pytest.skip(f"NOT TESTED against official categories: set USS_MIRROR to a folder that holds {file}.")
    classes = load_classes(name)
    official = {c["id"]: (c["name"], c["supercategory"]) for c in json.loads(path.read_text())["categories"]}
    tree = classes.tree
    ours = {
        label: (tree.names[node], tree.names[tree.parent[node]]) for label, node in classes.node.items() if tree.kind[node] == FOREGROUND
    }
    assert ours == official


@pytest.mark.parametrize("name", ["coco_stuff", "voc2012", "coco", "coco_panoptic", "lvis", "paco", "entityseg", "sa1b", "uvo", "folder"])
def test_specs_are_complete_and_agree_with_the_hooks(name):
    module = registry.load("dataset", name)
    spec, params = module.SPEC, module.SPEC.params()
    assert spec.name == name
    assert spec.licence
    if name not in ("lvis", "paco"):  # whose classes are in the annotation file
        assert spec_of(module, params) == spec
    for archive in spec.archives:
        assert archive.urls or spec.instructions, f"{archive.name} can be had in no way"
        assert not archive.md5 or len(archive.md5) == 32


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("cat: foreground 1\ndog: foreground 1\n", 2, "label 1 stands twice (first in line 1)"),
        ("a:\n  cat: foreground 1\n  cat: foreground 2\n", 3, "class 'cat' stands twice below 'a'"),
        ("cat: foreground 1\ncat: foreground 2\n", 2, "stands twice below 'the scene'"),
        ("cat: frontground 1\n", 1, "class 'cat' must have classes below it"),
        ("cat: foreground one\n", 1, "followed by its label ids"),
        ("sky: background 0\ncat:\n", 2, "class 'cat' must have classes below it"),
        ("sky: background 0\ncat: {}\n", 2, "class 'cat' must have classes below it"),
        ("sky: [1, 2]\n", 1, "class 'sky' must have classes below it"),
        ("? [a]\n: foreground 1\n", 1, "the name of a class is text"),
        ("cat: 'foreground 1\n", 1, "not valid YAML"),
        ("", 1, "expected a mapping"),
        ("- cat\n", 1, "expected a mapping"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path, text, line, says):
    path = tmp_path / "zoo.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"zoo\.yaml:") as error:
        read_classes(path)
    assert says in str(error.value)
    found = int(str(error.value).split(":")[1])
    assert found == line or says == "not valid YAML"


def test_names_stay_text_and_a_leaf_may_have_no_label_or_several(tmp_path):
    path = tmp_path / "odd.yaml"
    path.write_text("no: foreground 3 7\n1: background\ngroup:\n  yes: ignore 0\n", encoding="utf-8")
    classes = read_classes(path)
    assert classes.tree.names == ("scene", "no", "1", "group", "yes")
    assert dict(classes.node) == {3: 1, 7: 1, 0: 4}
    assert np.array_equal(classes.tree.kind, [INNER, FOREGROUND, BACKGROUND, INNER, IGNORE])


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match="class tree in a YAML file beside it"):
        read_classes(tmp_path / "none.yaml")


@pytest.mark.parametrize(("given", "expected"), [({}, "instances"), ({"truth": "classes"}, "classes")])
def test_the_plan_knows_the_truth_that_parameters_ask_for(given, expected):
    section = DatasetSection.model_validate({"kind": "coco", **given})
    (cell,) = Planner(Profile("x", Settings(), {"mine": section}, {}, {}, [], {}, {})).cells_of(Datasets)
    assert cell.truth == expected
