"""Drawn pictures whose regions are known exactly.

Belongs here: drawing scenes, their objects and textures, and the views of them. Does not belong here: the dataset adapter (``datasets.scenes``).
"""
