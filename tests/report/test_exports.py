"""Tables and figures for papers: what they hold, and that they can be set."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re

import pandas as pd
import pytest
from small_benchmark import DATASETS, ENTRIES, METRICS, PUBLISHED, WITH_PUBLISHED, make_cells

from uss_dagster import registry
from uss_dagster.report import leaderboard
from uss_dagster.report.exports import as_json, bibliography
from uss_dagster.report.leaderboard import rows_of
from uss_dagster.report.leaderboard_plot import dataset_figures
from uss_dagster.report.references import bibtex, keys_of, references
from uss_dagster.report.text_tables import to_latex


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return leaderboard.build(make_cells(tmp_path_factory.mktemp("cells")), ENTRIES, DATASETS, METRICS)


def test_json_and_csv_hold_every_number(frame: pd.DataFrame) -> None:
    exported = json.loads(as_json(rows_of(frame), WITH_PUBLISHED))
    rows = list(csv.DictReader(io.StringIO(leaderboard.to_csv(frame))))
    assert len(exported["rows"]) == len(rows) == len(frame)
    assert [r["entry"] for r in exported["rows"]] == [r["entry"] for r in rows]
    assert sum(r["value"] is None for r in exported["rows"]) == 1, "beta's error on dogs is undefined"
    assert exported["published_not_measured"] == {"cats": [dataclasses.asdict(work) for work in PUBLISHED]}
    assert all("Paper" not in str(r) for r in exported["rows"])


def test_latex_is_balanced_escaped_and_cites_what_the_bibliography_has(frame: pd.DataFrame) -> None:
    cats = frame[frame["dataset"] == "cats"]
    text = to_latex(rows_of(cats), ENTRIES, {"cats": dataclasses.replace(DATASETS["cats"], title="Cats & 50% <dogs>_x")})
    assert text.count(r"\begin{") == text.count(r"\end{")
    assert text.count("{") == text.count("}")
    assert r"Cats \& 50\% \textless{}dogs\textgreater{}\_x" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "&" in line]
    assert {line.count("&") - line.count(r"\&") for line in rows} == {4}, "two names and three metrics"
    assert text.count(r"\textbf{") == 3, "the best of each column"
    assert r"uses labels" in text
    assert "protocol strict, matched within each image" in text
    bib = bibliography(rows_of(frame), ENTRIES, DATASETS, METRICS)
    cited = {key for keys in re.findall(r"\\cite\{([^}]*)\}", text) for key in keys.split(",")}
    assert cited <= set(re.findall(r"^@\w+\{([^,]+),", bib, re.MULTILINE))
    assert cited
    assert "--" in next(line for line in rows if "Gamma" in line), "gamma has no ceiling"


def test_many_metrics_make_several_tables(frame: pd.DataFrame) -> None:
    cats = frame[frame["dataset"] == "cats"]
    wide = pd.concat([cats.assign(metric=cats["metric"] + str(i)) for i in range(3)], ignore_index=True)
    text = to_latex(rows_of(wide), ENTRIES, DATASETS)
    assert text.count(r"\begin{tabular}") == 2


def test_every_plugin_is_cited_and_every_work_is_used() -> None:
    table = references()
    used = set()
    for family, attribute in (("method", "paper"), ("dataset", "citation"), ("metric", "paper")):
        for name in registry.names(family):
            stated = getattr(registry.load(family, name).SPEC, attribute, "")
            keys = keys_of(family, name, stated)
            assert keys or not stated, f"{family} {name}"
            used |= set(keys)
        assert set(table["cites"][family]) <= set(registry.names(family)), "no plug-in that is gone"
    assert set(table["works"]) <= used
    for key, work in table["works"].items():
        assert {"type", "author", "title", "year"} <= set(work), key
        assert str(work["year"]) in key
        assert "journal" in work or "booktabs" in work or "booktitle" in work or "note" in work, key


def test_a_plugin_of_ones_own_is_cited_by_what_it_says() -> None:
    text = bibtex({("method", "my_method"): "Me & {you}, 2030", ("dataset", "folder"): ""})
    assert text == "@misc{method_my_method,\n  title = {{my\\_method}},\n  note = {Me \\& you, 2030},\n}\n"


def test_figures_hold_no_date(frame: pd.DataFrame) -> None:
    """That their bytes repeat is seen where the whole site is built twice."""
    cats = frame[frame["dataset"] == "cats"]
    figures = dataset_figures(rows_of(cats), "Cats $x$")
    assert set(figures) == {"svg", "png"}
    assert figures["png"].startswith(b"\x89PNG")
    assert b"<dc:date>" not in figures["svg"]
    assert dataset_figures([], "None") == {}
