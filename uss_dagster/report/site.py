"""The static site: leaderboard, hierarchy explorer, a page for each entry and dataset, history, exports.

Belongs here: what pages there are and where they lie. Does not belong here: ranking (``leaderboard``), drawing regions (``drawing``),
what a page says (``templates``, ``method_pages``, ``dataset_pages``, ``board``), files for papers (``exports``).

The site opens from disk, loads nothing from a network, and is byte-equal on all machines. What a run cost is not, and the history
grows with every commit; so pages read these from ``costs.js`` and ``history.js`` beside the site's folder, which the site stage
always writes. A copy of the folder without them works: it shows "–" for costs and no history, and the browser logs a missing file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import pandas as pd

from uss_dagster.files import write_whole
from uss_dagster.report import board, explorer, published_and_ours
from uss_dagster.report.dataset_pages import render_dataset_list, render_dataset_page
from uss_dagster.report.evidence import EvidenceReader, no_evidence
from uss_dagster.report.exports import write_exports
from uss_dagster.report.facts import Datasets, Entries, Metrics, title_of
from uss_dagster.report.first_page import metric_groups, plain_tables
from uss_dagster.report.html import asset, dataset_page, entry_page, render_page
from uss_dagster.report.leaderboard import Row, by_ranking, entry_order, rows_of
from uss_dagster.report.mean_ranks import MeanRankTable
from uss_dagster.report.method_pages import EntryImages, images_of, render_method_list, render_method_page, unscored_images
from uss_dagster.report.site_pictures import Drawn, Picture, draw_picture

TITLE = "Unsupervised segmentation leaderboard"
ASSETS = ("page.css", "page.js", "leaderboard.js", "history.js")


def build(
    target_dir: Path | str,
    frame: pd.DataFrame,
    entries: Entries,
    datasets: Datasets,
    metrics: Metrics,
    pictures: Iterable[Picture] = (),
    evidence: EvidenceReader = no_evidence,
    ranks: pd.DataFrame | None = None,
) -> Path:
    """Write the site into a folder.

    Parameters
    ----------
    target_dir : path
        The folder, made where missing.
    frame : pandas.DataFrame
        The result of ``leaderboard.build``.
    entries, datasets, metrics : mapping
        Facts by name; pages follow their order.
    pictures : iterable of Picture
        Images and their regions, sorted by dataset. Read one by one.
    evidence : callable, optional
        Dataset to the details of its scores; see ``evidence.evidence_reader``.
    ranks : pandas.DataFrame, optional
        The result of ``mean_ranks.build``. Default: no table over several datasets.

    Returns
    -------
    Path
        The first page.
    """
    target = Path(target_dir)
    target.mkdir(parents=True, exist_ok=True)
    read_evidence = lru_cache(maxsize=1)(evidence)  # the explorer and the pages ask for one dataset after the other
    writer = _SiteWriter(target, frame, rows_of(frame), entries, datasets, metrics, read_evidence, ranks)
    writer.write_explorer(pictures)
    writer.write_datasets()
    writer.write_methods()
    return writer.write_other_pages()


@dataclass
class _SiteWriter:
    """The arguments of ``build``, and what its steps hand on: the drawn pictures by dataset, the images of method pages by entry."""

    target: Path
    frame: pd.DataFrame
    rows: Sequence[Row]
    entries: Entries
    datasets: Datasets
    metrics: Metrics
    read_evidence: EvidenceReader
    ranks: pd.DataFrame | None
    drawn: dict[str, list[Drawn]] = field(default_factory=dict)
    images: dict[str, list[EntryImages]] = field(default_factory=dict)

    def write_explorer(self, pictures: Iterable[Picture]) -> None:
        """Write the explorer, and all other pictures in the same pass."""
        titles = {name: title_of(facts, name) for facts in (self.metrics, self.datasets, self.entries) for name in facts}
        explorer.write(self.target, map(self._draw, pictures), titles, in_site=True)
        scored = {row.dataset for row in self.rows}
        self.datasets = {name: facts for name, facts in self.datasets.items() if name in self.drawn or name in scored}

    def _draw(self, picture: Picture) -> explorer.SegmentedImage:
        """Draw a picture for the pages and pass it on to the explorer, best entries first, so that one is in memory at a time."""
        drawn = self.drawn.setdefault(picture.dataset, [])
        drawn.append(draw_picture(self.target, len(drawn), picture))
        rows = self._rows_of(picture.dataset)
        scores: dict[str, dict[str, float]] = {}
        tables = self.read_evidence(picture.dataset).images
        for ranking in by_ranking(row for row in rows if row.grid == "full" and not row.detail):
            if ranking in tables and picture.image_id in tables[ranking].table.index:
                values = tables[ranking].table.loc[picture.image_id].dropna()
                for entry, value in zip(values.index, values.to_numpy(float), strict=True):
                    scores.setdefault(entry, {})[ranking.metric] = float(value)
        best_first = [entry for entry in entry_order(rows) if entry in picture.regions]
        regions = {entry: picture.regions[entry] for entry in dict.fromkeys([*best_first, *picture.regions])}
        classes = [facts.name for facts in self.datasets[picture.dataset].classes]
        truths = explorer.truths_of(picture.truth)
        return explorer.SegmentedImage(picture.dataset, picture.image_id, picture.pixels, truths, regions, scores, classes)

    def _rows_of(self, dataset: str) -> list[Row]:
        return [row for row in self.rows if row.dataset == dataset]

    def write_datasets(self) -> None:
        """Write the page and the scripts of each dataset, and the list of them."""
        for dataset, facts in self.datasets.items():
            rows, evidence, drawn = self._rows_of(dataset), self.read_evidence(dataset), self.drawn.get(dataset, [])
            script = board.board_script(dataset, rows, evidence, drawn, self.metrics, facts.published)
            write_whole(self.target / board.board_path(dataset), script)
            for path, text in board.pairs_scripts(dataset, rows, evidence):
                write_whole(self.target / path, text)
            scored = dict.fromkeys(row.entry for row in rows)
            for entry in scored or sorted({entry for image in drawn for entry in image.entries}):
                images = images_of(entry, dataset, evidence, drawn, self.metrics) if scored else unscored_images(entry, dataset, drawn)
                self.images.setdefault(entry, []).extend([images] if images else [])
            write_whole(self.target / dataset_page(dataset), render_dataset_page(dataset, self.datasets, self.entries, rows, drawn))
        write_whole(self.target / "datasets.html", render_dataset_list(self.datasets, {row.dataset for row in self.rows}))

    def write_methods(self) -> None:
        """Write the page of each entry, and the list of them."""
        ranked = {ranking: sum(row.rank is not None for row in group) for ranking, group in by_ranking(self.rows).items()}
        rows: dict[str, list[Row]] = {}
        for row in self.rows:
            rows.setdefault(row.entry, []).append(row)
        for entry, images in self.images.items():
            page = render_method_page(entry, self.entries, self.datasets, rows.get(entry, []), ranked, images)
            write_whole(self.target / entry_page(entry), page)
        run_on = {entry: [images.dataset for images in of_entry] for entry, of_entry in self.images.items()}
        for entry, of_entry in rows.items():
            run_on[entry] = list(dict.fromkeys([*(row.dataset for row in of_entry), *run_on.get(entry, ())]))
        write_whole(self.target / "methods.html", render_method_list(self.entries, self.datasets, run_on))

    def write_other_pages(self) -> Path:
        """Write assets, exports, history, and the first page, whose path is returned."""
        for name in ASSETS:
            write_whole(self.target / f"assets/{name}", asset(name))
        entries = {name: facts for name, facts in self.entries.items() if name in self.images}
        write_whole(self.target / "data/facts.js", board.facts_script(entries, self.datasets))
        repeated = published_and_ours.build(self.frame, self.entries, self.datasets)
        exported = write_exports(self.target, self.frame, self.entries, self.datasets, self.metrics, self.ranks, repeated)
        write_whole(self.target / "exports.html", render_page("exports.html.j2", "Exports", "exports.html", exported=exported))
        write_whole(self.target / "history.html", render_page("history.html.j2", "History", "history.html"))
        first_board = [board.board_path(name) for name in self.datasets][:1]
        scored = {row.dataset for row in self.rows}
        values = {
            "n_entries": len({row.entry for row in self.rows}),
            "n_datasets": len(scored),
            "unscored": [(title_of(self.datasets, name), name, self.drawn[name]) for name in self.datasets if name not in scored],
            "explorer_link": explorer.link,
            "ranks": None if self.ranks is None else MeanRankTable.of(self.ranks),
            "tables": plain_tables(self.rows, self.entries, self.datasets),
            "metric_groups": metric_groups(self.rows, self.metrics),
            "repeated": published_and_ours.repeated_rows(repeated),
        }
        index = self.target / "index.html"
        write_whole(index, render_page("index.html.j2", TITLE, "index.html", first_board=first_board, **values))
        return index
