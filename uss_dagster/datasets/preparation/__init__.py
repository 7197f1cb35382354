"""From an adapter's examples to a dataset artefact, and its checks.

Belongs here: writing images and ground truth of a dataset, checking them. Does not belong here: one dataset's own rules (its adapter).
"""
