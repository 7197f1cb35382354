"""Sharper borders for a leaf map that exists: dense CRF, PAMR, guided upsampling from a patch grid to pixels.

Belongs here: pure functions on a label map or soft labels and the image below them, and the one optional step that methods call,
``leaves.refine_leaves``. Nothing here sees human labels. Does not belong here: making regions in the first place, or anything that
changes a tree.
"""
