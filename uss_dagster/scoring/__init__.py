"""Predicted regions against ground truth, image by image and over a dataset.

Belongs here: running metrics over many images, merging parts, bootstrap replicates, ground truth and masks from files. Does not belong
here: a metric itself (``metrics``), ranking entries (``report``).
"""
