"""From what people edit to what DVC runs: profiles, cells, the pipeline files, code fingerprints, and every path of a project.

Belongs here: reading profiles, deciding which cells there are, writing them, naming paths. Does not belong here: computing anything.
"""
