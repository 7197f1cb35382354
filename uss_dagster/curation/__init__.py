"""From the masks that methods found to a training set: merge, measure, filter, remove near-duplicates, split, write, check, describe.

Belongs here: what makes a mask or an image fit to train on, and the file formats that training programs read. Does not belong here:
finding masks (``methods``), drawing (``drawing``), and which entry is curated from which dataset (``planning``).
"""
