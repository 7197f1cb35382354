"""The profiles of the papers' tables: what grid each plans, and the parameters that the papers fix."""

from __future__ import annotations

import functools

import pytest
from projects import SOURCE

from uss_dagster.commands.reproduce import PAPERS, profile_of, tables
from uss_dagster.methods import hierarchy_agnostic, unsam
from uss_dagster.planning.plan import Plan, make_plan
from uss_dagster.planning.profiles import profile_names
from uss_dagster.report.published import published_figures, published_keys
from uss_dagster.stages.datasets import Datasets
from uss_dagster.stages.features import Features
from uss_dagster.stages.leaderboard import Leaderboard
from uss_dagster.stages.scores import Scores
from uss_dagster.stages.segments import Segments

SEVEN = ["ade20k", "coco", "entityseg", "lvis", "paco", "partimagenet", "sa1b"]
HAS1 = ["cityscapes", "coco_stuff", "kitti_step", "mapillary_vistas", "mscoco", "potsdam", "voc2012"]
HAS2 = ["cityscapes", "coco_stuff", "kitti_step", "mapillary_vistas", "partimagenet", "partimagenet_158", "pascal_part"]
STUFF_AND_STREETS = ["cityscapes_27", "coco_stuff_27"]
GRIDS = {  # table → datasets, and pairs of entry and dataset
    "dwc-cityscapes": (["cityscapes_27"], 3),
    "dwc-coco-stuff-27": (["coco_stuff_27"], 3),
    "dwc-features": (STUFF_AND_STREETS, 26),
    "dwc-path-length": (STUFF_AND_STREETS, 16),
    "dwc-threshold": (STUFF_AND_STREETS, 20),
    "has-ablation": (["voc2012"], 7),
    "has-backbones": (["voc2012"], 13),
    "has-clustering": (["voc2012"], 22),
    "has-table1": (HAS1, 26),
    "has-table2": (HAS2, 14),
    "has-table3": (["mscoco", "voc2012"], 8),
    "has-table4": (["coco_stuff", "voc2012"], 10),
    "lightcluster-backbones": (["voc2012"], 8),
    "lightcluster-coco": (["coco"], 2),
    "lightcluster-facets": (["voc2012"], 11),
    "lightcluster-levels": (["voc2012"], 10),
    "lightcluster-voc": (["voc2012"], 2),
    "unsam-table1": ([*SEVEN, "sa1b_train"], 22),
    "unsam-table2": ([*SEVEN, "sa1b_train"], 15),
    "unsam-table3": (["sa1b"], 3),
    "unsam-table4": (["sa1b", "sa1b_train"], 2),
    "unsam-table5": (["coco", "sa1b_train"], 4),
}


@functools.cache
def planned(table: str) -> Plan:
    return make_plan(profile_of(SOURCE, table))


def test_every_table_has_a_profile_that_says_what_it_is() -> None:
    assert tables(SOURCE) == sorted(GRIDS)
    for table in GRIDS:
        profile = profile_of(SOURCE, table)
        assert profile.title
        assert profile.table is not None, table
        assert profile.table.note, "what a reader of the figures must know"
        assert f"{PAPERS}{table}" in profile_names(SOURCE)


@pytest.mark.parametrize("table", GRIDS)
def test_the_grid_of_a_table(table: str) -> None:
    plan, (datasets, pairs) = planned(table), GRIDS[table]
    assert [cell.dataset for cell in plan.of(Datasets)] == datasets
    assert len(plan.of(Segments)) == len(plan.of(Scores)) == pairs


def test_every_published_row_of_a_method_that_is_here_is_repeated_on_each_of_its_datasets() -> None:
    """The figure of a table that no cell repeats is one of a program that is not here, and the profile says so."""
    repeated = {
        (facts["published"], board.datasets[dataset].get("class_set", board.datasets[dataset]["kind"]))
        for table in GRIDS
        for board in planned(table).of(Leaderboard)
        for entry, dataset in board.scores
        if "published" in (facts := board.entries[entry])
    }
    ours = {(row.key, classes) for classes, rows in published_figures().items() for row in rows if row.key and row.method}
    left = ours - repeated
    assert {key for key, _ in left} == {"unsam-table1/unsam-0.2m", "unsam-table1/unsam-0.4m", "unsam-table3/unsam-cascadepsp"}
    assert {key for key, _ in repeated} <= published_keys()


