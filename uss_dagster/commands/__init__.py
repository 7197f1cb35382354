"""What the `uss` commands do, one file each; ``cli.py`` only parses words and turns errors into exit codes.

Belongs here: programs for a person at a terminal. Does not belong here: what DVC runs (``stages``), algorithms.
"""
