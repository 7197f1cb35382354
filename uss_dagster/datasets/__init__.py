"""Datasets, one file each: a SPEC, and examples(params) that yields images with their ground truth.

Belongs here: reading a dataset in its official layout, its class tree, its licence and citation. Does not belong here: writing artefacts
(``preparation`` and the stage do that), fetching (``downloads``), scores, and any method.
"""
