"""Getting datasets: fetching files, unpacking archives safely, recording licences, putting a dataset in place.

Belongs here: downloads with checksums and resuming, safe extraction, ``get_dataset``. Does not belong here: what a dataset consists of
(``datasets``), what the command prints (``commands.data``).
"""
