"""A person's own images, outside any project: segmenting them, and curating a training set from them.

Belongs here: the code of ``uss segment``, ``uss recommend`` and ``uss curate``. Does not belong here: their options (``commands``), and what the stages of
a project do with a dataset (``stages``).
"""
