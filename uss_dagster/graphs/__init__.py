"""The mathematics that methods share: superpixels, region graphs, merging, cuts, clustering.

Belongs here: pure functions on arrays, without images' names, files or parameters from profiles. Does not belong here:
anything only one method would ever use.
"""
