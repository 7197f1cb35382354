"""One page an entry: what it is, how to reproduce it, its scores, its best, median and worst images, its failures and parameters.

What a run cost comes from ``costs.js`` when the page is opened.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from uss_dagster.notes import Fact
from uss_dagster.registry import flat_params, nested_params
from uss_dagster.report.evidence import NO_SCORES, Evidence
from uss_dagster.report.explorer import link
from uss_dagster.report.facts import Datasets, Entries, EntryFacts, Metrics, title_of
from uss_dagster.report.html import dataset_page, entry_page, link_parts, render_page, slug
from uss_dagster.report.leaderboard import Ranking, Row, without_details
from uss_dagster.report.parameters import value_text
from uss_dagster.report.references import keys_of
from uss_dagster.report.site_pictures import BANDS, N_REGIONS, Drawn, colour_guide

SHORT, LONG = 200, 20_000
"""Characters of a fact that comes first, and that is shown at all."""
LISTED = 50
"""Ids of images without a score that are named."""


class ExampleImage(NamedTuple):
    """An image of an entry's gallery. place: 'best', 'median' or 'worst'; '' where there are no scores, and the value is NaN. notes: what the
    method knows of it, a line a fact.
    """

    place: str
    value: float
    image: Drawn
    notes: Sequence[str] = ()


class Version(NamedTuple):
    """Content hashes of a dataset and of an entry's segments on it."""

    dataset: str
    data_version: str
    segments_version: str


class FailedImage(NamedTuple):
    """An image with a low score. address: of it in the explorer, empty where the explorer does not have it."""

    image_id: str
    value: float
    address: str


@dataclass(frozen=True)
class EntryImages:
    """Images of one dataset that tell something about one entry.

    Parameters
    ----------
    dataset : str
        Its name.
    metric : str
        Title of the metric that images were chosen by; '' for evenly spaced images of a dataset without scores.
    examples : sequence of ExampleImage
        Best, median and worst; or all that are drawn.
    failures : sequence of FailedImage
        The worst first.
    count : int
        Number of images with a score.
    skipped : sequence of str
        Images without a score in some metric.
    """

    dataset: str
    metric: str
    examples: Sequence[ExampleImage]
    failures: Sequence[FailedImage]
    count: int
    skipped: Sequence[str]

    @property
    def guide(self) -> str:
        """What the colours of the examples follow."""
        return colour_guide(example.image for example in self.examples)


def images_of(entry: str, dataset: str, evidence: Evidence, drawn: Sequence[Drawn], metrics: Metrics) -> EntryImages | None:
    """Examples and failures of an entry on a dataset; None where there are neither, nor an image without a score."""
    images = {image.image_id: image for image in drawn if entry in image.entries}
    gallery, skipped = evidence.galleries.get(entry), evidence.skipped.get(entry, [])
    examples, failures, count, metric = [], [], 0, ""
    if gallery is not None:
        metric = title_of(metrics, gallery.ranking.metric)
        notes = evidence.notes.get(entry, {})
        examples = [
            ExampleImage(g.place, float(g.value), images[g.image_id], fact_lines(notes.get(g.image_id, {})))
            for g in gallery.images
            if g.image_id in images
        ]
        scores = evidence.images.get(gallery.ranking, NO_SCORES).entries.get(entry)
        if scores is not None:
            worst = scores.lowest if metrics[gallery.ranking.metric].higher_is_better else scores.highest
            count = scores.count
            failures = [FailedImage(i, v, link(dataset, i, [entry]) if i in images else "") for i, v in worst]
    return EntryImages(dataset, metric, examples, failures, count, skipped) if examples or failures or skipped else None


def unscored_images(entry: str, dataset: str, drawn: Sequence[Drawn]) -> EntryImages:
    """The drawn images of an entry on a dataset without scores."""
    examples = [ExampleImage("", math.nan, image) for image in drawn if entry in image.entries]
    return EntryImages(dataset, "", examples, [], len(examples), [])


