"""``uss spot-check``: a few images of a segments cell computed again, and compared with the published regions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uss_dagster.errors import BadData, UsageError, did_you_mean

if TYPE_CHECKING:
    import pyarrow as pa

    from uss_dagster.stages.segments import Segments


def spot_check(
    cell: Annotated[str, typer.Argument(metavar="CELL", help="A segments cell, such as segments/slic_merge/scenes.", show_default=False)],
    images: Annotated[int, typer.Option(min=1, metavar="N", help="How many images to compute again.")] = 2,
) -> None:
    """Compute a few images again: same inputs, same bytes?"""
    from uss_dagster.planning.profiles import find_root

    ids = compare_again(find_root(), cell, images)
    typer.echo(f"{len(ids)} images give the same bytes again: {', '.join(ids)}.")


def compare_again(root: Path, name: str, count: int) -> list[str]:
    """Compute ``count`` evenly spaced images of a cell again, without touching anything; returns their ids.

    Parameters
    ----------
    root
        The project folder.
    name
        Name of a segments cell, or its address for DVC.
    count
        Number of images.

    Raises
    ------
    BadData
        Images came out differently.
    UsageError
        There is no such cell, or nothing to compare with.
    """
    import tempfile

    import pyarrow as pa

    from uss_dagster.artifacts.features import StoredFeatures
    from uss_dagster.artifacts.images import Images, evenly_spaced
    from uss_dagster.artifacts.schemas import REGIONS
    from uss_dagster.artifacts.tables import read_table, regions_to_table, write_table
    from uss_dagster.planning.layout import Layout
    from uss_dagster.segmenter import Samples

    layout = Layout(root)
    cell = _segments_cell(root, name)
    published = cell.artefact(layout)
    shards = sorted(published.glob("shard-*.parquet"))
    if not shards:
        raise UsageError(f"{layout.relative(published)} does not exist. Run `uss repro {cell.name}` first.")
    images = Images(layout.images(cell.dataset))
    compared = evenly_spaced(images.ids, count)
    of_shards = [[image_id for image_id in ids if image_id in compared] for ids in images.shards(cell.shard_images)]
    different = []
    work = layout.private / "work" / "spot_check"  # not in /tmp: features may be large
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        path = Path(scratch) / "again.parquet"
        sources = {dataset: cell.feature_source(layout, dataset, Path(scratch)) for dataset in cell.datasets}
        segmenter = cell.fitted(layout, sources[cell.fit_on or cell.dataset])
        for features, numbers in sources[cell.dataset].of_shards(len(of_shards), lambda number: bool(of_shards[number])):
            ids = [image_id for number in numbers for image_id in of_shards[number]]
            for sample in Samples(ids, images.folder, StoredFeatures(features), segmenter.encoder) if ids else ():
                write_table(path, regions_to_table(sample.image_id, segmenter.segment(sample)), REGIONS)
                before = pa.concat_tables(read_table(shard, REGIONS, filters=[("image_id", "==", sample.image_id)]) for shard in shards)
                if not same(read_table(path, REGIONS), before):
                    different.append(sample.image_id)
    if different:
        raise BadData(
            f"{len(different)} of {len(compared)} images of '{cell.name}' came out differently: {', '.join(different)}. Is the cell up to date "
            "(`dvc status`), and was it computed with these library versions and on this kind of machine?"
        )
    return compared


def _segments_cell(root: Path, name: str) -> Segments:
    """The planned cell of this name or address; its code must be what was planned."""
    from uss_dagster.planning.plan import read_plan
    from uss_dagster.stages.segments import Segments

    cells = read_plan(root).of(Segments)
    cell = next((cell for cell in cells if name in (cell.name, cell.address)), None)
    if cell is None:
        raise UsageError(f"'{name}' is no planned segments cell.{did_you_mean(name, [cell.name for cell in cells])}")
    if cell.code != cell.expected_code():
        raise UsageError(f"The code of '{cell.name}' was edited since it was planned. Run `uss repro {cell.name}` first.")
    return cell


def same(one: pa.Table, other: pa.Table) -> bool:
    """Whether two tables of one schema hold the same bytes. NaN equals NaN here, for levels of masks without any."""
    import pyarrow as pa

    if one.num_rows != other.num_rows:
        return False
    for first, second in zip(one.combine_chunks().columns, other.combine_chunks().columns, strict=True):
        if pa.types.is_floating(first.type):
            if first.to_numpy().tobytes() != second.to_numpy().tobytes():
                return False
        elif not first.equals(second):
            return False
    return True
