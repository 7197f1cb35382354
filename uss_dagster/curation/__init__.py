"""From masks found image by image to a training set: pooled, measured, filtered, deduplicated, split, written and described.

Belongs here: what makes a mask or an image fit to train on, and the forms in which other programs read it. Does not belong here:
making masks (``methods``), drawing (``report``), and which entry is curated from which dataset (``plan``).
"""
