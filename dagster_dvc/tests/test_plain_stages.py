"""Stages read as plain YAML are those that DVC resolves; what could be read in another way is left to DVC."""

import string
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo
from foreign import FOREACH, GET_STARTED, MATRIX, make
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dagster_dvc import DvcProject, plain_stages
from dagster_dvc.internals import strictyaml

EVERYTHING = {
    "dvc.yaml": """\
stages:
  first:
    cmd: [echo 1, 'echo 2 > out/a.txt']
    desc: It does 2 things
    deps: [src/../src/a.py, data/raw, b.py]
    params: [lr, {params.yaml: [train.size]}, {other.yaml: }, {more.yaml: [b, a]}]
    outs: [out/a.txt, {out/b: {cache: false, push: true, persist: true, remote: far}}]
    metrics: [m.json: {cache: false}]
    plots: [p.csv: {x: step, header: true}, p.csv]
    frozen: true
    always_changed: false
    meta: {owner: me, dagster: {asset: some/asset, tags: {a: b}, pull: true, kinds: [one, two], pool: , description: 12}}
  second:
    cmd: |
      echo 1
      echo "0.5"
    wdir: deep/down
    deps: [../../out/a.txt, './x']
    outs: [y/]
    params: [a.b]
metrics: [m.json]
params: [other.yaml]
plots: [p.csv, best: {x: step, y: {p.csv: [loss, other]}, title: Best}, alone: ]
""",
    "params.yaml": "lr: 0.1\ntrain: {size: 1e3}\n",
    "sub/folder/dvc.yaml": "stages:\n  third: {cmd: 'true', deps: [../../out/a.txt], outs: [here]}\n",
    "data/raw.dvc": "outs:\n- md5: a304afb96060aad90176268345e10355\n  size: 12\n  hash: md5\n  path: raw\n",
    "data/raw/dvc.yaml": "this is data: not stages\n",
    "out/b/dvc.yaml": "neither: is this\n",
    "ignored/dvc.yaml": "nor: this\n",
    "hidden/dvc.yaml": "nor: this\n",
    ".gitignore": "/ignored\n",
    ".dvcignore": "hidden\n",
}
PLAIN = "stages:\n  one: {cmd: echo, deps: [a], outs: [b]}\n"


def read(root: Path) -> list | None:
    with Repo(str(root)) as repo:
        return plain_stages.read(repo)


def stages_of(root: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Repo], list | None]) -> dict:
    """The stages, nothing stored, in the order in which they are found."""
    with monkeypatch.context() as patch:
        patch.setattr("dagster_dvc.stage_cache.key_of", lambda root: None)
        patch.setattr(plain_stages, "read", read)
        return DvcProject(root).stages


@pytest.mark.parametrize("files", [GET_STARTED, EVERYTHING, {"dvc.yaml": "stages: {}\n"}, {"dvc.yaml": PLAIN}])
def test_plain_stages_equal_those_of_dvc(files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if files is GET_STARTED:  # the same without its templates
        files = {**files, "dvc.yaml": files["dvc.yaml"].replace("${prepare.add}", "1").replace("${train.add}", "10")}
    root = make(tmp_path, files)
    assert read(root) is not None
    plain = stages_of(root, monkeypatch, plain_stages.read)
    theirs = stages_of(root, monkeypatch, lambda repo: None)
    assert plain == theirs
    assert list(plain) == list(theirs)


@pytest.mark.parametrize("files", [FOREACH, MATRIX, GET_STARTED])
def test_templates_are_left_to_dvc(files: dict[str, str], tmp_path: Path) -> None:
    assert read(make(tmp_path, files)) is None


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.replace("cmd: echo", "cmd: ${cmd}"),
        PLAIN.replace("cmd: echo", "cmd: 1"),
        PLAIN.replace("cmd: echo, ", ""),
        PLAIN.replace("echo", "echo, cmd: echo"),
        PLAIN.replace("[a]", "[s3://bucket/a]"),
        PLAIN.replace("[a]", "[/absolute]"),
        PLAIN.replace("[a]", "[../outside]"),
        PLAIN.replace("[a]", "[other.dvc]"),
        PLAIN.replace("[a]", "[1]"),
        PLAIN.replace("[a]", ""),
        PLAIN.replace("[b]", "[hidden/b]"),
        PLAIN.replace("[b]", "[b: {cached: false}]"),
        PLAIN.replace("[b]", "[b: {cache: no}]"),
        PLAIN.replace("outs", "vars: [other.yaml], outs"),
        PLAIN.replace("outs", "outputs"),
        PLAIN.replace("outs", "meta: {size: 1.0}, outs"),
        PLAIN.replace("outs", "meta: {at: 2020-01-01}, outs"),
        PLAIN.replace("outs", "meta: {answer: on}, outs"),
        PLAIN.replace("one", "one@two"),
        PLAIN + "vars: [params.yaml]\n",
        PLAIN + "artifacts: {best: {path: b}}\n",
        PLAIN + "plots: [1]\n",
        PLAIN + "a: b: c\n",
        "",
    ],
)
def test_what_dvc_may_read_otherwise_is_left_to_it(text: str, tmp_path: Path) -> None:
    root = make(tmp_path, {"dvc.yaml": PLAIN, ".dvcignore": "hidden\n"})
    assert read(root) is not None
    (root / "dvc.yaml").write_text(text)
    assert read(root) is None


@pytest.mark.parametrize("text", ["a: [", "- 1\n", "a: 2020-01-01\n"])
def test_variables_that_dvc_refuses_are_left_to_it(text: str, tmp_path: Path) -> None:
    root = make(tmp_path, {"dvc.yaml": PLAIN, "params.yaml": "a: 0.5\n"})
    assert read(root) is not None
    (root / "params.yaml").write_text(text)
    assert read(root) is None


def test_stages_of_a_dvc_file_are_left_to_dvc(tmp_path: Path) -> None:
    """As DVC before 1.0 wrote them."""
    assert (
        read(make(tmp_path, {"dvc.yaml": PLAIN, "old.dvc": "cmd: echo\nouts: [{path: x, md5: a304afb96060aad90176268345e10355}]\n"}))
        is None
    )


@settings(max_examples=250, deadline=None)
@given(st.text(string.digits + "abefinotxyABFNOTY" + "+-._:~=<> ", max_size=7))
@example("1e3")
@example("0o17")
@example("017")
@example("12:30:45")
@example("1_000")
@example("yes")
@example("Null")
@example("-.inf")
@example("2020-01-01")
@example("-_")
@example("._")
def test_scalars_mean_what_they_mean_to_dvc(scalar: str) -> None:
    text = f"key: {scalar}\n"
    try:
        ours = yaml.load(text, Loader=plain_stages.PlainLoader)
    except (plain_stages.NotPlain, yaml.YAMLError):
        return  # left to DVC
    theirs = strictyaml.parse_yaml(text, "dvc.yaml", typ="safe")
    assert ours == theirs
    if isinstance(ours, dict):
        assert type(ours["key"]) is type(theirs["key"])
