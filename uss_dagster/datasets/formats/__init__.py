"""File formats that several dataset adapters share.

Belongs here: class trees, label maps, COCO annotations, pairs of files. Does not belong here: one dataset's own rules.
"""
