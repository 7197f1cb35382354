"""``site``: the leaderboard and sample pictures → a self-contained static page; costs beside it, unhashed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uss_dagster.artifacts.gate import Report, check_contract
from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.staging import Staging, content_id, read_manifest
from uss_dagster.artifacts.tables import iterate_regions
from uss_dagster.report import leaderboard, site
from uss_dagster.report.published import published_rows
from uss_dagster.stages._costs import write_costs
from uss_dagster.yamlfile import YamlFile


def produce(key: str, cell: dict[str, Any], root: Path) -> dict[str, Any]:
    board = YamlFile(root / "grid.yaml").data["grid"]["leaderboard"]
    source = root / "reports" / "leaderboard"
    scored = {d: [c.split("__")[0] for c in board["cells"] if c.split("__")[1] == d] for d in board["datasets"]}
    staging = Staging(root, key, [cell, content_id(source), {d: content_id(root / "data" / "datasets" / d) for d in scored}])
    frame = leaderboard.read(source)
    datasets = {
        name: {
            **facts,
            **_version(root / "data" / "datasets" / name),
            "published": list(published_rows(facts["kind"], board["metrics"])),
        }
        for name, facts in board["datasets"].items()
    }
    site.build(staging.folder, frame, board["entries"], datasets, board["metrics"], _pictures(root, scored))
    report = Report(key)
    check_contract(report, "there is a page", [] if (staging.folder / "index.html").exists() else ["index.html was not written."])
    check_contract(report, "the page needs no network", _outside(staging.folder))
    staging.publish(root / "reports" / "site", report, {})
    write_costs(root)
    return {"files": sum(1 for p in (root / "reports" / "site").rglob("*") if p.is_file())}


def _version(folder: Path) -> dict[str, Any]:
    return {"images": read_manifest(folder)["counts"]["images"], "version": content_id(folder)[:16]}


def _pictures(root: Path, scored: dict[str, list[str]]) -> Iterator[tuple[Any, ...]]:
    """(dataset, image id, pixels, truth, regions by entry) for the samples that the scores keep."""
    for dataset, entries in sorted(scored.items()):
        folder = root / "data" / "datasets" / dataset
        found: dict[str, dict[str, Any]] = {}
        for entry in entries:
            for image_id, regions in iterate_regions([root / "data" / "scores" / entry / dataset / "samples.parquet"]):
                found.setdefault(image_id, {})[entry] = regions
        images = Images(folder / "images")
        truths = dict(iterate_regions([folder / "truth" / "regions.parquet"], set(found)))
        for image_id in sorted(found):
            yield dataset, image_id, images.pixels(image_id), truths.get(image_id), found[image_id]


def _outside(folder: Path) -> Iterator[str]:
    import re

    for page in sorted(folder.rglob("*.html")):
        for match in re.finditer(
            r"""<(?:script|link|img|iframe)[^>]*?(?:src|href)=["'](?:https?:)?//[^"']*""", page.read_text(encoding="utf-8")
        ):
            yield f"{page.name} loads something from the network: {match.group(0)[:120]}."
