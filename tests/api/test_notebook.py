"""The notebook of the docs, run cell by cell as it stands, without a kernel."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import matplotlib as mpl
from projects import SOURCE
from pycocotools.coco import COCO


def test_five_cells_go_from_a_photograph_to_an_explorer(tmp_path: Path) -> None:
    notebook = json.loads((SOURCE / "docs/notebooks/first_photograph.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) == 5
    assert all(not cell.get("outputs") for cell in notebook["cells"]), "results are not committed"
    mpl.use("agg")
    names: dict[str, object] = {}
    with contextlib.chdir(tmp_path):
        for cell in cells:
            exec(compile(cell, "cell", "exec"), names)
        assert len(COCO("cat.json").anns) == len(names["regions"]) > 100
        assert 2 <= names["labels"].max() <= 12
        assert len(names["axes"]) == 4
        assert b'id="explorer-index"' in names["page"].read_bytes()
        assert (tmp_path / "cat/explorer/0000.js").stat().st_size > 1000
