"""Datasets, one file each: a SPEC and examples(params) that yields images with their ground truth.

Belongs here: reading a dataset in its official layout, its class tree, its licence and citation, decoding pictures.
Does not belong here: writing artefacts (the stage does that), scores, and any method.
"""
