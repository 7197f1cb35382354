"""Sharper borders for a leaf map: dense CRF, pixel-adaptive refinement, guided upsampling from a patch grid to pixels.

Belongs here: pure functions on a label map or soft labels and the image, and ``leaves.refine_leaves``, the one optional step that
methods call. Nothing here sees human labels. Does not belong here: computing regions, or anything that changes a tree.
"""
