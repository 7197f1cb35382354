"""Average recall and precision of masks as COCO computes them, and answers to clicks.

Belongs here: matching proposals to ground truth, precision curves, COCO's lists of annotations, points to click at. Does not belong here:
the metric family with its names (``metrics.proposals``), how regions become proposals.
"""
