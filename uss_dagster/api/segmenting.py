"""``uss.segment`` and ``uss.backbone``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from uss_dagster import registry
from uss_dagster.api.pictures import Picture, file_name_of, pixels_of
from uss_dagster.api.regions import Regions
from uss_dagster.backbones.base import Encoder, Features, loaded
from uss_dagster.datasets.base import Sample
from uss_dagster.errors import BadData, UsageError
from uss_dagster.own_images.segmenters import backbone_named, backbones_for, segmenter_of
from uss_dagster.segmenter import at_size


def segment(
    image: Picture,
    method: str = "contour_merge",
    backbone: str | None = None,
    *,
    backbone_params: Mapping[str, object] | None = None,
    max_side: int = 1024,
    **params: Any,
) -> Regions:
    """Segment one picture with any method.

    The same picture and parameters give the regions that ``uss segment`` writes, byte for byte.

    Parameters
    ----------
    image : path, array, PIL image or tensor
        An array is (H, W), (H, W, 3) or (H, W, 4), of uint8, or of floats from 0 to 1; a tensor has its channels first.
    method : str, default "contour_merge"
        Name of the method; ``uss.methods()`` lists all.
    backbone : str, optional
        Name of a backbone or of one of its models, such as "patches", which needs no weights, or "dinov2_vits14". Default: None; a method that needs
        features then says which it could take.
    backbone_params : mapping, optional
        Parameters of the backbone.
    max_side : int, default 1024
        A picture with a longer side is segmented at this size, in pixels; 0 for never. The regions have the size of the picture. It is
        ``--long-side`` of ``uss segment``.
    **params
        Parameters of the method; ``uss.methods(method)`` lists them. Those of a section are a mapping, such as ``refine={"kind": "guided"}``.

    Returns
    -------
    Regions
        The regions with the picture.

    Raises
    ------
    UsageError
        A name or a value is wrong, or the method needs a backbone.
    BadData
        The picture cannot be read, or the method found no region.

    Examples
    --------
    >>> import uss_dagster as uss
    >>> regions = uss.segment("photo.jpg", "felzenszwalb", scales=3)  # doctest: +SKIP
    >>> regions.at(8).max()  # doctest: +SKIP
    8
    """
    from threadpoolctl import threadpool_limits

    _check_backbone(method, backbone, params)
    pixels, file_name = pixels_of(image), file_name_of(image)
    with threadpool_limits(1):  # as in `uss segment`, so that sums come out in the same order
        segmenter = segmenter_of(method, params, backbone, backbone_params or {}, max_side)
        sample = segmenter.sample(Path(file_name).stem, pixels)
        family = segmenter.fit(_OneSample(sample)).segment(sample, allow_empty=True)
    if not len(family):
        raise BadData(f"Method '{method}' found no region in {file_name}.")
    return Regions.of(at_size(family, pixels), pixels, file_name)


def _check_backbone(method: str, backbone: str | None, params: Mapping[str, object]) -> None:
    """Refuse a method that needs features without a backbone, and name those that it takes."""
    spec = registry.load("method", method).SPEC
    if backbone is None and (spec.needs or spec.encodes):
        facets = registry.build_params(spec.params, params, f"method '{method}'")
        raise UsageError(
            f"Method '{method}' needs features ({', '.join(spec.facets_read(facets))}): give backbone=NAME, one of "
            f"{', '.join(backbones_for(spec, facets))}; 'patches' needs no weights."
        )


@dataclass(frozen=True)
class _OneSample:
    """The samples of a dataset of one picture, for ``Segmenter.fit``."""

    sample: Sample

    @property
    def ids(self) -> list[str]:
        return [self.sample.image_id]

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Sample]:
        yield self.sample


@dataclass(frozen=True)
class Backbone:
    """A backbone that is ready to run: pictures → features.

    Parameters
    ----------
    encoder : Encoder
        The backbone with its parameters.

    Examples
    --------
    >>> import uss_dagster as uss
    >>> features = uss.backbone("patches")("photo.jpg")  # doctest: +SKIP
    >>> features["tokens"].shape  # doctest: +SKIP
    (60, 40, 32)
    """

    encoder: Encoder

    @overload
    def __call__(self, images: Picture) -> Features: ...
    @overload
    def __call__(self, images: list[Picture] | tuple[Picture, ...]) -> list[Features]: ...
    def __call__(self, images: Picture | list[Picture] | tuple[Picture, ...]) -> Features | list[Features]:
        """The features of pictures.

        Parameters
        ----------
        images : picture, or list or tuple of pictures
            As ``uss.segment`` takes one.

        Returns
        -------
        Features or list of Features
            Of each picture, its facets by name, as float32 arrays: ``features["tokens"]`` is (h, w, C). One for one picture.
        """
        if isinstance(images, list | tuple):
            return self.encoder([pixels_of(image) for image in images])
        one: Any = images
        return self.encoder([pixels_of(one)])[0]


def backbone(name: str, **params: Any) -> Backbone:
    """A backbone by name, with its weights loaded.

    Parameters
    ----------
    name : str
        Name of a backbone, or of one of its models, such as "dinov2_vits14".
    **params
        Its parameters, such as ``facets=("tokens", "keys")``.

    Returns
    -------
    Backbone
        To be called with one picture, or with a list of them.

    Raises
    ------
    UsageError
        There is no backbone or model of this name.
    Unavailable
        Its weights are not on this machine; the sentence says how to get them.

    Examples
    --------
    >>> import uss_dagster as uss
    >>> features = uss.backbone("patches")([image, "photo.jpg"])  # doctest: +SKIP
    """
    kind, model = backbone_named(name)
    registry.module_name("backbone", kind)  # refuses an unknown name
    encoder = Encoder.of(kind, {**model, **{key: list(value) if isinstance(value, tuple) else value for key, value in params.items()}})
    loaded(encoder.kind, encoder.parameters)
    return Backbone(encoder)
