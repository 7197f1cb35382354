"""Whatever stands in ``params.yaml``: it is planned, or refused in one sentence that names the line."""

from __future__ import annotations

from pathlib import Path

import pytest
from projects import SMALL, make_project

from uss_dagster.errors import UsageError
from uss_dagster.planning.profiles import read_profile


def bomb(kind: str) -> str:
    """Anchors that are nine times each other, twelve levels deep."""
    open_, close = ("{", "}") if kind == "mappings" else ("[", "]")
    names = [f"b{i}: " for i in range(9)] if kind == "mappings" else [""] * 9
    lines = [f"  a{n}: &a{n} {open_}{', '.join(f'{name}*a{n - 1}' for name in names)}{close}" for n in range(1, 12)]
    return "\n".join(["entries:", f"  a0: &a0 {open_}{close}", *lines])


WRONG = {
    "alias bomb of mappings": (bomb("mappings"), "more than 100,000 values once anchors (&) are expanded."),
    "alias bomb of lists": (bomb("lists"), "more than 100,000 values once anchors (&) are expanded."),
    "nested metrics": ("metrics: [[covering]]", ":2: metrics must be a list of names, got [['covering']]."),
    "numbers for metrics": ("metrics: [1]", ":2: metrics must be a list of names, got [1]."),
    "recursive anchor": (
        "entries:\n  kmeans: &a\n    params: {k: *a}",
        ":4: nested deeper than 32 levels; does an anchor (&) contain itself?",
    ),
    "recursive list": ("metrics: &m [*m]", ":2: nested deeper than 32 levels"),
    "deep mapping": ("entries: " + "{a: " * 900 + "1" + "}" * 900, ":2: nested deeper than 32 levels"),
    "deep list": ("metrics: " + "[" * 9000 + "]" * 9000, "nested deeper than 32 levels"),
    "deep block": ("\n".join(" " * i + f"a{i}:" for i in range(300)), "nested deeper than 32 levels"),
    "number for a section": ("2: {a: b}", ":2: Unknown section '2'."),
    "number for a parameter": ("entries:\n  kmeans: {params: {1: 2}}", ""),
    "a list for a name": ("entries:\n  [a, b]: {}", ":3: a name is text, not a list or a mapping."),
    "a huge number": ("entries:\n  kmeans: {params: {k: " + "9" * 5000 + "}}", "not valid YAML: Exceeds the limit"),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "small.yaml").write_text(SMALL)
    return tmp_path


@pytest.mark.parametrize("what", [what for what, (_, sentence) in WRONG.items() if sentence])
def test_one_sentence(root: Path, what: str) -> None:
    text, sentence = WRONG[what]
    (root / "params.yaml").write_text(f"profile: small\n{text}\n")
    with pytest.raises(UsageError) as refused:
        read_profile(root)
    assert sentence in str(refused.value)
    assert str(refused.value).startswith("params.yaml")


def test_names_that_are_numbers_or_truth_values(root: Path) -> None:
    (root / "params.yaml").write_text(
        "profile: small\nentries:\n  2: {method: felzenszwalb}\n  true: &x {method: felzenszwalb}\n  three: {<<: *x, title: Third}\n"
    )
    entries = read_profile(root).entries
    assert {"2", "true", "three"} <= entries.keys()
    assert (entries["three"].method, entries["three"].title) == ("felzenszwalb", "Third")


def test_the_command_plans_or_refuses(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    (project.root / "params.yaml").write_text("profile: small\nentries:\n  2: {method: felzenszwalb, params: {scales: 3}}\n")
    project.uss("plan")
    assert (project.root / "pipelines" / "scenes" / "2" / "segments.yaml").exists()
    for what in ("alias bomb of mappings", "recursive anchor", "number for a parameter"):
        text, sentence = WRONG[what]
        (project.root / "params.yaml").write_text(f"profile: small\n{text}\n")
        refused = project.uss("plan", code=64)
        assert len(refused.stderr.splitlines()) == 1, what
        assert sentence in refused.stderr, what
