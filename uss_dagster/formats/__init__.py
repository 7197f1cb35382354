"""Formats of other programs: writing regions so that these programs open them, and reading masks from their files.

Belongs here: one module a format in ``kinds``, found by its file name; what they share (``base``, ``rows``); opening what is exported
(``sources``). Does not belong here: the package's own tables and their readers (``artifacts``), and any measure of masks (``curation``).
"""
