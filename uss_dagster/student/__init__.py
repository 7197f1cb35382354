"""The student: one network that learns from masks, then segments whole images in one pass and answers clicks at several granularities.

Belongs here: the network, its losses, training, the masks it finds, its evaluation, export and model card. Does not belong here: where masks to
learn from come from (``curation``), the method that puts it on the leaderboard (``methods``), and the commands that train or ask it.

``settings`` can be read without torch; the other modules import it at their top.
"""
