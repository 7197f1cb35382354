"""Feature sources, one file each: a SPEC and ``load(params, device)``, a callable from images to facets.

Belongs here: everything that turns pixels into dense features, and reading those features back. Does not belong here:
graphs and clustering made from features (``graphs``), and shards on disk (``artifacts``, ``stages``).
"""
