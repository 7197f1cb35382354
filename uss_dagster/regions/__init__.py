"""Regions, the one type in the middle: methods make them, ground truth is made of them, metrics compare them.

Belongs here: families of masks over one image (nested or overlapping), run-length codes, class trees,
resizing of label maps, drawing regions on a picture. Does not belong here: files and schemas
(``artifacts``), scores (``metrics``), and anything that makes regions from pixels (``methods``).
"""

from uss_dagster.regions.classes import ClassTree
from uss_dagster.regions.regions import Regions

__all__ = ["ClassTree", "Regions"]