def render_method_page(
    entry: str,
    entries: Entries,
    datasets: Datasets,
    rows: Sequence[Row],
    ranked: Mapping[Ranking, int],
    images: Sequence[EntryImages],
) -> str:
    """The page of one entry.

    Parameters
    ----------
    entry : str
        Its name.
    entries, datasets : mapping
        Facts of all that are on the leaderboard.
    rows : sequence of Row
        Its rows of the leaderboard.
    ranked : mapping of Ranking to int
        How many entries have a rank there.
    images : sequence of EntryImages
        One a dataset at most.
    """
    facts = entries[entry]
    main_rows = without_details(list(rows))
    versions = {row.dataset: Version(row.dataset, row.data_version, row.segments_version) for row in rows}
    unscored = [of.dataset for of in images if of.dataset not in versions]
    stages = [f"scores/{entry}/{dataset}" for dataset in versions] + [f"segments/{entry}/{dataset}" for dataset in unscored]
    versions |= {name: Version(name, datasets[name].version, facts.versions.get(name, "")) for name in unscored}
    return render_page(
        "method.html.j2",
        title_of(entries, entry),
        entry_page(entry),
        entry=entry,
        facts=facts,
        paper=link_parts(facts.paper),
        keys=keys_of("method", facts.method, facts.paper),
        repro_commands=[f"uss repro {shlex.quote(stage)}" for stage in stages],
        segment_command=_segment_command(facts),
        main_rows=main_rows,
        detail_rows=[row for row in rows if row not in main_rows],
        ranked=ranked,
        images=images,
        versions=versions.values(),
        bands=BANDS,
        n_regions=N_REGIONS,
        explorer_link=lambda dataset, image: link(dataset, image.image_id, [entry]),
        dataset_title=lambda name: title_of(datasets, name),
        dataset_page=dataset_page,
        slug=slug,
        value_text=value_text,
        listed=LISTED,
        variants=[
            (title_of(entries, name), f"{slug(name)}.html", _difference(facts, other))
            for name, other in entries.items()
            if name != entry and other.method == facts.method
        ],
        variant_example=_variant_example(entry, facts),
    )


class ListedEntry(NamedTuple):
    """An entry in the list of all. datasets: titles of those that it was run on."""

    title: str
    page: str
    facts: EntryFacts
    datasets: Sequence[str]


def render_method_list(entries: Entries, datasets: Datasets, run_on: Mapping[str, Sequence[str]]) -> str:
    """The page that lists all entries. run_on: entry to the datasets it was run on; others are left out."""
    listed = [
        ListedEntry(title_of(entries, name), entry_page(name), facts, [title_of(datasets, dataset) for dataset in run_on[name]])
        for name, facts in entries.items()
        if name in run_on
    ]
    return render_page("methods.html.j2", "Methods", "methods.html", listed=listed)


def fact_lines(facts: Mapping[str, Fact]) -> list[str]:
    """What a method handed out, short facts first; of long ones, only how long they are."""
    texts = {name: json.dumps(value, ensure_ascii=False) for name, value in facts.items()}
    ordered = sorted(texts, key=lambda name: (len(texts[name]) > SHORT, name))
    return [f"{name}: {texts[name] if len(texts[name]) <= LONG else f'{len(texts[name]):,} characters of JSON'}" for name in ordered]


def _segment_command(facts: EntryFacts) -> str:
    words = ["uss", "segment", "PICTURES", "--method", facts.method]
    words += ["--backbone", facts.encoder] if facts.encoder else []
    for name, value in facts.encoder_params.items():
        words += ["--backbone-param", f"{name}={value_text(value)}"]
    for name, value in flat_params(facts.params).items():
        words += ["--param", f"{name}={value_text(value)}"]
    return shlex.join(words)


def _difference(mine: EntryFacts, other: EntryFacts) -> str:
    """How another entry of the same method differs."""
    parts = [f"backbone {other.backbone or 'none'}"] if mine.backbone != other.backbone else []
    ours, theirs = flat_params(mine.params), flat_params(other.params)
    for name in sorted({*ours, *theirs}):
        if ours.get(name) != theirs.get(name):
            parts.append(f"{name} = {value_text(theirs[name]) if name in theirs else 'its default'}")
    return ", ".join(parts) or "by name only"


def _variant_example(entry: str, facts: EntryFacts) -> str:
    """Lines of a profile that add a variant with another choice of one parameter; empty where no parameter has choices."""
    for parameter in facts.parameters:
        for choice in parameter.choices:
            if choice != parameter.value:
                backbone = f"backbone: {facts.backbone}, " if facts.backbone else ""
                name = parameter.name.rpartition(".")[2]
                params = value_text(nested_params(flat_params(facts.params) | {parameter.name: choice}))
                return f"entries:\n  {entry}_{name}: {{method: {facts.method}, {backbone}params: {params}}}"
    return ""
