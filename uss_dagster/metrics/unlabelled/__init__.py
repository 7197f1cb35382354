"""How good regions are, estimated without labels.

Regions that several methods give, and that are even inside and stand out, are more often what a person would annotate. A small model
gives each region of each entry that chance; an entry's expected score is how well it covers the regions of all entries, weighted by it.

Belongs here: describing regions, the model and its file, expected scores of one picture. Does not belong here: ranking entries over many
pictures (``scoring.label_free``), running methods (``own_images``).
"""
