"""``datasets``: examples of an adapter → images, ground truth, manifest."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar, Self

from uss_dagster import registry
from uss_dagster.artifacts.staging import Staging
from uss_dagster.datasets.formats.class_trees import spec_of, truth_of
from uss_dagster.datasets.preparation.checks import validate
from uss_dagster.datasets.preparation.cropping import centre_crop
from uss_dagster.datasets.preparation.prepare import prepare
from uss_dagster.planning.cells import DatasetCell, Facts, Output, Plugin
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import Planner
from uss_dagster.planning.profiles import complete_params, load_plugin


class Datasets(DatasetCell):
    """The images and the ground truth of a dataset.

    Parameters
    ----------
    adapter
        The adapter and its parameters.
    truth
        Kind of ground truth: 'classes', 'annotators', 'instances' or 'none'.
    content
        Hash of the folders outside the project that the adapter reads; '' where it reads none.
    crop
        Side of the squares that images are cut and scaled to; None leaves them as they are.
    """

    group: ClassVar[str] = "data"
    key_fields: ClassVar[tuple[str, ...]] = ("dataset",)
    device: ClassVar[str] = "net"
    left_out_when_none: ClassVar[tuple[str, ...]] = ("crop",)

    adapter: Plugin
    shard_images: int
    title: str
    truth: str
    licence: str
    citation: str
    content: str = ""
    crop: int | None = None

    @classmethod
    def plan(cls, planner: Planner) -> Iterator[Self]:
        profile = planner.profile
        for name, section in profile.datasets.items():
            kind = section.kind or name
            module = load_plugin(profile, "dataset", kind, "datasets", name)
            params = complete_params(profile, module.SPEC.params, section.params, f"dataset '{kind}'", "datasets", name)
            built = registry.build_params(module.SPEC.params, params, f"dataset '{kind}'")
            yield cls(
                dataset=name,
                adapter=Plugin(family="dataset", name=kind, params=params),
                shard_images=profile.settings.shard_images,
                title=module.SPEC.title,
                truth=truth_of(module, built),
                licence=module.SPEC.licence,
                citation=module.SPEC.citation,
                content=planner.content_of(f"{cls.stage}/{name}", module.inputs(built)) if hasattr(module, "inputs") else "",
                crop=section.crop,
            )

    def inputs(self, layout: Layout) -> list[Path]:
        return [layout.plan_stamp]

    def outputs(self, layout: Layout) -> list[Output]:
        return [Output(self.artefact(layout), push=False)]

    def modules(self) -> list[str]:
        return [self.adapter.module_name]

    def run(self, layout: Layout) -> Facts:
        module, params = self.adapter.module, self.adapter.build()
        spec = spec_of(module, params)
        staging = Staging(layout.private, self.name, self.to_plain())
        counts = prepare(module, params, staging.folder, self.name, change=partial(centre_crop, side=self.crop) if self.crop else None)
        if spec.classes is not None:
            (staging.folder / "truth" / "classes.json").write_text(spec.classes.to_json(), encoding="utf-8")
        manifest = {
            "dataset": self.dataset,
            "kind": self.adapter.name,
            "title": module.SPEC.title,
            "truth": spec.truth,
            "licence": module.SPEC.licence,
            "citation": module.SPEC.citation,
            "homepage": module.SPEC.homepage,
            "params": self.adapter.params,
            **({"crop": self.crop} if self.crop else {}),
            "counts": counts,
        }
        staging.publish(self.artefact(layout), validate(self.dataset, staging.folder, spec), manifest)
        return dict(counts)
