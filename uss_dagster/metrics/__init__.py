"""Metrics, one file a family: a SPEC, ``measure`` for one image and ``reduce`` for their sum.

Belongs here: exact definitions with the name of the convention that they follow. Does not belong here: reading artefacts, ranking entries,
drawing.
"""
