"""The student: one network that learns from masks, then segments whole images in one pass and answers clicks at several granularities.

Belongs here: the network, its losses, training, prediction, evaluation, export, model card, and the page on which people click. Does not
belong here: where masks come from (``curation``), the method that puts a student on the leaderboard (``methods``), command-line options
(``commands``).

``settings`` and ``card`` import without torch; the other modules import it at their top.
"""
