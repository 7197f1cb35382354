"""One page a dataset: counts, the class tree with areas, its validation, samples, licence and citation.

Belongs here: everything about one dataset that its artefact tells. Does not belong here: reading the artefact (``dataset_facts``).
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote

from uss_dagster.report.explorer import link
from uss_dagster.report.facts import ClassFacts, DatasetFacts, Datasets, Entries, title_of
from uss_dagster.report.html import dataset_page, entry_page, link_parts, render_page
from uss_dagster.report.leaderboard import Row, entry_order
from uss_dagster.report.recommendation import GOALS
from uss_dagster.report.references import keys_of
from uss_dagster.report.site_pictures import BANDS, N_REGIONS, Drawn, colour_guide

TRUTHS = {
    "classes": "a tree of labelled regions an image",
    "annotators": "several people’s segmentations an image",
    "instances": "masks of objects, with classes",
    "none": "none",
}


class SampleRow(NamedTuple):
    """An entry among the samples. remark: what stands below its title."""

    entry: str
    title: str
    remark: str


@dataclass(frozen=True)
class ClassNode:
    """A class and its children. width: of its bar in per cent; the largest class but the root has a full one."""

    facts: ClassFacts
    width: float
    children: Sequence[ClassNode]


def render_dataset_page(name: str, datasets: Datasets, entries: Entries, rows: Sequence[Row], images: Sequence[Drawn]) -> str:
    """The page of one dataset. rows: its rows of the leaderboard."""
    facts = datasets[name]
    samples = [image for image in images if image.sample]
    return render_page(
        "dataset.html.j2",
        title_of(datasets, name),
        dataset_page(name),
        facts=facts,
        truth=TRUTHS.get(facts.truth, facts.truth),
        citation=link_parts(facts.citation),
        keys=keys_of("dataset", facts.kind or name, facts.citation),
        homepage=link_parts(facts.homepage),
        rankings=_rankings(name),
        scored=bool(rows),
        estimates=[(GOALS[goal], list(group)) for goal, group in itertools.groupby(facts.estimates, key=lambda row: row["goal"])],
        entry_title=lambda entry: title_of(entries, entry),
        entry_page=entry_page,
        command=f"uss repro {shlex.quote(f'datasets/{name}')}",
        samples=samples,
        sample_rows=_sample_rows(entries, rows, samples),
        guide=colour_guide(samples),
        bands=BANDS,
        n_regions=N_REGIONS,
        explorer_link=lambda image, entry: link(name, image.image_id, [entry]),
        tree=_class_tree(facts.classes),
        leaves=len(facts.classes) - len({c.parent for c in facts.classes if c.parent >= 0}),
        passed=sum(check.success for check in facts.checks),
    )


class ListedDataset(NamedTuple):
    """A dataset in the list of all. rankings: address of its leaderboard, or of its pictures where nothing is scored."""

    title: str
    page: str
    facts: DatasetFacts
    truth: str
    rankings: str
    scored: bool


def render_dataset_list(datasets: Datasets, scored: Container[str]) -> str:
    """The page that lists all datasets. scored: those with scores."""
    listed = [
        ListedDataset(
            title_of(datasets, name), dataset_page(name), facts, TRUTHS.get(facts.truth, facts.truth), _rankings(name), name in scored
        )
        for name, facts in datasets.items()
    ]
    return render_page("datasets.html.j2", "Datasets", "datasets.html", listed=listed)


def _rankings(dataset: str) -> str:
    return f"index.html#d={quote(dataset, safe='')}"


def _sample_rows(entries: Entries, rows: Sequence[Row], samples: Sequence[Drawn]) -> list[SampleRow]:
    """Entries that some sample shows, in the leaderboard's order, each with its first score."""
    drawn = {entry for image in samples for entry in image.entries}
    order = entry_order(rows)
    sample_rows = []
    for entry in [*(e for e in order if e in drawn), *sorted(drawn - set(order))]:
        scores = [f"{row.metric_title} {row.value:.3f}" for row in rows if row.entry == entry and row.rank is not None]
        remark = " · ".join(word for word in (entries[entry].backbone, *scores[:1]) if word)
        sample_rows.append(SampleRow(entry, title_of(entries, entry), remark))
    return sample_rows


def _class_tree(classes: Sequence[ClassFacts]) -> list[ClassNode]:
    """The roots of the class tree."""
    widest = max((facts.share for facts in classes[1:]), default=0) or 1
    children: dict[int, list[ClassNode]] = {}
    for number in reversed(range(len(classes))):  # children come after their parent
        facts = classes[number]
        node = ClassNode(facts, min(100 * facts.share / widest, 100), children.get(number, [])[::-1])
        children.setdefault(facts.parent, []).append(node)
    return children.get(-1, [])[::-1]
