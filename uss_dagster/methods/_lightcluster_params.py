"""Parameters of LightCluster, in sections. The paper's readable parts leave every one of them open; defaults are this project's choice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from uss_dagster.bounds import POSITIVE, SHARE, at_least, check_bounds, within
from uss_dagster.methods._objects import ClassRule, ObjectRule
from uss_dagster.methods._points import KMeansRule, PatchRule
from uss_dagster.refine.crf import Kernels


@dataclass(frozen=True)
class Clusters(KMeansRule):
    """The three clusterings.

    Parameters
    ----------
    batch, epochs, tolerance, restarts
        Of the k-means over images, see ``KMeansRule``.
    k_dataset, k_category : int
        Clusters of the patches of all images, and of those of a category. Default 3.
    k_image : int
        Clusters of the patches of an image. Default 2.
    image_restarts : int
        Starts of the k-means inside an image, and seedings of that of the images' class tokens. Default 10.
    """

    k_dataset: int = 3
    k_category: int = 3
    k_image: int = 2
    image_restarts: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, **dict.fromkeys(("k_dataset", "k_category", "k_image", "image_restarts"), at_least(1)))


@dataclass(frozen=True)
class Categories:
    """Groups of images that are alike.

    Parameters
    ----------
    source : {'cls_kmeans', 'oracle'}
        k-means of the images' class tokens, or image labels, which the method ``lightcluster_oracle`` reads. Default 'cls_kmeans'.
    count : int
        Groups. Default 4.
    min_images : int
        A group of fewer images joins the nearest. Default 20.
    """

    source: Literal["cls_kmeans", "oracle"] = "cls_kmeans"
    count: int = 4
    min_images: int = 20

    def __post_init__(self) -> None:
        check_bounds(self, count=at_least(1), min_images=at_least(1))


@dataclass(frozen=True)
class Foreground:
    """Which clusters are foreground.

    Parameters
    ----------
    rule : {'both', 'border', 'cls_attn'}
        The image's own foreground is the cluster that the class token attends to ('cls_attn'), the one with the fewest patches on the
        image's border ('border'), or the best by both together. Default 'both'.
    weak_below, weak_above : float
        The image's own mask is weak, and does not vote, where its share of the image is outside these. Default 0.01 and 0.9.
    vote : {'pooled', 'per_image'}
        Clusters of dataset and category are decided once over all images, or in each image. Default 'pooled'.
    vote_share : float
        Least share of a cluster's patches in the images' own masks. Default 0.5.
    """

    rule: Literal["both", "border", "cls_attn"] = "both"
    weak_below: float = 0.01
    weak_above: float = 0.9
    vote: Literal["pooled", "per_image"] = "pooled"
    vote_share: float = 0.5

    def __post_init__(self) -> None:
        check_bounds(self, weak_below=SHARE, weak_above=SHARE, vote_share=SHARE)


@dataclass(frozen=True)
class Agreement:
    """How the masks of the three levels become one, see ``consistency``.

    Parameters
    ----------
    mask_from : {'consistency', 'dataset', 'category', 'image'}
        All three levels, or one alone. Default 'consistency'.
    agree_iou : float
        IoU from which the masks of dataset and category agree. Default 0.5.
    reliable_iou : float
        IoU with the image's own mask below which the result is not believed. Default 0.1.
    keep_overlap : float
        A component stays where this share of it lies in the image's own mask. Default 0.2.
    keep_share : float
        A component stays where it is this share of the whole mask. Default 0.25.
    min_patches : int
        A component of fewer patches goes. Default 4.
    iterate : int
        Further votes, with the result in the place of the image's own mask. Default 0.
    iterate_change : float
        A further vote is not taken where the result changed less than this share of the patches. Default 0.01.
    """

    mask_from: Literal["consistency", "dataset", "category", "image"] = "consistency"
    agree_iou: float = 0.5
    reliable_iou: float = 0.1
    keep_overlap: float = 0.2
    keep_share: float = 0.25
    min_patches: int = 4
    iterate: int = 0
    iterate_change: float = 0.01

    def __post_init__(self) -> None:
        shares = ("agree_iou", "reliable_iou", "keep_overlap", "keep_share", "iterate_change")
        check_bounds(self, iterate=at_least(0), min_patches=at_least(1), **dict.fromkeys(shares, SHARE))


@dataclass(frozen=True)
class Mask:
    """How the mask of patches becomes one of pixels.

    Parameters
    ----------
    unary : {'cosine', 'mask'}
        What is interpolated: how much each patch is like the mean of the object, or the mask itself. Default 'cosine'.
    temperature : float
        Of the likeness. Default 0.07.
    certainty : float
        Probability of the mask's own side, for 'mask'. Default 0.7.
    refine : {'crf', 'pamr', 'none'}
        How the border is moved to the image's. Default 'crf'. References: Krähenbühl & Koltun, NIPS 2011; Araslanov & Roth, CVPR 2020.
    iterations : int
        Of the refinement. Default 10.
    crf : Kernels
        Of the CRF.
    max_pixels : int
        A larger image is refined at about this size. Default 400 000.
    area_factor : float
        A refined mask that is so many times larger or smaller than before, or empty, is not used. Default 4.
    """

    unary: Literal["cosine", "mask"] = "cosine"
    temperature: float = 0.07
    certainty: float = 0.7
    refine: Literal["crf", "pamr", "none"] = "crf"
    iterations: int = 10
    crf: Kernels = field(default_factory=Kernels)
    max_pixels: int = 400_000
    area_factor: float = 4.0

    def __post_init__(self) -> None:
        check_bounds(
            self,
            temperature=POSITIVE,
            certainty=within(0.5, 1),
            iterations=at_least(0),
            max_pixels=at_least(1),
            area_factor=at_least(1),
        )


@dataclass(frozen=True)
class Classes(ClassRule):
    """Classes of the objects.

    Parameters
    ----------
    source : {'cls', 'patch_tokens'}
        Class tokens of objects are clustered, or patches of the foreground, which finds parts. Default 'cls'.
    count, clustering, restarts, neighbours
        See ``ClassRule``.
    """

    source: Literal["cls", "patch_tokens"] = "cls"


@dataclass(frozen=True)
class Params:
    """All parameters of LightCluster.

    Parameters
    ----------
    patches : PatchRule
        Features and their sample.
    clusters : Clusters
        The clusterings of dataset, category and image.
    categories : Categories
        Groups of images.
    foreground : Foreground
        Which clusters are foreground.
    agreement : Agreement
        One mask of patches from three levels.
    mask : Mask
        From patches to pixels.
    objects : ObjectRule
        From the mask to objects and their crops.
    classes : Classes
        Clusters of the objects.
    seed : int
        Of every clustering and sample. Default 0.
    """

    patches: PatchRule = field(default_factory=PatchRule)
    clusters: Clusters = Clusters()
    categories: Categories = Categories()
    foreground: Foreground = Foreground()
    agreement: Agreement = Agreement()
    mask: Mask = Mask()
    objects: ObjectRule = field(default_factory=ObjectRule)
    classes: Classes = Classes()
    seed: int = 0
