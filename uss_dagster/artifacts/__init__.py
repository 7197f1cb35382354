"""Every table and shard that passes between stages: schema, atomic writer, gate, progress.

Belongs here: file layouts and their contracts, writing and reading them, checking them before they count, telling how
far a stage has come. Does not belong here: what the numbers mean, and which stage runs when.
"""
