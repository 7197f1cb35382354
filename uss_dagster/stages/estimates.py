"""``estimates``: the entries on a dataset without ground truth, ranked by scores that are estimated without labels.

They are never ranked with scores by ground truth: they are no rows of the leaderboard, and stand on the page of the dataset alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa

from uss_dagster.artifacts.features import FeatureShards, feature_source, read_for
from uss_dagster.artifacts.gate import Report, check_contract
from uss_dagster.artifacts.image_files import shrunk
from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.progress import Progress
from uss_dagster.artifacts.reads import Reads
from uss_dagster.artifacts.schemas import ESTIMATED_RANKING, ESTIMATES
from uss_dagster.artifacts.shards import map_shards
from uss_dagster.artifacts.staging import Staging, content_id
from uss_dagster.artifacts.tables import iterate_regions, write_table
from uss_dagster.metrics.unlabelled.rank_model import DEEP, FEATURES, expected_scores, kind_of, load_model
from uss_dagster.metrics.unlabelled.votes import MEASURES
from uss_dagster.planning.cells import DatasetCell, Facts, FeatureSpec, Plugin, cell_name
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import Planner
from uss_dagster.regions import Regions
from uss_dagster.scoring.label_free import FEWEST, rank_entries
from uss_dagster.stages.datasets import Datasets
from uss_dagster.stages.features import Features
from uss_dagster.stages.segments import Segments

LONG_SIDE = 512
"""Pixels; larger images are described at this size."""


class Estimates(DatasetCell):
    """The estimated ranking of the entries on a dataset without ground truth.

    Parameters
    ----------
    methods
        Entry → its method.
    entry_kinds
        Entry → method and kind of features, see ``rank_model.kind_of``.
    backbones
        Kind of features that the model can read ('deep', 'patches') → backbone of the profile that gives them, best first.
    computed
        Those backbones whose features the profile does not keep → how they are computed; None without one.
    """

    group: ClassVar[str] = "scores"
    eager: ClassVar[bool] = True
    key_fields: ClassVar[tuple[str, ...]] = ("dataset",)
    left_out_when_none: ClassVar[tuple[str, ...]] = ("computed",)

    methods: dict[str, str]
    entry_kinds: dict[str, str]
    backbones: dict[str, str]
    shard_images: int
    computed: dict[str, FeatureSpec] | None = None

    @classmethod
    def plan(cls, planner: Planner) -> Iterator[Self]:
        entries = planner.profile.entries
        for data in planner.cells_of(Datasets):
            segments = [cell for cell in planner.cells_of(Segments) if cell.dataset == data.dataset and cell.entry in entries]
            encoders = {cell.backbone: cell.encoder for cell in planner.cells_of(Features) if cell.dataset == data.dataset}
            computed = {str(cell.backbone): cell.features for cell in segments if cell.features}
            encoders |= {name: spec.encoder for name, spec in computed.items()}
            features = {name: _kind_of_features(encoders[name]) for name in sorted(encoders)}
            backbones = {kind: name for kind in FEATURES for name in reversed(list(features)) if features[name] == kind}
            if data.truth == "none" and len(segments) >= FEWEST and backbones:
                yield cls(
                    dataset=data.dataset,
                    methods={cell.entry: cell.method.name for cell in segments},
                    entry_kinds={cell.entry: kind_of(cell.method.name, features.get(cell.backbone or "", "")) for cell in segments},
                    backbones=backbones,
                    shard_images=planner.profile.settings.shard_images,
                    computed={name: spec for name, spec in computed.items() if name in backbones.values()} or None,
                )

    @property
    def description(self) -> str:
        return f"{len(self.methods)} entries on {self.dataset}, ranked by scores estimated without labels"

    @property
    def backbone(self) -> str:
        """Whose features describe the regions."""
        return next(iter(self.backbones.values()))

    @property
    def features(self) -> FeatureSpec | None:
        """How these are computed; None where they are stored."""
        return (self.computed or {}).get(self.backbone)

    def computed_features(self) -> dict[str, FeatureSpec]:
        return {self.backbone: self.features} if self.features else {}

    def inputs(self, layout: Layout) -> list[Path]:
        segments = [layout.segments(entry, self.dataset) for entry in self.methods]
        stored = [] if self.features else [layout.features(self.backbone, self.dataset)]
        return [layout.images(self.dataset), *stored, *segments]

    def without(self, absent: Container[str]) -> Self | None:
        stay = {entry for entry in self.methods if cell_name(Segments.stage, entry, self.dataset) not in absent}
        backbones = {kind: name for kind, name in self.backbones.items() if self._has_features(name, absent)}
        if len(stay) < FEWEST or not backbones:
            return None
        changed = {name: {e: value for e, value in getattr(self, name).items() if e in stay} for name in ("methods", "entry_kinds")}
        return self.model_copy(update={**changed, "backbones": backbones})

    def _has_features(self, backbone: str, absent: Container[str]) -> bool:
        """Whether features of a backbone are stored, or can be computed here, without the cells named ``absent``."""
        if self.computed and backbone in self.computed:
            return not self.computed[backbone].encoder.missing_weights
        return cell_name(Features.stage, backbone, self.dataset) not in absent

    def run(self, layout: Layout) -> Facts:
        self.check_weights()
        images, names = Images(layout.images(self.dataset)), list(self.methods)
        segments = [layout.segments(entry, self.dataset) for entry in names]
        read = [content_id(folder) for folder in self.inputs(layout)[1:]]
        staging = Staging(layout.private, self.name, [self.to_plain(), images.identity, read])
        kind = next(iter(self.backbones))
        work = functools.partial(_estimate_shard, images=images.folder, segments=segments, methods=list(self.methods.values()), kind=kind)
        shards = images.shards(self.shard_images)
        source = feature_source(layout, self.name, self.backbone, self.dataset, self.features, shards)
        scores: dict[str, dict[str, np.ndarray]] = {}
        with Progress(self.name, len(images)) as progress:
            for features, numbers in source.of_shards(len(shards), lambda number: True):
                reads = _reads(layout, images, features, segments)
                for part in map_shards(functools.partial(work, features=features), [shards[number] for number in numbers], reads=reads):
                    scores |= part
                    progress.advance(len(part))
        source.remove()
        rows, ranking, facts = self._rank(names, {i: s for i, s in scores.items() if np.isfinite(s[MEASURES[0]]).all()}, kind)
        write_table(staging.folder / "estimates.parquet", pa.Table.from_pylist(rows, schema=ESTIMATES), ESTIMATES)
        write_table(staging.folder / "ranking.parquet", pa.Table.from_pylist(ranking, schema=ESTIMATED_RANKING), ESTIMATED_RANKING)
        report = Report(f"estimates {self.dataset}")
        check_contract(
            report, "some image could be compared", [] if rows else ["No entry has a region between 0.2 % and 95 % of an image."]
        )
        check_contract(report, "estimates are shares", [f"{row}" for row in rows if not 0 <= float(str(row["expected"])) <= 1])
        staging.publish(
            self.artefact(layout), report, {"dataset": self.dataset, "features": kind, "counts": {"images": len(scores)}, **facts}
        )
        return {"images": len(scores), **facts}

    def _rank(
        self, names: Sequence[str], scores: dict[str, dict[str, np.ndarray]], kind: str
    ) -> tuple[list[dict[str, object]], list[dict[str, object]], Facts]:
        """(rows of estimates, rows of the ranking by each goal, what is said of it in a line)."""
        ids = sorted(scores)
        rows: list[dict[str, object]] = [
            {"image_id": image_id, "entry": name, "goal": goal, "expected": round(float(value), 6)}
            for image_id in ids
            for goal in MEASURES
            for name, value in zip(names, scores[image_id][goal], strict=True)
        ]
        ranking: list[dict[str, object]] = []
        facts: Facts = {}
        for goal in MEASURES if ids else ():
            table = np.array([scores[image_id][goal] for image_id in ids])
            ranked = rank_entries(names, list(self.entry_kinds.values()), ids, table, load_model(kind), goal)
            for row in ranked.entries:
                numbers = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(row).items()}
                ranking.append({"goal": goal, **numbers})
            facts |= {
                f"{goal}_first": ranked.leaders[0],
                f"{goal}_tied": len(ranked.leaders) - 1,
                f"{goal}_regret": round(ranked.regret, 4),
            }
        return rows, ranking, facts


def _kind_of_features(encoder: Plugin) -> str:
    """'deep' or 'patches' where the model can read the features of this backbone, else ''."""
    if "tokens" not in encoder.params.get("facets", encoder.spec.facets):
        return ""
    if encoder.name == "patches":
        return "patches"
    return "deep" if encoder.params.get("model") == DEEP else ""


def _reads(layout: Layout, images: Images, features: Path | None, segments: Sequence[Path]) -> Reads[list[str]]:
    """What the shards read, for the workers of a cluster."""
    listings, pieces = read_for(features)
    return Reads(layout.root, [images.index, *listings, *segments], lambda ids: [*images.pieces(ids), *pieces(ids)])


def _estimate_shard(
    ids: Sequence[str], images: Path, features: Path, segments: Sequence[Path], methods: Sequence[str], kind: str
) -> dict[str, dict[str, np.ndarray]]:
    """Image → measure → expected score of each entry, of some images."""
    pictures, tokens = Images(images), FeatureShards(features)
    shards = [sorted(folder.glob("shard-*.parquet")) for folder in segments]
    families: list[dict[str, Regions]] = [dict(iterate_regions(paths, set(ids))) for paths in shards]
    scores = {}
    for image_id in ids:
        image = shrunk(pictures.pixels(image_id), LONG_SIDE)
        of_image = [family[image_id] for family in families]
        scores[image_id] = expected_scores(image, tokens.tensors(image_id)["tokens"].astype(np.float32), of_image, methods, kind)
    return scores
