"""Class trees."""

import pytest

from uss_dagster.errors import BadData
from uss_dagster.regions import ClassTree

TREE = ClassTree.from_nested({"animal": {"cat": "foreground", "dog": {"head": "foreground", "tail": "foreground"}}, "sky": "background"})


def test_preorder_and_kinds():
    assert TREE.names == ("scene", "animal", "cat", "dog", "head", "tail", "sky")
    assert TREE.parent == (-1, 0, 1, 1, 3, 3, 0)
    assert TREE.kind == (-1, -1, 0, -1, 0, 0, 1)
    assert TREE.depth.tolist() == [0, 1, 2, 2, 3, 3, 1]


def test_ancestors_and_levels():
    assert [TREE.names[a] for a in TREE.ancestors[:, 5].nonzero()[0]] == ["scene", "animal", "dog", "tail"]
    assert [TREE.names[c] for c in TREE.at_depth(2)] == ["scene", "animal", "cat", "dog", "dog", "dog", "sky"]


def test_json_round_trip():
    assert ClassTree.from_json(TREE.to_json()) == TREE


@pytest.mark.parametrize(
    ("parent", "kind", "message"),
    [
        ((0, 0), (-1, 0), "root of a class tree has parent -1"),
        ((-1, 2, 0), (-1, 0, 0), "parents come before"),
        ((-1, 0), (-1, -1), "has no children"),
        ((-1, 0, 1), (-1, 0, 0), "has children"),
    ],
)
def test_impossible_trees_are_refused(parent, kind, message):
    with pytest.raises(BadData, match=message):
        ClassTree.from_arrays(parent, kind)
