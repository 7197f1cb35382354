"""Segmentation methods, one file each: a SPEC and ``segment(sample, params, state) -> Regions``.

Belongs here: what turns one image (and, with ``fit``, a whole dataset) into regions. Does not belong here: files,
scores, progress, and mathematics that a second method needs (``graphs``).
"""
