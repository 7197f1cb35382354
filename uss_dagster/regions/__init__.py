"""``Regions``, the one type in the middle: methods and ground truth produce it, metrics compare it, reports draw it.

Belongs here: families of masks over one image (nested or overlapping), run-length codes, class trees and resizing of regions.
Does not belong here: files and schemas (``artifacts``), scores (``metrics``), computing regions from pixels (``methods``) and
drawing (``drawing``).
"""

from uss_dagster.regions.classes import ClassTree
from uss_dagster.regions.regions import Regions

__all__ = ["ClassTree", "Regions"]
