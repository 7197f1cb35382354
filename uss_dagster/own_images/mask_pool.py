"""The mask pool of a person's own images: masks of each image, pooled and measured, by the engine that also runs the stages.

Each image is one shard, with a key over the content of its file, the parameters, what the method fitted, and the code. So a killed run
loses only the images in flight, a replaced image is the only one computed again, and a renamed one costs nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from uss_dagster import registry
from uss_dagster.artifacts.image_files import decode
from uss_dagster.artifacts.shard_runner import ShardJob, ShardRunner, ShardTotals
from uss_dagster.artifacts.shard_store import ShardStore, shard_key
from uss_dagster.artifacts.staging import Staging
from uss_dagster.artifacts.tables import read_table, write_table
from uss_dagster.curation.mask_pool import MaskFamily, MaskPoolParams, pool_masks, source_image_row
from uss_dagster.curation.stability import stability
from uss_dagster.curation.tables import MASKS, SOURCE_IMAGES
from uss_dagster.errors import BadData, UsageError, UssError
from uss_dagster.files import remove, write_whole
from uss_dagster.hashing import sha256_of, sha256_of_file
from uss_dagster.planning.fingerprints import fingerprint
from uss_dagster.segmenter import Segmenter

LINE_EVERY = 8
"""A line of progress is reported after this number of images."""


@dataclass(frozen=True)
class OwnImage:
    """One image file.

    Parameters
    ----------
    image_id
        Its id, unique in this run.
    name
        Its path below the folder that holds all images.
    path
        Its path.
    sha256
        Hash of its content; empty where it cannot be read.
    problem
        Why it cannot be used; empty where it can.
    """

    image_id: str
    name: str
    path: Path
    sha256: str = ""
    problem: str = ""

    @classmethod
    def read(cls, image_id: str, name: str, path: Path) -> OwnImage:
        """The image with the hash of its file."""
        try:
            return cls(image_id, name, path, sha256_of_file(path))
        except OSError as error:
            return cls(image_id, name, path, problem=f"it cannot be read ({error.strerror})")

    @property
    def files(self) -> tuple[str, str]:
        """Names of its finished files: masks, and the row of the image."""
        return f"{self.sha256}.masks.parquet", f"{self.sha256}.looks.parquet"


def read_all(named: Sequence[tuple[str, str, Path]]) -> list[OwnImage]:
    """Images from the id, name and path of each."""
    with ThreadPoolExecutor() as threads:
        return list(threads.map(OwnImage.read, *zip(*named, strict=True)))


class OwnMaskPool:
    """The masks of all images, a ``curation.tables.Pool``. Images have the ids and names of this run, whatever they were when computed.

    Parameters
    ----------
    images
        All images, ascending by id. After ``compute`` each that has no masks has a problem.
    segmenter
        A fitted segmenter.
    params
        Parameters of pooling.
    private
        Folder of unfinished and finished files, ``DIR/.curate``.
    """

    def __init__(self, images: Sequence[OwnImage], segmenter: Segmenter, params: MaskPoolParams, private: Path) -> None:
        depends_on = [segmenter.identity, registry.params_to_dict(params), fingerprint([__name__, *segmenter.modules()])]
        distinct = {image.sha256: image for image in images if not image.problem}
        self.own_images, self.computed = list(images), 0
        self._errors = private / "errors"
        self._work = functools.partial(_pool_one, segmenter=segmenter, params=params, errors=self._errors)
        self._jobs = [ShardJob(image.files, shard_key(depends_on, image.sha256), image, 1) for image in distinct.values()]
        self._staging = Staging(private, "masks", depends_on)
        self._runner = ShardRunner(self._staging, ShardStore(private / "shards"))

    def compute(self, workers: int, report: Callable[[str], None], report_failure: Callable[[str], None]) -> None:
        """Compute what is not finished yet; files of the same content are computed once."""
        remove(self._errors)
        copies, count = Counter(image.sha256 for image in self.own_images), len(self.own_images)
        number = copies[""]

        def advance(job: ShardJob[OwnImage], totals: ShardTotals) -> None:
            nonlocal number
            before, number = number, number + copies[job.item.sha256]
            if problem := self._problem(job.item):
                report_failure(f"set aside: {job.item.path}: {problem}")
            else:
                self.computed += totals.images
            if number == count or number // LINE_EVERY > before // LINE_EVERY:
                report(f"{number:{len(str(count))}}/{count}  {job.item.name}")

        for image in self.own_images:
            if image.problem:
                report_failure(f"set aside: {image.path}: {image.problem}")
        self._runner.run(self._jobs, self._work, workers, advance)
        self.own_images = [dataclasses.replace(image, problem=self._problem(image)) for image in self.own_images]

    @functools.cached_property
    def images(self) -> pa.Table:
        """One row an image, schema ``SOURCE_IMAGES``."""
        return pa.concat_tables(self._look(image) for image in self.own_images)

    def masks(self) -> Iterator[tuple[str, pa.Table]]:
        """(image id, rows of schema ``MASKS``) of each image that has masks."""
        for image in self.own_images:
            if not image.problem:
                rows = read_table(self._staging.folder / image.files[0], MASKS)
                if rows.num_rows:
                    yield image.image_id, _renamed(rows, image_id=image.image_id).cast(MASKS)

    def finish(self) -> None:
        """Remove what this pool does not use; called when the result is in place."""
        self._runner.evict_others(self._jobs)
        remove(self._staging.folder.parent)

    def _look(self, image: OwnImage) -> pa.Table:
        if image.problem:
            return source_image_row(image.image_id, image.name, image.sha256, None, image.problem)
        row = read_table(self._staging.folder / image.files[1], SOURCE_IMAGES)
        return _renamed(row, image_id=image.image_id, file_name=image.name).cast(SOURCE_IMAGES)

    def _problem(self, image: OwnImage) -> str:
        if image.problem or self._staging.has(image.files[-1]):
            return image.problem
        return _error_file(self._errors, image).read_text(encoding="utf-8").partition("\n")[0]


def _pool_one(image: OwnImage, staging: Staging, segmenter: Segmenter, params: MaskPoolParams, errors: Path) -> None:
    """Compute the masks of one image, or note why it cannot be used. Runs in a worker.

    Only a wrong request stops the run: a method that fails on one image of many is reported and its traceback kept.
    """
    try:
        data = image.path.read_bytes()
        if sha256_of(data) != image.sha256:
            raise BadData("it was changed during the run")
        pixels = decode(data, str(image.path))
        look = source_image_row(image.image_id, image.name, image.sha256, pixels)
        usable = not look["problem"][0].as_py()
        rows = _masks(image.image_id, pixels, segmenter, params) if usable else MASKS.empty_table()
    except UsageError:
        raise
    except Exception as error:
        if isinstance(error, UssError):
            problem = str(error).replace(str(image.path), "it", 1)
        else:
            problem = f"method '{segmenter.method}' failed on it ({type(error).__name__}: {' '.join(str(error).split())})"
        write_whole(_error_file(errors, image), f"{problem}\n{image.path}\n\n{traceback.format_exc()}")
        return
    staging.write(image.files[0], lambda path: write_table(path, rows, MASKS))
    staging.write(image.files[1], lambda path: write_table(path, look, SOURCE_IMAGES))


def _masks(image_id: str, pixels: np.ndarray, segmenter: Segmenter, params: MaskPoolParams) -> pa.Table:
    segment = functools.partial(segmenter.segment_image, image_id)
    regions = segment(pixels)
    return pool_masks(image_id, pixels, [MaskFamily(segmenter.method, regions, stability(pixels, regions, segment, params.views))], params)


def _error_file(folder: Path, image: OwnImage) -> Path:
    return folder / f"{image.sha256[:16]}.txt"


def _renamed(table: pa.Table, **values: str) -> pa.Table:
    """The table with other values in its text columns, the same in all rows."""
    for column, value in values.items():
        position = table.schema.get_field_index(column)
        table = table.set_column(position, table.schema.field(column), pa.array([value] * table.num_rows, pa.string()))
    return table
