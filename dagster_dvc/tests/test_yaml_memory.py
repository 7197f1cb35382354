"""DVC's files are parsed once, and again after every edit."""

import json
from pathlib import Path

import pytest

from dagster_dvc.status_program import states
from dagster_dvc.yaml_memory import MEMORY


def test_the_second_look_parses_nothing_and_sees_every_edit(fed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dagster_dvc.internals import strictyaml

    monkeypatch.chdir(fed)
    parsed: list[str] = []
    parse = strictyaml.parse_yaml
    monkeypatch.setattr(
        strictyaml, "parse_yaml", lambda text, path, **options: parsed.append(Path(path).name) or parse(text, path, **options)
    )
    first = states([])
    assert parsed == ["dvc.yaml", "dvc.lock"]
    assert set(first) == {"segments@lc__toy", "segments@lc__voc", "segments@un__toy", "leaderboard"}
    assert states([]) == first
    assert len(parsed) == 2
    assert len(json.loads((fed / MEMORY).read_text())) == 2
    text = (fed / "dvc.yaml").read_text()
    (fed / "dvc.yaml").write_text(text.replace("copy ${key}", "copy  ${key}"))
    assert states(["datasets@toy"]) == {"datasets@toy": ["changed command"]}
    assert parsed == ["dvc.yaml", "dvc.lock", "dvc.yaml"]
    (fed / "dvc.yaml").write_text(text)
    (fed / "in/toy.txt").write_text("other")
    assert states(["datasets@toy"]) == {"datasets@toy": [{"changed deps": {"in/toy.txt": "modified"}}]}
    (fed / MEMORY).write_text("cut off")
    assert states(["datasets@voc"]) == {}
