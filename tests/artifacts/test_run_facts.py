"""Facts of runs: replaced as a whole, read without an error whatever lies there."""

import json

from uss_dagster.artifacts.run_facts import LIBRARIES, read_facts, write_facts
from uss_dagster.planning.layout import Layout


def test_facts_are_written_whole_and_read_again(tmp_path):
    path = Layout(tmp_path).run_facts("segments/slic_merge/scenes")
    assert path == tmp_path / ".uss/runs/segments/slic_merge/scenes.json"
    assert read_facts(path) is None, "never run here"
    write_facts(path, {"seconds": 1.5, "images": 4})
    write_facts(path, {"seconds": 2.5})
    facts = read_facts(path)
    assert facts is not None
    assert set(facts) == {"seconds", "libraries"}, "those of the run before are gone"
    assert facts["libraries"].keys() == set(LIBRARIES)
    assert list(path.parent.iterdir()) == [path], "no half-written file stays beside it"
    for broken in ("{", "[]", "\xff"):
        path.write_text(broken, encoding="latin-1")
        assert read_facts(path) is None


def test_facts_are_sorted_json(tmp_path):
    write_facts(tmp_path / "facts.json", {"b": 1, "a": 2})
    text = (tmp_path / "facts.json").read_text()
    assert list(json.loads(text)) == ["a", "b", "libraries"]
    assert text.endswith("}\n")
