"""``curated``: a pool of masks (and human ones) → a checked, deduplicated, split training set, with its datasheet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Self

from uss_dagster import registry
from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.progress import Progress
from uss_dagster.artifacts.staging import Staging, content_id
from uss_dagster.curation.human import CocoLabels, Labels, TruthLabels, no_labels
from uss_dagster.curation.params import CurateParams, Description
from uss_dagster.curation.tables import MaskPoolFolder
from uss_dagster.errors import UsageError
from uss_dagster.files import remove, write_whole
from uss_dagster.planning.cells import DatasetCell, Facts, Output
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import Planner
from uss_dagster.planning.profiles import Params, Profile, complete_params
from uss_dagster.stages.datasets import Datasets
from uss_dagster.stages.mask_pool import MaskPool
from uss_dagster.stages.segments import Segments

NO_LABELS, TRUTH = "none", "truth"


class CuratedSet(DatasetCell):
    """A training set.

    Parameters
    ----------
    curated
        Name of the set.
    labels
        Human masks: 'none', 'truth' (of the dataset), or the path of a COCO file.
    truth
        Kind of the dataset's ground truth.
    params
        See ``CurateParams``.
    source, methods
        Where images and masks come from, in words, for the datasheet.
    """

    group: ClassVar[str] = "curation"
    key_fields: ClassVar[tuple[str, ...]] = ("curated",)
    preview_by: ClassVar[str | None] = "uss_dagster.report.previews:curated_preview"

    curated: str
    labels: str
    truth: str
    params: Params
    title: str
    source: str
    methods: str
    licence: str
    citation: str
    homepage: str

    @classmethod
    def plan(cls, planner: Planner) -> Iterator[Self]:
        profile = planner.profile
        datasets = {cell.dataset: cell for cell in planner.cells_of(Datasets)}
        titles = {(cell.entry, cell.dataset): cell.title for cell in planner.cells_of(Segments)}
        for pool in planner.cells_of(MaskPool):
            section, dataset = profile.curated[pool.curated], datasets[pool.dataset]
            values = {"preset": section.preset, **section.params}
            yield cls(
                dataset=pool.dataset,
                curated=pool.curated,
                labels=_labels_of(profile, pool.curated, dataset.truth),
                truth=dataset.truth,
                params=complete_params(profile, CurateParams, values, f"curated '{pool.curated}'", "curated", pool.curated, "params"),
                title=pool.title,
                source=f"dataset '{pool.dataset}' ({dataset.title})",
                methods=", ".join(titles[entry, pool.dataset] for entry in pool.entries),
                licence=dataset.licence,
                citation=dataset.citation,
                homepage=dataset.adapter.spec.homepage,
            )

    def inputs(self, layout: Layout) -> list[Path]:
        labels = {NO_LABELS: [], TRUTH: [layout.truth(self.dataset)]}.get(self.labels, [layout.root / self.labels])
        return [layout.mask_pool(self.curated), layout.images(self.dataset), *labels]

    def outputs(self, layout: Layout) -> list[Output]:
        return [Output(self.artefact(layout), push=False), Output(layout.curated_summary(self.curated), metric=True)]

    def run(self, layout: Layout) -> Facts:
        from uss_dagster.curation import curated_set, pages  # imports pandas, which `uss plan` does without

        pool = layout.mask_pool(self.curated)
        images = Images(layout.images(self.dataset))
        params = registry.build_params(CurateParams, self.params, f"curated '{self.curated}'")
        summary_file = layout.curated_summary(self.curated)
        before = curated_set.previous_summary(layout.root, layout.root / self.pipeline / "dvc.lock", summary_file)
        staging = Staging(layout.private, self.name, [self.to_plain(), content_id(pool)])
        for unfinished in list(staging.folder.iterdir()):  # one pass: nothing to resume
            remove(unfinished)
        info = Description(self.title, self.source, self.methods, self.licence, self.citation, self.homepage)
        title = f"curated {self.curated}"
        with Progress(self.name, len(images)) as progress:
            result, report = curated_set.make_set(
                title, staging.folder, MaskPoolFolder(pool), self._human_masks(layout), params, info, images.pixels, progress.advance
            )
        drift = curated_set.check_drift(report, before, result.summary, params)
        counts = {"images": result.summary["kept"], "masks": result.summary["masks"], "human_masks": result.summary["human_masks"]}
        manifest = {
            "name": self.curated,
            "dataset": self.dataset,
            "params": self.params,
            "labels": self.labels,
            "licence": self.licence,
            "counts": counts,
        }
        staging.publish(self.artefact(layout), report, manifest)
        write_whole(summary_file, json.dumps(result.summary, indent=1) + "\n")
        write_whole(layout.run_facts(self.name).with_suffix(".html"), pages.report_page(report, self.title, drift))
        set_aside = {f"images_{status}": number for status, number in result.summary["status"].items() if status != "kept"}
        return {**counts, **set_aside, "coverage": result.summary["coverage"], **curated_set.drift_facts(drift)}

    def _human_masks(self, layout: Layout) -> Labels:
        if self.labels == NO_LABELS:
            return no_labels
        if self.labels == TRUTH:
            return TruthLabels(layout.truth(self.dataset), self.truth)
        return CocoLabels(layout.root / self.labels)


def _labels_of(profile: Profile, name: str, kind: str) -> str:
    """'none', 'truth', or the path of a COCO file."""
    labels = profile.curated[name].labels
    at = profile.at("curated", name, "labels")
    if labels in (False, NO_LABELS):
        return NO_LABELS
    if labels in (True, TRUTH):
        if kind not in ("instances", "classes"):
            raise UsageError(
                f"{at}: ground truth of kind '{kind}' holds no masks of objects. Leave out 'labels', or name a COCO .json file."
            )
        return TRUTH
    if not str(labels).endswith(".json"):
        raise UsageError(f"{at}: labels are none, truth, or a COCO .json file, got {labels!r}.")
    return str(labels)
