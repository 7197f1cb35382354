"""Predicted regions against ground truth, image by image and over a dataset.

Belongs here: running metrics over many images, merging parts, bootstrap replicates. Does not belong here: a metric itself (``metrics``).
"""