def test_the_hierarchy_agnostic_tables_have_the_papers_geometry_and_parameters() -> None:
    for table in ("has-table1", "has-table2", "has-table3", "has-table4"):
        plan = planned(table)
        for cell in plan.of(Scores):
            assert cell.grids == (["60x120", "full"] if cell.dataset == "cityscapes" else ["60x60", "full"])
            assert {"matching", "covering"} == set(cell.metrics)
        for cell in plan.of(Features):
            patch = 8 if cell.encoder.params["model"].endswith("8") else 14
            size = cell.encoder.params["image_size"]
            assert [side // patch for side in size] == ([60, 120] if cell.dataset == "cityscapes" else [60, 60])
            assert cell.encoder.params["facets"] == ["tokens"]
        for cell in plan.of(Segments):
            if cell.method.name == "hierarchy_agnostic":
                params = cell.method.build()
                wide, eighty = cell.dataset == "cityscapes", "80" in cell.entry
                assert params.settings == hierarchy_agnostic.Preset("dense", 300 if wide else 200, 80.0 if eighty else 50.0)
                assert (params.levels, params.max_kways, params.min_points, params.seed) == (9, 10, 1, 1234)
                assert params.refine == ("crf" if "crf" in cell.entry else "none")
    paper = planned("has-table1").cell("features/vitb14_reg/voc2012")
    assert (paper.encoder.params["model"], paper.store) == ("dinov2_vitb14_reg", "float32")


def test_the_tables_of_diffuse_walk_cut_cut_squares_and_vary_one_thing() -> None:
    for table in ("dwc-cityscapes", "dwc-coco-stuff-27", "dwc-features", "dwc-path-length", "dwc-threshold"):
        for cell in planned(table).of(Datasets):
            assert cell.crop == 512
            assert cell.adapter.params.get("subset", "curated") == "curated"
        (sd,) = {str(cell.encoder) for cell in planned(table).of(Features) if cell.backbone == "sd14"}
        assert "'extraction': 'ddim'" in sd
        assert "'n_steps': 10" in sd
    of = {
        table: [c.method.params for c in planned(f"dwc-{table}").of(Segments) if c.backbone == "sd14"]
        for table in ("threshold", "path-length")
    }
    assert {params["k"] for params in of["path-length"]} == {1, 2, 4, 8}
    assert {params["tau"] for params in of["threshold"]} == {"gap", "mean", "modularity", 0.3, 0.5, 0.7, 0.9}
    assert {c.method.params["graph"] for c in planned("dwc-features").of(Segments)} == {"cos", "dot", "sym", "rw"}
    assert {c.method.params["features"] for c in planned("dwc-features").of(Segments)} == {
        "attention",
        "keys",
        "queries",
        "values",
        "tokens",
    }


def test_the_tables_of_lightcluster_vary_levels_backbones_and_facets() -> None:
    segments = {table: planned(f"lightcluster-{table}").of(Segments) for table in ("levels", "backbones", "facets", "coco", "voc")}
    assert {c.method.params["agreement"]["mask_from"] for c in segments["levels"]} == {"consistency", "dataset", "category", "image"}
    assert {c.method.params["clusters"]["k_dataset"] for c in segments["levels"]} == {2, 3, 4}
    assert {c.method.params["patches"]["facet"] for c in segments["facets"]} == {"keys", "tokens", "queries", "values"}
    assert {c.encoder.params["model"] for c in segments["backbones"] if c.entry == "lightcluster_masks_dino"} == {"dinov2_vitb14_reg"}
    assert {"dino_vits8", "dinov2_vitb14"} <= {c.backbone for c in segments["backbones"]}
    for table, classes, categories in (("voc", 20, 4), ("coco", 80, 12)):
        for cell in segments[table]:
            assert (cell.method.params["classes"]["count"], cell.method.params["categories"]["count"]) == (classes, categories)


def test_the_tables_of_unsam_have_the_papers_thresholds() -> None:
    for table in ("unsam-table1", "unsam-table2", "unsam-table3", "unsam-table4", "unsam-table5"):
        paper = next(cell.method.build() for cell in planned(table).of(Segments) if cell.entry == "unsam")
        assert isinstance(paper, unsam.Params)
        assert paper.merge.thetas == (0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
        assert (paper.merge.crop, paper.merge.grid, paper.merge.min_patches, paper.merge.inside) == (256, 32, 4, 0.9)
        assert (paper.cuts.tau, paper.cuts.tau_mode, paper.cuts.eps) == (0.15, "absolute", 1e-5)
        assert (paper.limits.confidence, paper.limits.iou) == (0.3, 0.9)
        encoder = next(cell.encoder.params for cell in planned(table).of(Features) if cell.backbone == "dino_vitb8")
        assert (encoder["model"], encoder["image_size"]) == ("dino_vitb8", [480, 480])
